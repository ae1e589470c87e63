"""What the retention job reads of Dagster's own storage, and deletes from it.

Dagster deletes one run and its events when it is asked to, with three connections to PostgreSQL for
each. Here many go at once, from the tables that it defines itself, with what it leaves behind:
results of asset checks, events that no run reported, and, with SQLite, the file that each run has.
All statements work on SQLite and PostgreSQL alike.
"""

import json
import time
from collections.abc import Callable, Collection, Iterable
from contextlib import AbstractContextManager
from datetime import datetime, timezone
from functools import partial
from pathlib import Path

import dagster as dg
import sqlalchemy as sa
from dagster._core.events import DagsterEventType
from dagster._core.storage.event_log.schema import (
    AssetCheckExecutionsTable,
    AssetEventTagsTable,
    SqlEventLogStorageTable,
)
from dagster._core.storage.event_log.sql_event_log import SqlEventLogStorage
from dagster._core.storage.runs.schema import RunsTable, RunTagsTable
from dagster._core.storage.runs.sql_run_storage import SqlRunStorage
from dagster._core.storage.tags import REPOSITORY_LABEL_TAG

from zlh_dagster.core.retention import EVENTFUL_TAG, NEW_DRIFT, TICK_RUN_TAG, Ended
from zlh_dagster.jobs.run_files import RunFiles

_SUCCESS = dg.DagsterRunStatus.SUCCESS.value
_FINISHED = (_SUCCESS, dg.DagsterRunStatus.FAILURE.value, dg.DagsterRunStatus.CANCELED.value)
_RUNLESS = ""
_ROWS = 500
"""Rows deleted in one transaction."""

Connect = Callable[[], AbstractContextManager[sa.Connection]]


