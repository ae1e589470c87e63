"""The repair ledger: one row for each repair, there before its first write and closed after it.

Every statement is conditional on the fencing token: a controller that lost its lease can neither
claim a new row nor close one that a later holder has already closed as interrupted.
"""

import uuid
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta, timezone
from typing import Any

import sqlalchemy as sa
from sqlalchemy.exc import SQLAlchemyError

from zlh_dagster.core.repair import Status
from zlh_dagster.resources.database import DatabaseError, explain
from zlh_dagster.schema.tables import repair_event

_COUNTS_AGAINST_BUDGET = (
    Status.RUNNING.value,
    Status.SUCCEEDED.value,
    Status.FAILED.value,
    Status.INTERRUPTED.value,
)


class Fenced(Exception):
    """A higher fencing token is in the ledger: somebody else has taken over."""


@dataclass(frozen=True, slots=True)
class Entry:
    """What a new row says."""

    action: str
    level: int
    reason: str
    requested_by: str
    run_id: str
    fencing_token: int
    vmid: int | None = None
    surface: str | None = None
    before: Any = None
    after: Any = None
    error: Any = None


@dataclass(frozen=True, slots=True)
class Closing:
    """How a running row ends."""

    event_id: str
    status: Status
    after: Any = None
    error: Any = None


class Ledger:
    """``RepairEvent`` in the platform database."""

    def __init__(self, engine: sa.Engine) -> None:
        self._engine = engine

    def open(self, entry: Entry) -> str:
        """Writes a row with status ``running`` and returns its identifier.

        Raises:
            Fenced: If the ledger knows a higher fencing token.
            DatabaseError: If the row could not be written.
        """
        return self.open_all([entry])[0]

    def open_all(self, entries: Sequence[Entry]) -> list[str]:
        """Writes a row with status ``running`` for each entry: all of them or none.

        Raises:
            Fenced: If the ledger knows a higher fencing token.
            DatabaseError: If the rows could not be written.
        """
        return self._insert(entries, Status.RUNNING, finished=False)

    def record(self, entry: Entry, status: Status) -> str:
        """Writes a row that is complete at once: ``refused`` or ``dry_run``.

        Raises:
            Fenced: If the ledger knows a higher fencing token.
            DatabaseError: If the row could not be written.
        """
        return self._insert([entry], status, finished=True)[0]

    def close(self, event_id: str, status: Status, *, after: Any = None, error: Any = None) -> bool:
        """Closes a running row.

        Returns:
            Whether it was still running; a later holder may have closed it as interrupted.

        Raises:
            DatabaseError: If the row could not be written.
        """
        return event_id in self.close_all([Closing(event_id, status, after, error)])

    def close_all(self, closings: Sequence[Closing]) -> set[str]:
        """Closes running rows: all that are still running, or none.

        Returns:
            The identifiers of those that were; a later holder may have closed others.

        Raises:
            DatabaseError: If the rows could not be written.
        """
        changed = self._execute([_closing(closing) for closing in closings])
        pairs = zip(closings, changed, strict=True)
        return {closing.event_id for closing, count in pairs if count == 1}

    def left_open(self, run_id: str) -> list[str]:
        """Identifiers of a run's rows that are still running.

        Raises:
            DatabaseError: If they cannot be read.
        """
        table = repair_event
        left_open = (table.c.status == Status.RUNNING.value) & (table.c.runId == run_id)
        return [str(row["id"]) for row in self._rows(sa.select(table.c.id).where(left_open))]

    def interrupt_below(self, fencing_token: int) -> list[str]:
        """Closes rows that a crashed run left open, and returns their identifiers.

        Raises:
            DatabaseError: If the rows could not be written.
        """
        table = repair_event
        left_open = (table.c.status == Status.RUNNING.value) & (
            table.c.fencingToken < fencing_token
        )
        found = [row["id"] for row in self._rows(sa.select(table.c.id).where(left_open))]
        if not found:
            return []
        error = {"code": "interrupted", "message": "the run ended before it could close this row"}
        change = sa.update(table).where(table.c.id.in_(found), left_open)
        values = {"status": Status.INTERRUPTED.value, "error": error, "finishedAt": _now()}
        self._execute([change.values(**values)])
        return found

    def max_fencing_token(self) -> int:
        """Highest fencing token in the ledger, 0 when it is empty.

        Raises:
            DatabaseError: If it cannot be read, the table being absent included.
        """
        query = sa.select(sa.func.max(repair_event.c.fencingToken).label("top"))
        return int(self._rows(query)[0]["top"] or 0)

    def repairs_since(
        self, vmids: Iterable[int], age: timedelta, *, resets: Mapping[int, float] | None = None
    ) -> dict[int, int]:
        """How many repairs wrote, or may have written, to each server within ``age``.

        Args:
            vmids: The servers.
            age: How far back.
            resets: When the operator reset a server's count, seconds since the epoch.

        Raises:
            DatabaseError: If it cannot be read.
        """
        table = repair_event
        rows = self._rows(
            sa.select(table.c.vmid, table.c.createdAt).where(
                table.c.vmid.in_(list(vmids)),
                table.c.status.in_(_COUNTS_AGAINST_BUDGET),
                table.c.createdAt >= _now() - age,
            )
        )
        since = resets or {}
        return dict(
            Counter(
                int(row["vmid"])
                for row in rows
                if row["createdAt"].timestamp() > since.get(int(row["vmid"]), 0.0)
            )
        )

    def find(self, prefix: str) -> list[str]:
        """Identifiers that begin with a prefix, two at the most.

        Raises:
            DatabaseError: If they cannot be read.
        """
        query = sa.select(repair_event.c.id).where(
            repair_event.c.id.startswith(prefix, autoescape=True)
        )
        return [str(row["id"]) for row in self._rows(query.limit(2))]

    def event(self, event_id: str) -> dict[str, Any] | None:
        """One row by its identifier, or ``None``.

        Raises:
            DatabaseError: If it cannot be read.
        """
        rows = self._rows(sa.select(repair_event).where(repair_event.c.id == event_id))
        return rows[0] if rows else None

    def between(self, start: datetime, end: datetime) -> list[dict[str, Any]]:
        """Action, status and times of the rows of a span of time.

        Raises:
            DatabaseError: If they cannot be read.
        """
        column = repair_event.c
        return self._rows(
            sa.select(
                column.vmid, column.action, column.status, column.createdAt, column.finishedAt
            ).where(column.createdAt >= start, column.createdAt < end)
        )

    def events(self, *, vmid: int | None = None, limit: int = 50) -> list[dict[str, Any]]:
        """The newest rows first, as dictionaries with the table's column names.

        Raises:
            DatabaseError: If they cannot be read.
        """
        query = sa.select(repair_event).order_by(repair_event.c.createdAt.desc()).limit(limit)
        if vmid is not None:
            query = query.where(repair_event.c.vmid == vmid)
        return self._rows(query)

    def _insert(self, entries: Sequence[Entry], status: Status, *, finished: bool) -> list[str]:
        rows = [_row(entry, status, finished=finished) for entry in entries]
        # The rows are claimed in one transaction, and none of them is kept unless all are.
        claimed = self._execute([_claim(row) for row in rows], every=True)
        if claimed != [1] * len(rows):
            raise Fenced(
                f"fencing token {entries[0].fencing_token} is not the newest: another controller"
                " has taken over"
            )
        return [str(row["id"]) for row in rows]

    def _execute(
        self, statements: Sequence[sa.Update | sa.Insert], *, every: bool = False
    ) -> list[int]:
        """Runs statements in one transaction and returns how many rows each matched.

        Args:
            statements: Each on its own row.
            every: Take all of it back when one of them matches no row.
        """
        matched: list[int] = []
        try:
            with self._engine.connect() as connection, connection.begin() as transaction:
                for statement in statements:
                    matched.append(int(connection.execute(statement).rowcount))
                    if every and matched[-1] != 1:
                        transaction.rollback()
                        break
        except SQLAlchemyError as error:
            raise DatabaseError(explain(error)) from None
        return matched

    def _rows(self, query: "sa.Select[Any]") -> list[dict[str, Any]]:
        try:
            with self._engine.connect() as connection:
                return [dict(row) for row in connection.execute(query).mappings()]
        except SQLAlchemyError as error:
            raise DatabaseError(explain(error)) from None


