"""The only place that wires assets, jobs, sensors and resources together."""

import os

import dagster as dg

from zlh_dagster.assets.agent_shards import agent_shards
from zlh_dagster.assets.drift import drift
from zlh_dagster.assets.tick import tick
from zlh_dagster.checks.in_step import drift_in_step
from zlh_dagster.jobs.agent_shards import probe_agents
from zlh_dagster.jobs.digest import digest, digest_every_morning
from zlh_dagster.jobs.level1_repair import LEASE, lease_keeper, level1_repair
from zlh_dagster.jobs.observe import observe, observe_every_minute
from zlh_dagster.jobs.retention import retention, retention_every_hour
from zlh_dagster.resources.private import OWNER_ONLY
from zlh_dagster.resources.services import Services
from zlh_dagster.sensors.agent_rounds import agent_rounds_sensor
from zlh_dagster.sensors.drift import drift_sensor
from zlh_dagster.sensors.run_failure import run_failure_sensor

# Dagster's own commands start with whatever umask the shell has, and write a run's files before the
# services are first used. All of the importing process gets it: a test that looks at the modes of
# files sets the umask itself.
os.umask(OWNER_ONLY)


def build(services: Services) -> dg.Definitions:
    """All definitions over the given services.

    Args:
        services: The outside systems; built from the settings when first used, so that loading
            the definitions reads nothing.
    """
    return dg.Definitions(
        assets=[tick, agent_shards, drift],
        asset_checks=[drift_in_step],
        # A run has its process already, and a worker's may start no others: this goes for what the
        # web UI starts of single assets and checks, too.
        executor=dg.in_process_executor,
        jobs=[observe, probe_agents, level1_repair, digest, retention],
        schedules=[observe_every_minute, digest_every_morning, retention_every_hour],
        sensors=[drift_sensor, agent_rounds_sensor, run_failure_sensor()],
        resources={
            "services": services,
            LEASE: lease_keeper,
            "memory": dg.mem_io_manager,
        },
    )


defs = build(Services())
