"""Dagster's SQLite storage with connections that stay open.

Dagster builds a new engine and opens a new file for every single statement: each event compiles
its SQL again, and each close writes the file's log back to disk. That was most of a tick's
processor time. Here engines are kept, and so are the connections to the three files that all
processes share and to the file of the run that this process writes to, until that run is over.

Nothing else differs: the files are those of Dagster's own class, and either can read the other's.
"""

import os
import sqlite3
import threading
from collections.abc import Iterator
from contextlib import closing, contextmanager, suppress
from functools import cache, cached_property
from pathlib import Path
from tempfile import TemporaryDirectory

import sqlalchemy as sa
from dagster._core.events import DagsterEventType
from dagster._core.events.log import EventLogEntry
from dagster._core.storage.event_log.sqlite.sqlite_event_log import (
    INDEX_SHARD_NAME,
    SqliteEventLogStorage,
)
from dagster._core.storage.runs.sqlite.sqlite_run_storage import SqliteRunStorage
from dagster._core.storage.schedules.sqlite.sqlite_schedule_storage import SqliteScheduleStorage
from dagster._core.storage.sqlite_storage import DagsterSqliteStorage, SqliteStorageConfig
from dagster._serdes import ConfigurableClassData
from sqlalchemy.pool import ConnectionPoolEntry, NullPool, Pool, QueuePool
from typing_extensions import Self

from zlh_dagster.jobs.run_files import UNFINISHED

BUSY_SECONDS = 30.0
"""How long a statement waits for another process that writes."""

_SHARDS_KEPT = 8
_ENDS = {
    DagsterEventType.RUN_SUCCESS,
    DagsterEventType.RUN_FAILURE,
    DagsterEventType.RUN_CANCELED,
}
_PAGE_BYTES = 1024
_REVISION = sa.text("SELECT version_num FROM alembic_version")


class PooledEventLog(SqliteEventLogStorage):
    """The event log: one file for each run, and the index that all share."""

    _written: str | None = None
    """The run whose file this process has open."""

    def __init__(self, base_dir: str, inst_data: ConfigurableClassData | None = None) -> None:
        super().__init__(base_dir, inst_data)
        # The parent's cannot be taken twice by one thread, which storing an event does here.
        self._db_lock = threading.RLock()  # type: ignore[assignment]

    @cached_property
    def _engines(self) -> dict[str, sa.Engine]:
        return {}

    @cached_property
    def _tables(self) -> set[str]:
        return set()

    def store_event(self, event: EventLogEntry) -> None:
        """As the parent; the file of the run stays open for the next event."""
        with self._db_lock:
            if event.run_id != self._written:
                self._close_run()
                self._written = event.run_id
                self._engines.pop(event.run_id, None)
            super().store_event(event)
            path = self.path_for_shard(event.run_id)
            try:
                # The web UI watches the file; what is written goes into SQLite's log beside it.
                os.utime(path)
            except FileNotFoundError:
                # Somebody has deleted the run. What still comes of it goes into a new file.
                self._close_run()
                self._initialized_dbs.discard(event.run_id)
            if event.is_dagster_event and event.dagster_event_type in _ENDS:
                self._close_run()

    def _close_run(self) -> None:
        engine = self._engines.pop(self._written, None) if self._written is not None else None
        if engine is not None:
            engine.dispose()
        self._written = None

    @contextmanager
    def _connect(self, shard: str) -> Iterator[sa.Connection]:
        with self._db_lock:
            engine = self._engine(shard)
            if shard not in self._initialized_dbs:
                if shard == INDEX_SHARD_NAME or not _is_made(self.path_for_shard(shard), engine):
                    self._initdb(engine)
                self._initialized_dbs.add(shard)
            with engine.connect() as connection, connection.begin():
                yield connection

    def _engine(self, shard: str) -> sa.Engine:
        engine = self._engines.pop(shard, None)
        if engine is None:
            pool = QueuePool if shard in (INDEX_SHARD_NAME, self._written) else NullPool
            engine = _open(self.conn_string_for_shard(shard), pool)
        self._engines[shard] = engine  # the newest is the last
        others = [name for name in self._engines if name not in (INDEX_SHARD_NAME, self._written)]
        for name in others[:-_SHARDS_KEPT]:
            self._engines.pop(name).dispose()
        return engine

    def has_table(self, table_name: str) -> bool:
        """Asked some twenty times for each run; tables come and never go."""
        if table_name not in self._tables:
            if not super().has_table(table_name):
                return False
            self._tables.add(table_name)
        return True

    def dispose(self) -> None:
        super().dispose()
        for engine in self._engines.values():
            engine.dispose()


