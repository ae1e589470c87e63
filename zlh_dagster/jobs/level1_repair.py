"""The job `level1_repair`: one batch of repairs under the lease."""

import json
from collections.abc import Iterator
from typing import Any

import dagster as dg
from pydantic import Field

from zlh_dagster.assets.drift import DRIFT
from zlh_dagster.core.launch import Launch
from zlh_dagster.core.model import EDGE_ACTIONS, Action, Surface
from zlh_dagster.core.repair import (
    CONTROLLER,
    OPERATOR,
    Finding,
    RepairOutcome,
    RepairRequest,
    Status,
)
from zlh_dagster.hooks.discord import RESULT, failed_hook, repaired_hook
from zlh_dagster.resources import batch_run
from zlh_dagster.resources.batch import Batch
from zlh_dagster.resources.database import DatabaseError
from zlh_dagster.resources.lease import LeaseHeld, LeaseKeeper
from zlh_dagster.resources.ledger import Fenced
from zlh_dagster.resources.redis import RedisUnavailable
from zlh_dagster.resources.services import Services
from zlh_dagster.resources.settings import SettingsError

LEVEL1_REPAIR = "level1_repair"
POOL = "edge_writes"
MAX_RUNTIME_SECONDS = 900
LEASE = "lease"
HELD, STANDBY = "held", "standby"
_TOLD = (RedisUnavailable, DatabaseError, Fenced, SettingsError)
"""Errors whose message is for the operator, without a traceback."""


class RepairItem(dg.Config):
    """One repair: of a server, of one of its operations, or of a ledger row (`target`)."""

    vmid: int | None = None
    action: str
    surfaces: list[str] = Field(default_factory=list)
    target: str | None = None
    reason: str = ""


class FindingItem(dg.Config):
    """Something to record and tell without repair."""

    incident: str
    severity: str
    title: str
    text: str
    action: str | None = None
    vmid: int | None = None
    surface: str | None = None
    sources: list[str] = Field(default_factory=list)


class RepairConfig(dg.Config):
    """What to repair; `live` false records what would be done.

    What the controller adds: findings to tell, incidents to remind of (`due`) and those that are
    over, approvals that this batch uses up, and when it decided (seconds since the epoch).
    """

    repairs: list[RepairItem] = Field(default_factory=list)
    findings: list[FindingItem] = Field(default_factory=list)
    due: list[str] = Field(default_factory=list)
    over: list[str] = Field(default_factory=list)
    approvals: list[str] = Field(default_factory=list)
    requested_by: str = OPERATOR
    live: bool = False
    decided_at: float | None = None


@dg.resource(description="Gives the lease back at the end of the run, however it ends.")
def lease_keeper() -> Iterator[LeaseKeeper]:
    """What holds the lease from the op that takes it to the end of the run."""
    keeper = LeaseKeeper()
    try:
        yield keeper
    finally:
        keeper.release()


@dg.op(
    out={
        HELD: dg.Out(bool, is_required=False, io_manager_key="memory"),
        STANDBY: dg.Out(str, is_required=False, io_manager_key="memory"),
    },
    description="Takes the singleton lease, or says who holds it and leaves.",
)
def take_lease(
    context: dg.OpExecutionContext,
    services: dg.ResourceParam[Services],
    lease: dg.ResourceParam[LeaseKeeper],
) -> Iterator[dg.Output[Any]]:
    """Takes the lease before the pool is waited for, so that a standby leaves at once."""
    try:
        lease.keep(batch_run.take_lease(services, run_id=context.run_id))
    except LeaseHeld as held:
        context.log.warning(f"standby: the lease is held by {held}; nothing was done")
        yield dg.Output(str(held), STANDBY)
        return
    except _TOLD as error:
        raise _failure(services, error) from None
    _free_slots_of_the_dead(context.instance, context.run_id)
    yield dg.Output(True, HELD)


@dg.op(
    ins={HELD: dg.In(bool)},
    out={RESULT: dg.Out(dict, io_manager_key="memory")},
    pool=POOL,
    description="Guards, fresh read, writes what is wrong, reads back, records.",
)
def repair_batch(
    context: dg.OpExecutionContext,
    config: RepairConfig,
    held: bool,
    services: dg.ResourceParam[Services],
    lease: dg.ResourceParam[LeaseKeeper],
) -> Iterator[Any]:
    """Carries out the batch; fails when a repair failed, after all of them were tried."""
    repairs = _requests(config)
    try:
        batch = Batch(
            repairs=repairs,
            findings=tuple(Finding.from_json(item.model_dump()) for item in config.findings),
            requested_by=config.requested_by,
            run_id=context.run_id,
            live=batch_run.may_write(services, live=config.live, requested_by=config.requested_by),
            fencing_token=lease.lease.fence,
            decided_at=config.decided_at,
            due=tuple(config.due),
            over=tuple(config.over),
            approvals=tuple(config.approvals),
        )
        result = batch_run.run_batch(services, lease.lease, batch)
    except _TOLD as error:
        raise _failure(services, error) from None
    finally:
        # Not kept while the hooks talk to Discord, which may be slow.
        lease.release()
    for outcome in result.outcomes:
        status = outcome.status.value if outcome.status else "in step"
        what = "; ".join((*outcome.changes, outcome.reason)).strip("; ")
        context.log.info(f"{outcome.name} {outcome.action.value}: {status}: {what}")
        if outcome.escalated:
            yield _escalation(services, outcome)
    failed = result.with_status(Status.FAILED)
    value = result.to_json()
    if failed:
        raise dg.Failure(
            description=f"{len(failed)} of {len(result.outcomes)} repairs failed:"
            f" {failed[0].name} {failed[0].reason}",
            metadata={RESULT: dg.MetadataValue.text(json.dumps(value))},
            allow_retries=False,
        )
    numbers = {
        **{status.value: len(result.with_status(status)) for status in Status},
        "findings": len(result.findings),
        "writes": result.writes,
        "seconds": result.seconds,
    }
    yield dg.Output(value, RESULT, metadata=numbers)


