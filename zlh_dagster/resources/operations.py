"""Operations of the platform: the open ones read, and those of dead work closed.

A write happens only while the row is exactly as it was read and the ledger knows no higher fencing
token; anything that moved meanwhile is the sign of life that forbids it. Only the columns that the
platform lets this project write are ever named in an update.
"""

import json
from collections.abc import Mapping
from datetime import datetime
from typing import Any

import pandas as pd
import sqlalchemy as sa
from sqlalchemy.exc import SQLAlchemyError

from zlh_dagster.core.fleet import (
    OPEN_OPERATION_COLUMNS,
    absent,
    open_operations_frame,
    with_reserved,
)
from zlh_dagster.core.model import UNREADABLE
from zlh_dagster.core.times import instant
from zlh_dagster.resources import rows
from zlh_dagster.resources.database import DatabaseError, explain
from zlh_dagster.resources.reservations import Released, changed, release_vmid
from zlh_dagster.schema.tables import provisioning_operation, repair_event, vmid_reservation

OPEN_STATUSES = ("queued", "running")
_OPEN_COLUMNS = tuple(
    provisioning_operation.c[name] for name in OPEN_OPERATION_COLUMNS if name != UNREADABLE
)
_RESERVED_COLUMNS = (vmid_reservation.c.operationId, vmid_reservation.c.vmid)
_TIMES = ("progressAt", "heartbeatAt", "leaseExpiresAt")
_AS_READ = ("status", "jobId", *_TIMES, "updatedAt")


def read_open(engine: sa.Engine) -> pd.DataFrame:
    """All operations that are queued or running, as a frame with ``OPEN_OPERATION_COLUMNS``.

    One that names no VMID has the one that is reserved for it. A cell that cannot be read is null,
    and ``unreadable`` says so.

    Raises:
        DatabaseError: If they cannot be read.
    """
    columns = provisioning_operation.c
    is_open = columns.status.in_(OPEN_STATUSES)
    query = rows.select(_OPEN_COLUMNS).where(is_open).order_by(columns.id)
    found = _rows(engine, query, _OPEN_COLUMNS)
    theirs = vmid_reservation.c.operationId.in_(sa.select(columns.id).where(is_open))
    held = rows.select(_RESERVED_COLUMNS).where(vmid_reservation.c.releasedAt.is_(None), theirs)
    reserved: dict[str, list[int | None]] = {}
    for row in _rows(engine, held.order_by(vmid_reservation.c.vmid), _RESERVED_COLUMNS):
        reserved.setdefault(row["operationId"], []).append(row["vmid"])
    return open_operations_frame(with_reserved(row, reserved.get(row["id"], ())) for row in found)


def read_one(engine: sa.Engine, operation_id: str) -> dict[str, Any] | None:
    """One operation, whatever its status, with ``completedAt`` and ``error`` too.

    Raises:
        DatabaseError: If it cannot be read.
    """
    table = provisioning_operation
    columns = (*_OPEN_COLUMNS, table.c.completedAt, table.c.error)
    found = _rows(engine, rows.select(columns).where(table.c.id == operation_id), columns)
    if not found:
        return None
    row = {**found[0], "error": _parsed(found[0]["error"])}
    del row[UNREADABLE]
    return row


def mark_stale(
    engine: sa.Engine,
    operation_row: Mapping[str, Any],
    *,
    error: Mapping[str, Any],
    fencing_token: int,
    now: datetime,
) -> bool:
    """Closes an operation whose worker is gone as ``stale``.

    Args:
        engine: The platform database.
        operation_row: The row as :func:`read_open` or :func:`read_one` gave it.
        error: What the row then says went wrong.
        fencing_token: That of the lease under which this is done.
        now: Time of closing.

    Returns:
        Whether it was closed; otherwise it moved meanwhile, or somebody else holds the lease.

    Raises:
        DatabaseError: If it could not be written.
    """
    closing = _close(operation_row, "stale", error=error, fencing_token=fencing_token, now=now)
    try:
        with engine.begin() as connection:
            return changed(connection, closing) == 1
    except SQLAlchemyError as failure:
        raise DatabaseError(explain(failure)) from None


