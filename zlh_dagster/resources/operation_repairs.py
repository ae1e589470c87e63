"""Repairs of operations: rows of work that is provably dead are closed, under conditions.

Nothing is written unless the row is still as it was read, and no newer controller has been here.
"""

from collections.abc import Callable
from datetime import datetime, timezone
from typing import Any

import pandas as pd
import sqlalchemy as sa

from zlh_dagster.core import times, watch
from zlh_dagster.core.desired import ROW_UNUSABLE, unreadable_reason
from zlh_dagster.core.fleet import JobState
from zlh_dagster.core.guards import operation_refusal
from zlh_dagster.core.model import UNREADABLE, Action, rows_of
from zlh_dagster.core.repair import Refusal, RepairOutcome, RepairRequest, Status
from zlh_dagster.resources import operations
from zlh_dagster.resources.batch import Batch, Recorder, converged
from zlh_dagster.resources.database import DatabaseError
from zlh_dagster.resources.http import EdgeError
from zlh_dagster.resources.lease import Lease, LeaseLost
from zlh_dagster.resources.ledger import Ledger
from zlh_dagster.resources.preconditions import Checks

WRITE_SECONDS = 20.0
"""Seconds that one transaction may take at the most: the database's own time-outs bound it."""

CHANGED = "changed_meanwhile"
_OBSERVED = (
    "status",
    "phase",
    "progressAt",
    "heartbeatAt",
    "leaseExpiresAt",
    "jobId",
    "job",
    "deadSince",
)
_STATUS = {Action.CLEAR_STALE_OPERATION_LOCK: "running", Action.FAIL_STUCK_PROVISIONING: "queued"}


