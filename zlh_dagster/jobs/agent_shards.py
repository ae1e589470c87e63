"""The job `probe_agents`: one shard of a large fleet's agents."""

import dagster as dg

from zlh_dagster.assets.agent_shards import AGENT_SHARDS

PROBE_AGENTS = "probe_agents"
MAX_RUNTIME_SECONDS = 90
SHARD_TAG = "zlh/shards"
"""Its value in dagster.yaml limits how many shards of a round run at the same time."""

probe_agents = dg.define_asset_job(
    PROBE_AGENTS,
    selection=dg.AssetSelection.assets(AGENT_SHARDS),
    description="Asks one shard of the agents; changes nothing.",
    tags={
        "dagster/max_runtime": str(MAX_RUNTIME_SECONDS),
        # Behind ticks and repairs: a round that comes late costs the sight of agents only.
        "dagster/priority": "-1",
        SHARD_TAG: "agents",
    },
)
