"""The operator's pauses: in Redis, where every look finds them, and kept in the database.

A Redis that lost its data, or came back with older data, would otherwise forget the kill switch,
and the next tick would repair; while it does not answer, the database alone takes a pause. So each
tick and each repair run gives back what the database knows.
"""

import math
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from datetime import datetime, timezone
from typing import Any

import redis
import sqlalchemy as sa
from sqlalchemy.exc import SQLAlchemyError

from zlh_dagster.core.holds import Pause
from zlh_dagster.resources.database import DatabaseError, explain
from zlh_dagster.resources.table import RedisTable
from zlh_dagster.schema.tables import repair_pause

KEY = "zlh:pauses"
_SAME_SECONDS = 0.001
"""Two ends that are this near are one: the database keeps microseconds."""


class Pauses:
    """Pauses by scope; what needs Redis raises ``RedisUnavailable`` when it does not answer.

    Args:
        client: Redis.
        engine: The platform database.
    """

    def __init__(self, client: "redis.Redis", engine: sa.Engine) -> None:
        self._table = RedisTable(client, KEY, "pauses")
        self._engine = engine

    def all(self) -> dict[str, Pause]:
        """Every pause that Redis knows, over or not.

        Reading removes nothing: it could be a pause that the operator has begun this moment.
        """
        known = self._table.all()
        return {scope: Pause.from_json(scope, value) for scope, value in known.items()}

    def kept(self) -> list[Pause]:
        """Every pause that the database keeps, over or not.

        Raises:
            DatabaseError: If the database cannot be read.
        """
        with _explained("pauses: "), self._engine.connect() as connection:
            rows = connection.execute(sa.select(repair_pause)).mappings()
            return [_pause(row) for row in rows]

    def begin(self, pause: Pause) -> None:
        """Begins a pause, or replaces the one of that scope; in Redis first, where it holds.

        Raises:
            DatabaseError: If the database could not keep it; it holds all the same.
        """
        self._table.put(pause.scope, pause.to_json())
        with _explained("paused, but only in Redis: "):
            self._write(pause)

    def keep(self, pause: Pause) -> None:
        """Begins a pause while Redis does not answer: it holds from the moment it does.

        Raises:
            DatabaseError: If the database could not keep it.
        """
        with _explained("not paused: "):
            self._write(pause)

    def end(self, scope: str) -> list[Pause]:
        """Ends a pause; in the database first, so that it does not come back.

        Returns:
            What the database kept of it, over or not: one pause, or none.

        Raises:
            DatabaseError: If the database could not forget it; it goes on then.
        """
        with _explained("still paused: "), self._engine.begin() as connection:
            rows = connection.execute(sa.select(repair_pause).where(_of(scope))).mappings().all()
            connection.execute(sa.delete(repair_pause).where(_of(scope)))
        self._table.remove(scope)
        return [_pause(row) for row in rows]

    def forget(self, scope: str) -> bool:
        """Ends a pause in the database while Redis does not answer; returns whether it kept one.

        One that Redis knows too holds again when it answers.

        Raises:
            DatabaseError: If the database could not forget it.
        """
        with _explained("still paused: "), self._engine.begin() as connection:
            found = connection.execute(sa.delete(repair_pause).where(_of(scope)))
            return bool(found.rowcount)

    def restore(self) -> list[str]:
        """Gives Redis the pauses back that it does not know, and returns their scopes.

        Of two of one scope the one that lasts longer holds: no clock has to tell which is newer.

        Raises:
            DatabaseError: If the database cannot be read.
        """
        held = self.all()
        restored = [p.scope for p in self.kept() if self._put(p, held.get(p.scope))]
        if not restored:
            return []
        # One that the operator ended between the look and the write must not come back.
        known = {pause.scope for pause in self.kept()}
        ended = [scope for scope in restored if scope not in known]
        self._table.remove(*ended)
        return [scope for scope in restored if scope in known]

    def _put(self, kept: Pause, held: Pause | None) -> bool:
        """Writes a pause unless Redis has one that lasts as long; returns whether it was."""
        if held is None:
            return self._table.put_new(kept.scope, kept.to_json())
        if end_of(kept) <= end_of(held) + _SAME_SECONDS:
            return False
        self._table.put(kept.scope, kept.to_json())
        return True

    def _write(self, pause: Pause) -> None:
        with self._engine.begin() as connection:
            connection.execute(sa.delete(repair_pause).where(_of(pause.scope)))
            connection.execute(sa.insert(repair_pause).values(_row(pause)))


def end_of(pause: Pause) -> float:
    """When it ends by itself."""
    return math.inf if pause.until is None else pause.until


@contextmanager
def _explained(what: str) -> Iterator[None]:
    """Turns the driver's errors into ours, without secrets."""
    try:
        yield
    except SQLAlchemyError as error:
        raise DatabaseError(f"{what}{explain(error)}") from None


def _of(scope: str) -> sa.ColumnElement[bool]:
    return repair_pause.c.scope == scope


def _row(pause: Pause) -> dict[str, Any]:
    return {
        "scope": pause.scope,
        "reason": pause.reason,
        "since": _moment(pause.since),
        "until": None if pause.until is None else _moment(pause.until),
    }


def _pause(row: Mapping[Any, Any]) -> Pause:
    until = row["until"]
    return Pause(
        row["scope"],
        row["reason"],
        row["since"].timestamp(),
        None if until is None else until.timestamp(),
    )


def _moment(seconds: float) -> datetime:
    return datetime.fromtimestamp(seconds, timezone.utc)
