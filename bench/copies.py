"""Copies of what one tick left in Dagster's storage and on disk, byte for byte but its identifier.

A real tick takes half a second of processor time, thousands of them half an hour; what they leave
differs in identifiers and times alone.
"""

import shutil
import uuid
from collections.abc import Callable
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any

import dagster as dg
import sqlalchemy as sa
from dagster._core.storage.event_log.schema import SqlEventLogStorageMetadata
from dagster._core.storage.runs.schema import RunStorageSqlMetadata
from dagster._core.storage.schedules.schema import JobTickTable

_LOGGED = "event_logs"
_EVENTS = (_LOGGED, "asset_event_tags", "asset_check_executions")
_NAMES_AN_EVENT = ("event_id", "evaluation_event_storage_id", "materialization_event_storage_id")
_APART = 0.001
"""Seconds between the copies of one run: retention tells runs apart by when they ended."""

_Connect = Callable[[], AbstractContextManager[sa.Connection]]


class Copies:
    """What was written since :meth:`mark` can be written again.

    Args:
        instance: Dagster's storage.
        home: Its directory, below which are the files of runs and the snapshots.
    """

    def __init__(self, instance: dg.DagsterInstance, home: Path) -> None:
        self._home = home
        runs: Any = instance.run_storage
        events: Any = instance.event_log_storage
        schedules: Any = instance.schedule_storage
        self._places: list[tuple[_Connect, sa.Table]] = [
            *((runs.connect, RunStorageSqlMetadata.tables[name]) for name in ("runs", "run_tags")),
            *((events.index_connection, SqlEventLogStorageMetadata.tables[n]) for n in _EVENTS),
            (schedules.connect, JobTickTable),
        ]
        if (home / "history" / "runs" / "index.db").exists():
            # SQLite has a second copy of the events that no run reported.
            of_no_run = SqlEventLogStorageMetadata.tables["event_logs"]
            self._places.append((lambda: events.run_connection(""), of_no_run))
        self._marks: list[int] = []

    def mark(self) -> None:
        """What is there now is not copied."""
        self._marks = [_newest(connect, table) for connect, table in self._places]

    def repeat(self, run_id: str, times: int) -> None:
        """Writes everything since the mark again, each time as of another run."""
        if not times:
            return
        others = [str(uuid.uuid4()) for _ in range(times)]
        logged = next(n for n, (_, table) in enumerate(self._places) if table.name == _LOGGED)
        last_event = self._marks[logged]
        events = _newest(*self._places[logged]) - last_event
        for (connect, table), mark in zip(self._places, self._marks, strict=True):
            with connect() as connection:
                query = sa.select(table).where(table.c.id > mark).order_by(table.c.id)
                rows = [dict(row) for row in connection.execute(query).mappings()]
                if not rows:
                    continue
                span = rows[-1]["id"] - mark
                copies = [
                    _copy(
                        row,
                        run_id,
                        other,
                        shift=span * n,
                        shift_of_events=(last_event, events * n),
                        later=_APART * n,
                    )
                    for n, other in enumerate(others, start=1)
                    for row in rows
                ]
                connection.execute(sa.insert(table), copies)
                if connection.dialect.name == "postgresql":
                    newest = sa.func.max(table.c.id)
                    sequence = sa.func.pg_get_serial_sequence(table.name, "id")
                    connection.execute(sa.select(sa.func.setval(sequence, newest)))
        for path in [p for p in self._home.rglob(f"*{run_id}*") if run_id not in p.parent.name]:
            for other in others:
                copy = path.with_name(path.name.replace(run_id, other))
                (shutil.copytree if path.is_dir() else shutil.copyfile)(path, copy)


def _newest(connect: _Connect, table: sa.Table) -> int:
    with connect() as connection:
        return int(connection.scalar(sa.select(sa.func.max(table.c.id))) or 0)


def _copy(
    row: dict[str, Any],
    run_id: str,
    other: str,
    *,
    shift: int,
    shift_of_events: tuple[int, int],
    later: float,
) -> dict[str, Any]:
    """A row as of another run; what it says of events newer than the mark is said of the copies."""
    mark, further = shift_of_events
    copy: dict[str, Any] = {
        name: value.replace(run_id, other) if isinstance(value, str) else value
        for name, value in row.items()
    }
    copy["id"] += shift
    for name in _NAMES_AN_EVENT:
        if (copy.get(name) or 0) > mark:
            copy[name] += further
    for name in ("start_time", "end_time"):
        if copy.get(name) is not None:
            copy[name] += later
    return copy
