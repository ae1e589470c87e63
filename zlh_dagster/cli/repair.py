"""`zlh repair`: one repair by hand, through the same job, guards, lease and ledger."""

import os
from typing import Any

import dagster as dg

from zlh_dagster.cli.home import prepare_home
from zlh_dagster.core.messages import what_was_done
from zlh_dagster.core.repair import OPERATOR, RepairOutcome, Status
from zlh_dagster.core.result import BatchResult
from zlh_dagster.definitions import build
from zlh_dagster.hooks.discord import REQUESTED_BY_TAG
from zlh_dagster.jobs.level1_repair import LEVEL1_REPAIR, STANDBY
from zlh_dagster.resources.services import Services


class RepairFailed(Exception):
    """The run failed, or somebody else holds the lease; the message says why."""


def event_named(services: Services, event_id: str) -> str:
    """The whole identifier of a ledger row, of which the beginning suffices.

    Raises:
        RepairFailed: If it is empty, or no row or more than one begins so.
        DatabaseError: If the ledger cannot be read.
    """
    if not event_id.strip():
        # Every row begins so: of a ledger with one row it would be that one.
        raise RepairFailed(
            f"{event_id!r}: give the id of a row, or its beginning; zlh events --json lists them"
        )
    found = services.ledger.find(event_id)
    if len(found) == 1:
        return found[0]
    several = "several rows begin so, give more of it" if found else "no row begins so"
    raise RepairFailed(f"{event_id}: {several}; zlh events --json lists them")


def _answer(outcome: RepairOutcome) -> dict[str, Any]:
    """What came of a repair, as `--json` prints it and in words."""
    status = outcome.status.value if outcome.status else "in_step"
    told = [what for what in (what_was_done(outcome), outcome.reason) if what]
    return {
        "vmid": outcome.vmid,
        "action": outcome.action.value,
        "target": outcome.request.target,
        "status": status,
        "code": outcome.code or None,
        "reason": outcome.reason,
        "changes": list(outcome.changes),
        "event_id": outcome.event_id,
        "message": f"{outcome.name} {status.replace('in_step', 'in step')}: {'; '.join(told)}",
    }


def repair(
    services: Services, *, vmid: int | None, action: str, live: bool, target: str | None = None
) -> BatchResult:
    """Runs the repair job in this process, recorded in Dagster like any other run.

    Args:
        services: The outside systems.
        vmid: The server.
        action: What to do.
        live: Whether it writes.
        target: The operation, or the ledger row to revert.

    Raises:
        RepairFailed: If the run failed, a repair that failed included, or did not get the lease.
    """
    home = services.settings.home
    prepare_home(home)
    os.environ["DAGSTER_HOME"] = str(home)
    config = {
        "repairs": [{"vmid": vmid, "action": action, "target": target}],
        "requested_by": OPERATOR,
        "live": live,
    }
    row = services.ledger.event(target) if target is not None and vmid is None else None
    about = str(vmid or (row or {}).get("vmid") or target)
    with dg.DagsterInstance.get() as instance:
        result = (
            build(services)
            .resolve_job_def(LEVEL1_REPAIR)
            .execute_in_process(
                run_config={
                    "ops": {LEVEL1_REPAIR: {"config": config}},
                    # Events are kept in Dagster; here only the outcome is printed.
                    "loggers": {"console": {"config": {"log_level": "CRITICAL"}}},
                },
                instance=instance,
                raise_on_error=False,
                tags={REQUESTED_BY_TAG: OPERATOR, "zlh/vmid": about},
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


def perform(
    services: Services, *, vmid: int | None, action: str, live: bool, target: str | None
) -> list[dict[str, Any]]:
    """The same, as answers for the operator; a command that asks for one repair gets one.

    Raises:
        RepairFailed: As :func:`repair`.
    """
    result = repair(services, vmid=vmid, action=action, live=live, target=target)
    return [_answer(outcome) for outcome in result.outcomes]


def exit_status(answers: list[dict[str, Any]]) -> int:
    """1 when one was refused."""
    return int(any(answer["status"] == Status.REFUSED.value for answer in answers))