class OperationRepairs:
    """Carries out ``clear_stale_operation_lock`` and ``fail_stuck_provisioning``.

    Args:
        engine: The platform database.
        read_operations: All open operations with the state of their jobs and since when those are
            dead, now.
        read_payloads: The platform's rows, now.
        list_containers: All containers, now; null where Proxmox is not configured.
        ledger: The repair ledger.
        lease: The held lease.
        checks: What every repair passes first.
        recorder: Keeps refusals and dry runs.
    """

    def __init__(
        self,
        *,
        engine: sa.Engine,
        read_operations: Callable[[], pd.DataFrame],
        read_payloads: Callable[[], pd.DataFrame],
        list_containers: Callable[[], pd.DataFrame] | None,
        ledger: Ledger,
        lease: Lease,
        checks: Checks,
        recorder: Recorder,
    ) -> None:
        self._engine = engine
        self._read_operations = read_operations
        self._read_payloads = read_payloads
        self._list_containers = list_containers
        self._ledger = ledger
        self._lease = lease
        self._checks = checks
        self._recorder = recorder

    def repair(self, batch: Batch, request: RepairRequest) -> RepairOutcome:
        """One operation.

        Raises:
            DatabaseError: If guards or ledger cannot be read before the write.
            EdgeError: If the queues cannot be read.
            Fenced: If another controller has taken over.
            RedisUnavailable: If Redis does not answer.
        """
        row = self._look(request)
        release = _releases(request, row)
        if release and isinstance(row, dict):
            refusal = self._container(int(row["vmid"]))
            # The listing may have taken its time: everything else is looked at once more.
            row = refusal or self._look(request)
        if isinstance(row, Refusal):
            return self._recorder.refuse(request, row)
        if row is None:
            return converged(request, "no such operation is open")
        change = _describe(request, row)
        before = _plain(row)
        if not batch.live:
            after = {"status": _target_status(request)}
            return self._recorder.dry_run(request, before=before, after=after, changes=(change,))
        return self._write(batch, request, row, release=release, change=change)

    def _look(self, request: RepairRequest) -> dict[str, Any] | Refusal | None:
        """The operation as it is now, or why it is not closed; null when it is open no more."""
        refusal = self._checks.refusals([request]).get(request)
        refusal = refusal or operation_refusal(request, self._read_payloads())
        if refusal is not None:
            return refusal
        now = datetime.now(timezone.utc)
        open_operations = self._read_operations()
        row = _chosen(request, open_operations)
        if not isinstance(row, dict):
            return row
        refusal = _not_dead(request, row, now)
        if refusal is None and _releases(request, row):
            refusal = _in_use(row, open_operations)
        return refusal or row

    def _write(
        self,
        batch: Batch,
        request: RepairRequest,
        row: dict[str, Any],
        *,
        release: bool,
        change: str,
    ) -> RepairOutcome:
        try:
            self._lease.require(WRITE_SECONDS)
        except LeaseLost as lost:
            return self._recorder.failed(
                request, f"not tried: {lost}", code="not_tried", changes=(change,)
            )
        event_id = self._ledger.open(batch.entry(request, before=_plain(row)))
        error = _error(request, row, batch.run_id)
        now = datetime.now(timezone.utc)
        after: dict[str, Any] | None = None
        try:
            released: Any = None
            if request.action is Action.FAIL_STUCK_PROVISIONING:
                released = operations.fail_provisioning(
                    self._engine,
                    row,
                    error=error,
                    fencing_token=batch.fencing_token,
                    now=now,
                    release=release,
                )
                changed = released is not None
            else:
                changed = operations.mark_stale(
                    self._engine, row, error=error, fencing_token=batch.fencing_token, now=now
                )
            seen = operations.read_one(self._engine, str(row["id"]))
            after = None if seen is None else _plain(seen)
            code = CHANGED if not changed else "repair_failed"
            problem = _problem(request, changed, after)
        except DatabaseError as failure:
            code, problem, released = "repair_failed", str(failure), None
        if after is not None and released is not None:
            after = {**after, "released": released.to_json()}
        status = Status.FAILED if problem else Status.SUCCEEDED
        if problem and code == CHANGED:
            # Somebody works on it after all: nothing was written, and nothing is wrong.
            status = Status.REFUSED
        detail = {"code": code, "message": problem} if problem else None
        unclosed = self._recorder.close(event_id, status, after=after, error=detail)
        if unclosed is not None:
            status, problem = Status.FAILED, unclosed
        if status is Status.REFUSED:
            return self._recorder.refuse(
                request, Refusal(CHANGED, problem or ""), event_id=event_id
            )
        if problem:
            return self._recorder.failed(request, problem, changes=(change,), event_id=event_id)
        return RepairOutcome(
            request=request,
            status=status,
            reason="" if released is None else released.describe(),
            changes=(change,),
            event_id=event_id,
        )

    def _container(self, vmid: int) -> Refusal | None:
        """Why a VMID may not be released: only a listing that is whole proves it unused.

        A token that may see some containers gets a list of those, and a node lists its own; one
        that lacks the container of an active server is such a list.
        """
        if self._list_containers is None:
            return Refusal(
                "proxmox_unseen",
                "Proxmox is not configured (PROXMOX_URL): whether a container with that VMID"
                " exists is not known",
            )
        try:
            containers = self._list_containers()
        except EdgeError as error:
            return Refusal(
                "proxmox_unseen", f"whether a container with that VMID exists is not known: {error}"
            )
        if (containers["vmid"] == vmid).any():
            return Refusal(
                "container_exists",
                f"a container {vmid} exists: its VMID and ports are in use. Look at it in Proxmox",
            )
        payloads = self._read_payloads()
        active = payloads.loc[payloads["lifecycle"] == "active", "vmid"].dropna()
        absent = sorted(set(active) - set(containers["vmid"]))
        if absent:
            named = ", ".join(str(vmid) for vmid in absent[:5])
            more = f" and {len(absent) - 5} more" if len(absent) > 5 else ""
            return Refusal(
                "proxmox_unseen",
                f"the list of containers lacks those of the active servers {named}{more}: it may be"
                " short (rights of the token, another node), so nothing proves that VMID unused",
            )
        return None