def _row(entry: Entry, status: Status, *, finished: bool) -> dict[str, Any]:
    now = _now()
    return {
        "id": uuid.uuid4().hex,
        "vmid": entry.vmid,
        "surface": entry.surface,
        "action": entry.action,
        "level": entry.level,
        "status": status.value,
        "reason": entry.reason,
        "requestedBy": entry.requested_by,
        "runId": entry.run_id,
        "fencingToken": entry.fencing_token,
        "before": entry.before,
        "after": entry.after,
        "error": entry.error,
        "createdAt": now,
        "finishedAt": now if finished else None,
    }


def _claim(row: Mapping[str, Any]) -> sa.Insert:
    """Inserts a row in one statement, only while no higher token is in the ledger."""
    columns = repair_event.c
    higher = sa.exists().where(repair_event.alias("later").c.fencingToken > row["fencingToken"])
    values = sa.select(
        *(sa.bindparam(f"v_{name}", value, columns[name].type) for name, value in row.items())
    ).where(~higher)
    return sa.insert(repair_event).from_select(list(row), values)


def _closing(closing: Closing) -> sa.Update:
    columns = repair_event.c
    return (
        sa.update(repair_event)
        .where(columns.id == closing.event_id, columns.status == Status.RUNNING.value)
        .values(
            status=closing.status.value,
            after=closing.after,
            error=closing.error,
            finishedAt=_now(),
        )
    )


def _now() -> datetime:
    return datetime.now(timezone.utc)