class _Pooled:
    """One file, over connections that stay open; comes before Dagster's own class."""

    _conn_string: str

    @cached_property
    def _engine(self) -> sa.Engine:
        return _open(self._conn_string, QueuePool)

    @contextmanager
    def connect(self) -> Iterator[sa.Connection]:
        """A connection in a transaction."""
        with self._engine.connect() as connection, connection.begin():
            yield connection

    def dispose(self) -> None:
        """Closes what stayed open."""
        super().dispose()  # type: ignore[misc]
        self._engine.dispose()


class PooledRuns(_Pooled, SqliteRunStorage):
    """The runs."""


class PooledSchedules(_Pooled, SqliteScheduleStorage):
    """The ticks of schedules and sensors."""


class PooledSqliteStorage(DagsterSqliteStorage):
    """All three, below one directory."""

    def __init__(self, base_dir: str, inst_data: ConfigurableClassData | None = None) -> None:
        super().__init__(base_dir, inst_data)
        # The parent has opened the same files and keeps nothing open.
        self._run_storage = PooledRuns(self._run_storage._conn_string)
        self._event_log_storage = PooledEventLog(self._event_log_storage._base_dir)
        self._schedule_storage = PooledSchedules(self._schedule_storage._conn_string)

    @classmethod
    def from_config_value(  # type: ignore[override]
        cls, inst_data: ConfigurableClassData, config_value: SqliteStorageConfig
    ) -> Self:
        return cls.from_local(inst_data=inst_data, **config_value)


@cache
def empty_shard() -> bytes:
    """A run's file as Dagster makes it.

    For each file Dagster reads all its migrations, to learn which is the last: a tenth of what a
    tick costs. Here each process does that once, and a worker before it forks.
    """
    with TemporaryDirectory(prefix="zlh-") as directory:
        storage = SqliteEventLogStorage(directory)
        with storage.run_connection("empty"):
            pass
        storage.dispose()
        path = Path(storage.path_for_shard("empty"))
        _with_small_pages(path)
        return path.read_bytes()


def _with_small_pages(path: Path) -> None:
    """Each of its tables and indexes takes a page, though one run fills two of them."""
    with closing(sqlite3.connect(path, isolation_level=None)) as connection:
        for statement in (
            "PRAGMA journal_mode=DELETE",
            f"PRAGMA page_size={_PAGE_BYTES}",
            "VACUUM",
            "PRAGMA journal_mode=WAL",
        ):
            connection.execute(statement)


def _is_made(path: str, engine: sa.Engine) -> bool:
    """Whether a run's file is complete: one that is not there is made, whole or not at all."""
    if not os.path.exists(path):
        made = f"{path}{UNFINISHED}"
        # Another process may be at it, or the file system has no links: Dagster makes it then.
        with suppress(OSError), open(made, "xb") as file:
            file.write(empty_shard())
            file.flush()
            os.fsync(file.fileno())
            with suppress(OSError):
                os.link(made, path)
            os.unlink(made)
    with engine.connect() as connection, suppress(sa.exc.OperationalError):
        return bool(connection.execute(_REVISION).scalars().all())
    return False


def _open(url: str, pool: type[Pool]) -> sa.Engine:
    engine = sa.create_engine(url, poolclass=pool, connect_args={"timeout": BUSY_SECONDS})
    sa.event.listen(engine, "connect", _in_step_with_the_log)
    return engine


def _in_step_with_the_log(connection: sa.PoolProxiedConnection, entry: ConnectionPoolEntry) -> None:
    """Waits for the disk at checkpoints only: safe but for the last moments of a power cut.

    What must survive those, the ledger of repairs, is in the platform database.
    """
    connection.execute("PRAGMA synchronous=NORMAL")
