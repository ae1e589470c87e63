"""Writes rows of the platform's tables, as the platform's API would.

Columns go by the names that they have in the database. A time may be given as a ``datetime``, as
ISO 8601 text, or as a number: seconds from now, so that ``-1200`` was twenty minutes ago.
"""

from collections.abc import Iterable
from datetime import datetime, timedelta, timezone
from typing import Any
from uuid import uuid4

import sqlalchemy as sa

from zlh_dagster.schema.tables import (
    UtcDateTime,
    container_instance,
    port_pool,
    provisioning_operation,
    vmid_reservation,
)


class WrongRow(Exception):
    """A row that cannot be written as it was asked for."""


def write_operation(engine: sa.Engine, /, **columns: Any) -> str:
    """Write an operation; by default a server's creation, queued just now.

    Returns:
        Its identifier.

    Raises:
        WrongRow: If a column does not exist or a time cannot be read.
    """
    now = datetime.now(timezone.utc)
    row: dict[str, Any] = {
        "id": f"op-{uuid4().hex[:12]}",
        "type": "create",
        "queue": "provisioning",
        "status": "queued",
        "createdAt": now,
        "updatedAt": columns.get("createdAt", now),
        **columns,
    }
    _insert(engine, provisioning_operation, [row])
    return str(row["id"])


def write_reservation(
    engine: sa.Engine, /, *, vmid: int, operation_id: str, **columns: Any
) -> None:
    """Write that an operation has reserved a VMID, just now.

    Raises:
        WrongRow: If a column does not exist, or the VMID is reserved already.
    """
    now = datetime.now(timezone.utc)
    row = {"vmid": vmid, "operationId": operation_id, "reservedAt": now, **columns}
    _insert(engine, vmid_reservation, [row])


def write_ports(engine: sa.Engine, ports: Iterable[int], /, **columns: Any) -> None:
    """Write ports of the pool; by default game ports, allocated when ``allocatedTo`` is given.

    Raises:
        WrongRow: If a column does not exist, or a port is there already.
    """
    now = datetime.now(timezone.utc)
    row = {
        "portType": "game",
        "status": "free" if columns.get("allocatedTo") is None else "allocated",
        "createdAt": now,
        "updatedAt": now,
        **columns,
    }
    _insert(engine, port_pool, [{**row, "port": port} for port in ports])


def change_server(engine: sa.Engine, vmid: int, /, **columns: Any) -> None:
    """Change columns of a server, such as ``billingStatus`` or ``maintenanceReason``.

    Raises:
        WrongRow: If there is no such server or column.
    """
    table = container_instance
    given = _values(table, {"updatedAt": datetime.now(timezone.utc), **columns})
    with engine.begin() as connection:
        statement = sa.update(table).where(table.c.vmid == vmid).values(given)
        if connection.execute(statement).rowcount == 0:
            raise WrongRow(f"no server {vmid}")


def _insert(engine: sa.Engine, table: sa.Table, rows: list[dict[str, Any]]) -> None:
    values = [_values(table, row) for row in rows]
    try:
        with engine.begin() as connection:
            if values:
                connection.execute(sa.insert(table), values)
    except sa.exc.IntegrityError as error:
        raise WrongRow(f"{table.name}: {error.orig}") from error


def _values(table: sa.Table, row: dict[str, Any]) -> dict[str, Any]:
    known = [column.name for column in table.columns]
    for name in row:
        if name not in known:
            raise WrongRow(f"no column {name!r} in {table.name}; there are: {', '.join(known)}")
    return {name: _value(table.c[name], value) for name, value in row.items()}


def _value(column: sa.Column[Any], value: Any) -> Any:
    if value is None or not isinstance(column.type, UtcDateTime):
        return value
    time = _time(column.name, value)
    return time if time.tzinfo is not None else time.replace(tzinfo=timezone.utc)


def _time(name: str, value: Any) -> datetime:
    if isinstance(value, datetime):
        return value
    try:
        if isinstance(value, str):
            return datetime.fromisoformat(value.replace("Z", "+00:00"))
        if isinstance(value, (int, float)) and not isinstance(value, bool):
            return datetime.now(timezone.utc) + timedelta(seconds=value)
    except (ValueError, OverflowError) as error:
        raise WrongRow(f"{name} cannot be {value!r}: {error}") from error
    raise WrongRow(f"{name} cannot be {value!r}: a time is ISO 8601 text or seconds from now")