class RunStore:
    """Runs and events of one instance.

    Args:
        instance: Over any SQL storage.
    """

    def __init__(self, instance: dg.DagsterInstance) -> None:
        events, runs = instance.event_log_storage, instance.run_storage
        if not isinstance(events, SqlEventLogStorage) or not isinstance(runs, SqlRunStorage):
            raise dg.Failure(
                f"{type(events).__name__} is no SQL storage: delete old runs in another way, and"
                " stop the schedule of this job",
                allow_retries=False,
            )
        self._instance = instance
        self._events: SqlEventLogStorage = events
        self._runs: SqlRunStorage = runs
        self._files = RunFiles(events)

    def ended(
        self,
        *,
        location: str | None,
        jobs: Iterable[str],
        routine: Collection[str],
        before: datetime,
        expired: datetime,
    ) -> Ended:
        """Runs that had ended before a time.

        Args:
            location: Label of the code location whose runs these are: another one may have jobs of
                the same names. Runs that were made by no location count as this one's.
            jobs: All jobs of this project; runs of others are not looked at.
            routine: Those of them whose successful runs are uneventful, unless they are marked.
            before: That time.
            expired: The time before which all of them are to be deleted.
        """
        run, tag = RunsTable.c, RunTagsTable.c
        elsewhere = sa.select(tag.run_id).where(
            tag.key == REPOSITORY_LABEL_TAG, tag.value != (location or "")
        )
        query = sa.select(run.run_id, run.pipeline_name, run.status, _is_old(expired).label("old"))
        ours = (
            run.pipeline_name.in_(list(jobs)),
            run.run_id.not_in(elsewhere),
            run.status.in_(_FINISHED),
            _is_old(before),
        )
        with self._runs.connect() as connection:
            rows = connection.execute(query.where(*ours).order_by(run.id.desc())).all()
        marked = self._instance.get_run_ids(dg.RunsFilter(tags={EVENTFUL_TAG: NEW_DRIFT}))
        tags = dict(self._instance.get_run_tags([TICK_RUN_TAG]))
        return Ended(
            runs=[row.run_id for row in rows],
            routine={
                row.run_id
                for row in rows
                if row.pipeline_name in routine and row.status == _SUCCESS
            },
            eventful={*marked, *tags.get(TICK_RUN_TAG, ())},
            expired={row.run_id for row in rows if row.old},
        )

    def all_runs(self) -> set[str]:
        """Identifiers of all runs, of whatever job and status."""
        return set(self._instance.get_run_ids())

    def delete_runs(self, run_ids: Collection[str]) -> None:
        """Deletes runs: events first, so that no failure leaves events without their run.

        Raises:
            Exception: If that failed; some of it may be done then.
        """
        ids = list(run_ids)
        events, checks, tags = (
            SqlEventLogStorageTable.c,
            AssetCheckExecutionsTable.c,
            AssetEventTagsTable.c,
        )
        of_runs = sa.select(events.id).where(events.run_id.in_(ids))
        with self._events.index_connection() as connection:
            connection.execute(sa.delete(AssetEventTagsTable).where(tags.event_id.in_(of_runs)))
            connection.execute(sa.delete(AssetCheckExecutionsTable).where(checks.run_id.in_(ids)))
            connection.execute(sa.delete(SqlEventLogStorageTable).where(events.run_id.in_(ids)))
        self._files.delete_all(ids)
        with self._runs.connect() as connection:
            # With SQLite no rule of the database takes them along.
            connection.execute(sa.delete(RunTagsTable).where(RunTagsTable.c.run_id.in_(ids)))
            connection.execute(sa.delete(RunsTable).where(RunsTable.c.run_id.in_(ids)))

    def delete_runless(self, key: dg.AssetKey, *, before: datetime, deadline: float) -> int:
        """Deletes events of an asset that were reported without a run.

        The newest row of each table stays, for SQLite would give its number again, and those who
        remember how far they have read would miss what comes.

        Args:
            key: The asset.
            before: Events from before this time.
            deadline: When to stop, on the monotonic clock.

        Returns:
            How many rows were deleted.
        """
        moment = before.astimezone(timezone.utc).replace(tzinfo=None)
        events, checks = SqlEventLogStorageTable.c, AssetCheckExecutionsTable.c
        evaluation = events.dagster_event_type == DagsterEventType.ASSET_CHECK_EVALUATION.value
        of_asset = sa.or_(
            events.asset_key == key.to_string(),
            # A check's event has its asset in its text only.
            sa.and_(evaluation, events.event.contains(json.dumps(key.path))),
        )
        old_events = (events.run_id == _RUNLESS) & of_asset & (events.timestamp < moment)
        old_checks = (
            (checks.run_id == _RUNLESS)
            & (checks.asset_key == key.to_string())
            & (checks.evaluation_event_timestamp < moment)
        )
        index = self._events.index_connection
        deleted = _delete(index, AssetCheckExecutionsTable, old_checks, deadline)
        deleted += _delete(index, SqlEventLogStorageTable, old_events, deadline)
        if self._files.has_runless:
            second = partial(self._events.run_connection, _RUNLESS)
            deleted += _delete(second, SqlEventLogStorageTable, old_events, deadline)
        return deleted

    def delete_files_without_run(self) -> int:
        """Deletes the SQLite files of runs that are not there any more; returns of how many."""
        # Files before runs: whatever is listed here had its run by then.
        listed = self._files.runs()
        return self._files.delete_all(listed - self.all_runs())

    @property
    def shared_files(self) -> list[Path]:
        """SQLite files in which rows are deleted, none when the storage is another one."""
        return self._files.shared


def _is_old(moment: datetime) -> sa.ColumnElement[bool]:
    """Whether a run ended before a time, or was made before it when nobody knows when it ended.

    With PostgreSQL the time of making is in the server's zone, the end is not.
    """
    run = RunsTable.c
    made = run.create_timestamp < moment.astimezone(timezone.utc).replace(tzinfo=None)
    return sa.or_(run.end_time < moment.timestamp(), run.end_time.is_(None) & made)


def _delete(connect: Connect, table: sa.Table, old: sa.ColumnElement[bool], deadline: float) -> int:
    newest = sa.select(sa.func.max(table.c.id)).scalar_subquery()
    batch = sa.select(table.c.id).where(old, table.c.id < newest).order_by(table.c.id).limit(_ROWS)
    deleted = 0
    while time.monotonic() < deadline:
        with connect() as connection:
            ids = list(connection.scalars(batch))
            connection.execute(sa.delete(table).where(table.c.id.in_(ids)))
            if table is SqlEventLogStorageTable:
                tags = AssetEventTagsTable
                connection.execute(sa.delete(tags).where(tags.c.event_id.in_(ids)))
        deleted += len(ids)
        if len(ids) < _ROWS:
            break
    return deleted
