"""The sensor that has the agents of a large fleet asked, in shards, after each tick."""

import dagster as dg

from zlh_dagster.assets.agent_shards import AGENT_SHARDS
from zlh_dagster.core.policy import PAYLOADS
from zlh_dagster.jobs.agent_shards import PROBE_AGENTS
from zlh_dagster.jobs.observe import OBSERVE, UNFINISHED
from zlh_dagster.resources.services import Services
from zlh_dagster.resources.shards import Shard, shards_for, to_ask
from zlh_dagster.resources.snapshots import SnapshotMissing

_EVERY_SECONDS = 10


@dg.sensor(
    name="agent_rounds_sensor",
    job_name=PROBE_AGENTS,
    minimum_interval_seconds=_EVERY_SECONDS,
    default_status=dg.DefaultSensorStatus.RUNNING,
    description="Has the agents of a fleet above ZLH_AGENT_SHARD_SIZE asked, a run for each shard.",
)
def agent_rounds_sensor(
    context: dg.SensorEvaluationContext, services: dg.ResourceParam[Services]
) -> dg.SensorResult | dg.SkipReason:
    """One round for each tick, unless the last is still under way."""
    size = services.settings.zlh_agent_shard_size
    if not services.settings.proxmox_on:
        return dg.SkipReason("without Proxmox agents are not asked")
    done = dg.RunsFilter(job_name=OBSERVE, statuses=[dg.DagsterRunStatus.SUCCESS])
    newest = context.instance.get_run_ids(done, limit=1)
    if not newest or newest[0] == context.cursor:
        return dg.SkipReason("no new tick is complete")
    tick = newest[0]
    try:
        payloads = services.snapshots.read(PAYLOADS, tick)
    except SnapshotMissing as error:
        return dg.SkipReason(str(error))
    agents = len(to_ask(payloads.rows)) if payloads.observed else 0
    shards = shards_for(agents, size)
    if not shards:
        reason = f"{agents} agents are asked in the tick itself, for there may be {size}"
        return dg.SensorResult(skip_reason=reason, cursor=tick)
    under_way = dg.RunsFilter(job_name=PROBE_AGENTS, statuses=UNFINISHED)
    if context.instance.get_run_ids(under_way, limit=1):
        return dg.SkipReason("the last round is still under way")
    _have_partitions(context.instance, shards)
    return dg.SensorResult(run_requests=[_request(tick, s) for s in shards], cursor=tick)


def _request(tick: str, shard: Shard) -> dg.RunRequest:
    return dg.RunRequest(
        run_key=f"{tick}:{shard.name}",
        partition_key=shard.name,
        run_config={"ops": {AGENT_SHARDS: {"config": {"tick": tick}}}},
    )


def _have_partitions(instance: dg.DagsterInstance, shards: list[Shard]) -> None:
    """Partitions are those of the fleet as it is; others would be shown as never asked."""
    wanted = {shard.name for shard in shards}
    there = set(instance.get_dynamic_partitions(AGENT_SHARDS))
    if wanted - there:
        instance.add_dynamic_partitions(AGENT_SHARDS, sorted(wanted - there))
    for name in there - wanted:
        instance.delete_dynamic_partition(AGENT_SHARDS, name)