def _chosen(request: RepairRequest, frame: pd.DataFrame) -> dict[str, Any] | Refusal | None:
    """The operation that is meant: by identifier, else the server's only one of that kind."""
    if request.target is not None:
        rows = rows_of(frame[frame["id"] == request.target])
        if not rows or rows[0]["status"] != _STATUS[request.action]:
            return None
        vmid = None if pd.isna(rows[0]["vmid"]) else int(rows[0]["vmid"])
        if vmid != request.vmid:
            # The guards were asked about the server that the request names.
            return Refusal("other_server", f"operation {request.target} is of server {vmid}")
        return rows[0]
    mine = frame[(frame["vmid"] == request.vmid) & (frame["status"] == _STATUS[request.action])]
    rows = rows_of(mine.reset_index(drop=True))
    if len(rows) > 1:
        names = ", ".join(str(row["id"]) for row in rows[:5])
        return Refusal(
            "ambiguous", f"server {request.vmid} has {len(rows)} such operations: {names}"
        )
    return rows[0] if rows else None


def _releases(request: RepairRequest, row: dict[str, Any] | Refusal | None) -> bool:
    """Whether closing the operation gives a VMID and ports back."""
    creates = request.action is Action.FAIL_STUCK_PROVISIONING
    return creates and isinstance(row, dict) and not pd.isna(row["vmid"])


def _in_use(row: dict[str, Any], frame: pd.DataFrame) -> Refusal | None:
    """Why a VMID may not be released: another operation is at work on it."""
    others = frame[(frame["vmid"] == row["vmid"]) & (frame["id"] != row["id"])]
    if others.empty:
        return None
    return Refusal("vmid_in_use", f"operation {others['id'].iloc[0]} is open for the same VMID")


def _not_dead(request: RepairRequest, row: dict[str, Any], now: datetime) -> Refusal | None:
    """Why an operation is not closed: somebody works on it, or that is not known for long."""
    unreadable = unreadable_reason(row)
    if unreadable is not None:
        return Refusal(ROW_UNUSABLE, unreadable)
    job = JobState(row["job"])
    if not job.dead:
        return Refusal("job_alive", f"its queue job is {job.value}")
    if not watch.job_is_dead(row, now):
        return Refusal(
            "too_soon",
            f"its queue job is {job.value}, which must be seen at two ticks"
            f" {watch.DEAD_SECONDS} s apart",
        )
    if request.action is Action.CLEAR_STALE_OPERATION_LOCK:
        if not watch.is_stale(row, now):
            return Refusal("not_stale", "neither its heartbeat nor its lease has expired")
    elif not watch.is_stuck(row, now):
        return Refusal("not_stuck", "it is no create operation queued without progress for long")
    return None


def _problem(request: RepairRequest, changed: bool, after: dict[str, Any] | None) -> str | None:
    if not changed:
        return "the operation changed between the look and the write; nothing was written"
    if after is None or after["status"] != _target_status(request):
        return "the write was accepted, but a fresh read does not show it"
    return None


def _target_status(request: RepairRequest) -> str:
    return "stale" if request.action is Action.CLEAR_STALE_OPERATION_LOCK else "failed"


def _describe(request: RepairRequest, row: dict[str, Any]) -> str:
    was = f"{row['type']} operation {row['id']} ({row['status']}, job {row['job']})"
    return f"{was} as {_target_status(request)}"


def _error(request: RepairRequest, row: dict[str, Any], run_id: str) -> dict[str, Any]:
    """The structured error that the platform's row keeps."""
    stale = request.action is Action.CLEAR_STALE_OPERATION_LOCK
    return {
        "code": "stale_operation" if stale else "stuck_provisioning",
        "message": (
            "the worker stopped renewing the operation and its queue job is dead"
            if stale
            else "queued without progress and its queue job is dead"
        ),
        "observed": {name: row[name] for name in _OBSERVED},
        "controllerRunId": run_id,
    }


def _plain(row: dict[str, Any]) -> dict[str, Any]:
    """A row of an operation as JSON."""
    plain: dict[str, Any] = {}
    for name, value in row.items():
        if name == UNREADABLE:
            continue
        if isinstance(value, datetime):
            plain[name] = times.iso(value)
        elif isinstance(value, dict | list):
            plain[name] = value
        elif value is None or pd.isna(value):
            plain[name] = None
        else:
            plain[name] = int(value) if name in ("vmid", "deadReads") else value
    return plain
