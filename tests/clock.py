"""Lets time pass: what the controller keeps is moved into the past."""

import json
from datetime import datetime, timedelta, timezone
from typing import Any

import sqlalchemy as sa

from zlh_dagster.resources import gate, incidents, pauses
from zlh_dagster.resources.services import Services
from zlh_dagster.schema.tables import repair_event, repair_pause

_MOMENTS = (
    "at",
    "since",
    "until",
    "opened_at",
    "absent_since",
    "tried_at",
    "untold_at",
    "failed_at",
)


def ago(**span: float) -> datetime:
    """A time in the past, counted from now."""
    return datetime.now(timezone.utc) - timedelta(**span)


def at(columns: dict[str, Any]) -> dict[str, Any]:
    """Columns in which each span stands for a time that long ago, counted from now.

    A time written into a table of cases would be as old as the whole test run.
    """
    return {
        name: ago(seconds=value.total_seconds()) if isinstance(value, timedelta) else value
        for name, value in columns.items()
    }


def pass_time(services: Services, **span: float) -> None:
    """Moves breakers, pauses, approvals, incidents and the ledger back by a span."""
    seconds = timedelta(**span).total_seconds()
    redis: Any = services.redis
    keys = (
        gate.BREAKERS,
        pauses.KEY,
        gate.APPROVALS,
        gate.RESETS,
        gate.LIMITS,
        incidents.KEY,
    )
    for key in keys:
        for name, text in redis.hgetall(key).items():
            value = json.loads(text)
            moved = {
                field: None if value[field] is None else value[field] - seconds
                for field in _MOMENTS
                if field in value
            }
            redis.hset(key, name, json.dumps({**value, **moved}))
    _move(services.engine, repair_event, "id", ("createdAt",), timedelta(**span))
    _move(services.engine, repair_pause, "scope", ("since", "until"), timedelta(**span))


def _move(
    engine: sa.Engine, table: sa.Table, key: str, names: tuple[str, ...], span: timedelta
) -> None:
    with engine.begin() as connection:
        for row in connection.execute(sa.select(table)).mappings().all():
            times = {name: row[name] - span for name in names if row[name] is not None}
            connection.execute(sa.update(table).where(table.c[key] == row[key]).values(times))


def forget_everything(services: Services) -> None:
    """What a Redis that lost all of its data leaves behind."""
    redis: Any = services.redis
    redis.flushall()