def fail_provisioning(
    engine: sa.Engine,
    operation_row: Mapping[str, Any],
    *,
    error: Mapping[str, Any],
    fencing_token: int,
    now: datetime,
    release: bool,
) -> Released | None:
    """Closes an operation that never got anywhere as ``failed``, and gives back what it held.

    Nothing is written when another VMID is reserved for it, or when another operation of its VMID
    is open and something is to be given back. Nothing is given back when the platform has a
    container of that VMID that is past ``provisioning``, or the VMID is reserved for another
    operation.

    Args:
        engine: The platform database.
        operation_row: The row as :func:`read_open` or :func:`read_one` gave it.
        error: What the row then says went wrong.
        fencing_token: That of the lease under which this is done.
        now: Time of closing.
        release: Whether VMID and ports may be given back at all.

    Returns:
        What was given back, or ``None`` when the operation moved meanwhile or somebody else holds
        the lease, and nothing was written.

    Raises:
        DatabaseError: If it could not be written; then nothing was.
    """
    closing = _close(operation_row, "failed", error=error, fencing_token=fencing_token, now=now)
    closing = closing.where(~_another_reserved(operation_row))
    if release and not absent(operation_row["vmid"]):
        closing = closing.where(~_others_open(operation_row))
    try:
        with engine.begin() as connection:
            if changed(connection, closing) != 1:
                return None
            if not release or absent(operation_row["vmid"]):
                return Released()
            vmid, operation = int(operation_row["vmid"]), str(operation_row["id"])
            return release_vmid(connection, vmid=vmid, operation=operation, now=now)
    except SQLAlchemyError as failure:
        raise DatabaseError(explain(failure)) from None


def _another_reserved(row: Mapping[str, Any]) -> sa.Exists:
    """Whether the operation has a VMID that was not read: nobody would release it any more."""
    columns = vmid_reservation.c
    reserved = sa.exists().where(
        columns.operationId == str(row["id"]), columns.releasedAt.is_(None)
    )
    return reserved if absent(row["vmid"]) else reserved.where(columns.vmid != int(row["vmid"]))


def _others_open(row: Mapping[str, Any]) -> sa.Exists:
    """Whether another open operation has the same VMID: what is held may be its own.

    MySQL lets an update look into its own table only through a derived one that it must
    materialise, which the limit sees to.
    """
    columns = provisioning_operation.alias("other").c
    query = sa.select(columns.id).where(
        columns.vmid == int(row["vmid"]),
        columns.id != str(row["id"]),
        columns.status.in_(OPEN_STATUSES),
    )
    return sa.select(query.limit(1).subquery("others").c.id).exists()


def _close(
    row: Mapping[str, Any],
    status: str,
    *,
    error: Mapping[str, Any],
    fencing_token: int,
    now: datetime,
) -> sa.Update:
    columns = provisioning_operation.c
    as_read = [columns[name].is_not_distinct_from(_value(row, name)) for name in _AS_READ]
    return (
        sa.update(provisioning_operation)
        .where(
            columns.id == str(row["id"]),
            columns.status.in_(OPEN_STATUSES),
            *as_read,
            ~sa.exists().where(repair_event.c.fencingToken > fencing_token),
        )
        .values(status=status, completedAt=now, updatedAt=now, error=dict(error))
    )


def _value(row: Mapping[str, Any], name: str) -> Any:
    if name in _TIMES or name == "updatedAt":
        return instant(row[name])
    return None if absent(row[name]) else str(row[name])


def _parsed(text: str | None) -> Any:
    """An error as the platform keeps it; one that is no JSON stays text."""
    try:
        return None if text is None else json.loads(text)
    except (ValueError, RecursionError):
        return text


def _rows(
    engine: sa.Engine, query: "sa.Select[Any]", columns: rows.Columns
) -> list[dict[str, Any]]:
    try:
        return rows.fetch(engine, query, columns)
    except SQLAlchemyError as error:
        raise DatabaseError(explain(error)) from None
