"""The platform database: one engine, and the rows that say what should be true."""

import sqlite3
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import pandas as pd
import sqlalchemy as sa
from sqlalchemy.exc import ArgumentError, SQLAlchemyError

from zlh_dagster.core.model import UNREADABLE
from zlh_dagster.resources import rows
from zlh_dagster.schema.tables import container_instance, own_metadata

PAYLOAD_COLUMNS = (
    "vmid",
    "ctype",
    "hostname",
    "ip",
    "allocatedPorts",
    "payload",
    "lifecycle",
    "billingStatus",
    "maintenanceReason",
    "lastBackupAt",
    "backupEveryHours",
    "createdAt",
    UNREADABLE,
)
_BUSY_SECONDS = 5
_NOT_THERE = (
    "no such table",
    "no such column",
    "does not exist",
    "doesn't exist",
    "unknown column",
)
"""How SQLite, PostgreSQL and MariaDB name a table or column that is not there."""


class DatabaseError(Exception):
    """The platform database did not do what was asked; the message carries no URL and no data."""


def connect(url: str, *, create: bool = False) -> sa.Engine:
    """An engine for SQLite, PostgreSQL or MariaDB with bounded waits.

    Args:
        url: As SQLAlchemy takes it.
        create: Whether a SQLite file that is not there is made. Who only looks makes none.

    Raises:
        DatabaseError: If the URL is not one that SQLAlchemy understands, or the directory of a
            SQLite file cannot be made.
    """
    try:
        parsed = sa.make_url(url)
    except ArgumentError:
        raise DatabaseError("ZLH_DATABASE_URL is not a database URL") from None
    backend = parsed.get_backend_name()
    options: dict[str, Any] = {"pool_pre_ping": True}
    if backend == "sqlite":
        if create and parsed.database and parsed.database != ":memory:":
            _make_directory(Path(parsed.database).parent)
        options["connect_args"] = {"timeout": _BUSY_SECONDS}
    elif backend == "postgresql":
        options["connect_args"] = {
            "connect_timeout": _BUSY_SECONDS,
            "options": "-c statement_timeout=15000 -c lock_timeout=5000 -c timezone=UTC",
        }
    elif backend in ("mysql", "mariadb"):
        options["connect_args"] = {
            "connect_timeout": _BUSY_SECONDS,
            "read_timeout": 15,
            "write_timeout": 15,
        }
    try:
        engine = sa.create_engine(parsed, **options)
    except (ArgumentError, ImportError, SQLAlchemyError) as error:
        raise DatabaseError(
            f"ZLH_DATABASE_URL: {backend} is not supported here ({type(error).__name__})"
        ) from None
    if backend == "sqlite" and not create:
        sa.event.listen(engine, "do_connect", _require_file)
    return engine


def _require_file(_dialect: Any, _record: Any, arguments: Any, _options: Any) -> None:
    """SQLite makes a file that is not there, and an empty one would look like a platform's."""
    path = arguments[0] if arguments else ":memory:"
    if not path.startswith((":memory:", "file:")) and not Path(path).exists():
        raise sqlite3.OperationalError(
            f"no file at {path}; ZLH_DATABASE_URL must name the platform's database"
        )


def _make_directory(directory: Path) -> None:
    try:
        directory.mkdir(mode=0o700, parents=True, exist_ok=True)
    except OSError as error:
        raise DatabaseError(
            f"{directory} cannot be made for the database: {error.strerror}"
        ) from error


def read_payloads(engine: sa.Engine, vmids: Iterable[int] | None = None) -> pd.DataFrame:
    """What should be true: one row for each container, in VMID order.

    JSON columns come as text; whoever uses a row parses it, so that one broken row costs only
    itself. Times come as ISO text in UTC. A cell that cannot be read is null, and ``unreadable``
    says so; such a row is there all the same, even one whose VMID is null.

    Args:
        engine: The platform database.
        vmids: Only these, or all.

    Returns:
        Frame with :data:`PAYLOAD_COLUMNS`.

    Raises:
        DatabaseError: If the database cannot be read.
    """
    table = container_instance
    columns = [table.c[name] for name in PAYLOAD_COLUMNS if name != UNREADABLE]
    query = rows.select(columns).order_by(table.c.vmid)
    if vmids is not None:
        query = query.where(table.c.vmid.in_(list(vmids)))
    try:
        found = rows.fetch(engine, query, columns)
    except SQLAlchemyError as error:
        raise DatabaseError(explain(error)) from None
    # Cells as they were read: guessing types would make a null beside numbers a NaN, which is
    # equal to nothing, and the row of one server would differ from the same row among others.
    return pd.DataFrame(found, columns=list(PAYLOAD_COLUMNS), dtype=object)


def explain(error: SQLAlchemyError) -> str:
    """What went wrong, without the statement's parameters or the connection's URL."""
    cause = getattr(error, "orig", None)
    first = str(cause or type(error).__name__).strip().splitlines()[0][:200]
    text = f"platform database: {type(cause or error).__name__}: {first}"
    ours = any(table.name in first for table in own_metadata.sorted_tables)
    if ours and any(words in first.lower() for words in _NOT_THERE):
        text += "; `zlh db upgrade` creates or migrates that table"
    return text