@dg.job(
    name=LEVEL1_REPAIR,
    hooks={failed_hook()},
    tags={"dagster/max_runtime": str(MAX_RUNTIME_SECONDS), "zlh/exclusive": "edge"},
    description="Repairs what is safe to repair, one run at a time under the lease.",
)
def level1_repair() -> None:
    """One batch of repairs, with the lease around all of it."""
    held, _ = take_lease()
    repair_batch.alias(LEVEL1_REPAIR).with_hooks({repaired_hook()})(held)


def run_config(launch: Launch, *, live: bool, decided_at: float) -> dict[str, Any]:
    """The run config of a batch that the controller asks for."""
    config = {
        "repairs": [
            {
                "vmid": request.vmid,
                "action": request.action.value,
                "surfaces": [surface.value for surface in request.surfaces or ()],
                "target": request.target,
                "reason": request.reason,
            }
            for request in launch.repairs
        ],
        "findings": [finding.to_json() for finding in launch.findings],
        "due": list(launch.incidents.due),
        "over": list(launch.incidents.over),
        "approvals": list(launch.approvals),
        "requested_by": CONTROLLER,
        "live": live,
        "decided_at": decided_at,
    }
    return {"ops": {LEVEL1_REPAIR: {"config": config}}}


def _escalation(services: Services, outcome: RepairOutcome) -> dg.AssetObservation:
    """The event of a repair that failed or that a breaker refused."""
    return dg.AssetObservation(
        asset_key=DRIFT,
        description=f"escalated: {outcome.name} {outcome.action.value}",
        metadata={
            "escalation": outcome.code,
            "vmid": outcome.vmid if outcome.vmid is not None else -1,
            "action": outcome.action.value,
            "reason": services.redactor.text(outcome.reason) or "-",
            "ledger_row": outcome.event_id or "-",
        },
    )


def _requests(config: RepairConfig) -> tuple[RepairRequest, ...]:
    """The requests of a config.

    Raises:
        dagster.Failure: Naming the first entry that cannot be used, before anything is touched.
    """
    if config.requested_by not in (OPERATOR, CONTROLLER):
        raise _bad(f"requested_by: {config.requested_by!r} is not {OPERATOR} or {CONTROLLER}")
    requests: dict[tuple[str, bool], RepairRequest] = {}
    for item in config.repairs:
        if item.action not in [action.value for action in Action]:
            known = ", ".join(action.value for action in Action if action.built)
            raise _bad(f"repairs: {item.action!r} is not an action; known are {known}")
        unknown = set(item.surfaces) - {surface.value for surface in Surface}
        if unknown:
            raise _bad(f"repairs: {sorted(unknown)[0]!r} is not a surface")
        if item.vmid is None and not item.target:
            raise _bad(f"repairs: {item.action} names neither a vmid nor a target")
        surfaces = tuple(Surface(name) for name in item.surfaces) or None
        request = RepairRequest(
            item.vmid, Action(item.action), surfaces, target=item.target, reason=item.reason
        )
        key = (request.subject, request.action in EDGE_ACTIONS)
        if key in requests:
            raise _bad(f"repairs: {request.subject} is named twice; name it once")
        requests[key] = request
    return tuple(requests.values())


def _bad(text: str) -> dg.Failure:
    return dg.Failure(description=text, allow_retries=False)


def _free_slots_of_the_dead(instance: dg.DagsterInstance, run_id: str) -> None:
    """Frees the pool from runs that were killed.

    Whoever holds the lease is alone: another run that still has the pool's slot has lost its lease
    and can write nothing, so waiting for it would only keep everybody from repairing.
    """
    storage = instance.event_log_storage
    if not storage.supports_global_concurrency_limits:
        return
    pool = storage.get_concurrency_info(POOL)
    for other in (pool.active_run_ids | pool.assigned_run_ids | pool.pending_run_ids) - {run_id}:
        storage.free_concurrency_slots_for_run(other)


def _failure(services: Services, error: Exception) -> dg.Failure:
    text = str(error)
    if not isinstance(error, SettingsError):
        text = services.redactor.text(text)
    return dg.Failure(description=text, allow_retries=False)
