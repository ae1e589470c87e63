"""`zlh repair`: one repair by hand, through the same job, guards, lease and ledger."""

import os

import dagster as dg

from zlh_dagster.core.repair import BatchResult
from zlh_dagster.definitions import build
from zlh_dagster.jobs.level1_repair import LEVEL1_REPAIR, STANDBY
from zlh_dagster.resources.services import Services


class RepairFailed(Exception):
    """The run failed, or somebody else holds the lease; the message says why."""


def repair(services: Services, *, vmid: int, action: str, live: bool) -> BatchResult:
    """Runs the repair job in this process, recorded in Dagster like any other run.

    Raises:
        RepairFailed: If the run failed, a repair that failed included, or did not get the lease.
    """
    home = services.settings.home
    home.mkdir(mode=0o700, parents=True, exist_ok=True)
    os.environ["DAGSTER_HOME"] = str(home)
    config = {
        "repairs": [{"vmid": vmid, "action": action}],
        "requested_by": "operator",
        "live": live,
    }
    with dg.DagsterInstance.get() as instance:
        result = (
            build(services)
            .resolve_job_def(LEVEL1_REPAIR)
            .execute_in_process(
                run_config={"ops": {LEVEL1_REPAIR: {"config": config}}},
                instance=instance,
                raise_on_error=False,
                tags={"zlh/requested_by": "operator", "zlh/vmid": str(vmid)},
            )
        )
    standby = _output(result, "take_lease", STANDBY)
    if standby is not None:
        raise RepairFailed(f"the lease is held by {standby}; try again when it is free")
    if result.success:
        return BatchResult.from_json(result.output_for_node(LEVEL1_REPAIR))
    for event in result.all_events:
        if event.is_step_failure:
            data = event.step_failure_data
            failure = data.user_failure_data
            text = failure.description if failure else data.error_display_string
            raise RepairFailed(text or "the run failed")
    raise RepairFailed(f"run {result.run_id} failed; see it in Dagster")


def _output(result: dg.ExecuteInProcessResult, node: str, name: str) -> str | None:
    for event in result.events_for_node(node):
        if event.is_successful_output and event.step_output_data.output_name == name:
            return str(result.output_for_node(node, name))
    return None
