"""The asset `agent_shards`: agents of a large fleet, a partition for each part of them."""

import dagster as dg

from zlh_dagster.assets.metadata import snapshot_metadata
from zlh_dagster.assets.specs import OWNERS, columns_of
from zlh_dagster.core.policy import AGENTS, PAYLOADS
from zlh_dagster.resources.observe import observe_shard
from zlh_dagster.resources.services import Services
from zlh_dagster.resources.shards import Shard

AGENT_SHARDS = "agent_shards"
"""It depends on the rows of the tick before, which Dagster would take for a circle: the tick that
reads rows is also the one that takes the answers."""

PARTITIONS = dg.DynamicPartitionsDefinition(name=AGENT_SHARDS)


class RoundConfig(dg.Config):
    """Which round a shard belongs to: the tick whose rows say who is asked."""

    tick: str


@dg.asset(
    name=AGENT_SHARDS,
    partitions_def=PARTITIONS,
    group_name="observed",
    kinds={"http"},
    owners=OWNERS,
    description=(
        "Agents of a fleet above `ZLH_AGENT_SHARD_SIZE`, asked between two ticks.\n\nEach"
        " partition is a run of its own, which any worker may take; the next tick's `agents` are"
        " the answers of the newest whole round. A smaller fleet has no partitions."
    ),
)
def agent_shards(
    context: dg.AssetExecutionContext, config: RoundConfig, services: dg.ResourceParam[Services]
) -> dg.MaterializeResult[None]:
    """One shard of one round."""
    shard = Shard.parse(context.partition_key)
    taken = observe_shard(services, services.snapshots.read(PAYLOADS, config.tick), shard)
    if not taken.observed:
        context.log.warning(f"shard {shard.name} is {taken.outcome.value}: {taken.reason}")
    path = services.agent_rounds.write(taken)
    return dg.MaterializeResult(
        metadata={
            **snapshot_metadata(taken, columns=columns_of(AGENTS)),
            "path": dg.MetadataValue.path(path),
        }
    )
