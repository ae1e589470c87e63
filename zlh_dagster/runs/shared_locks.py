"""Who is alive on any of several machines: locks in the PostgreSQL that they share.

An advisory lock belongs to a connection, and the server gives it back when that connection ends,
however its process ended: the same as a lock on a file, across machines. A pooler that hands
connections on after each statement (PgBouncer in transaction mode) breaks that.
"""

import contextlib
import logging
import os
import threading
import time
from collections.abc import Iterator
from hashlib import sha256

import sqlalchemy as sa
from sqlalchemy.exc import SQLAlchemyError
from sqlalchemy.pool import NullPool

from zlh_dagster.runs.locks import PATIENCE, WORKER, Held, machine

_CONNECT_SECONDS = 5
_NAME_LIMIT = 63
"""PostgreSQL cuts the name of an application there (NAMEDATALEN)."""

_LOOK_SECONDS = 5.0
_STILL_THERE = sa.text("SELECT 1")
_TRY = sa.text("SELECT pg_try_advisory_lock(:key)")
_TRY_SHARED = sa.text("SELECT pg_try_advisory_lock_shared(:key)")
_SIGN = sa.text("SELECT set_config('application_name', :name, false)")
_HOLDER = sa.text(
    "SELECT a.application_name FROM pg_locks l JOIN pg_stat_activity a USING (pid)"
    " WHERE l.locktype = 'advisory' AND l.granted AND l.objsubid = 1"
    " AND l.database = (SELECT oid FROM pg_database WHERE datname = current_database())"
    " AND l.classid = CAST(:high AS oid) AND l.objid = CAST(:low AS oid) LIMIT 1"
)
_PAUSE = 0.1
_log = logging.getLogger(__name__)


class SharedLocks:
    """The locks of one deployment; any number of workers hold that of the worker together.

    Args:
        url: SQLAlchemy URL of the PostgreSQL in which Dagster's storage is.
        deployment: Name of the deployment.
    """

    def __init__(self, url: str, deployment: str) -> None:
        self._deployment = deployment
        self._engine = sa.create_engine(
            url,
            poolclass=NullPool,
            isolation_level="AUTOCOMMIT",
            # A firewall that forgets quiet connections would end a run that is well.
            connect_args={
                "connect_timeout": _CONNECT_SECONDS,
                "keepalives": 1,
                "keepalives_idle": 20,
                "keepalives_interval": 5,
                "keepalives_count": 3,
            },
        )

    @contextlib.contextmanager
    def hold(self, name: str, *, patience: float = PATIENCE) -> Iterator[None]:
        """Holds a lock; the database knows the holder meanwhile.

        Args:
            name: Of the lock.
            patience: How long to wait for it, in seconds.

        Raises:
            Held: If somebody else holds it.
        """
        with self._engine.connect() as connection:
            self._take(connection, name, patience)
            yield

    @contextlib.contextmanager
    def keep(self, name: str) -> Iterator[None]:
        """Holds a lock also through a restart of the database, which gives it back.

        Args:
            name: Of the lock.

        Raises:
            Held: If somebody else holds it now; later that is waited for.
        """
        over = threading.Event()
        connection = self._engine.connect()
        try:
            self._take(connection, name, PATIENCE)
        except BaseException:
            connection.close()
            raise
        thread = threading.Thread(
            target=self._keep, args=(connection, name, over), name="keep", daemon=True
        )
        thread.start()
        try:
            yield
        finally:
            over.set()
            thread.join()

    def held(self, name: str) -> bool:
        """Whether somebody holds a lock now."""
        return self._holder(name) is not None

    def holder(self, name: str) -> int | None:
        """The process that holds a lock, if it does and is one of this machine."""
        signature = self._holder(name)
        pid = (signature or "").removeprefix("zlh ").partition(" ")[0]
        return int(pid) if pid.isdigit() and signature == _signature(int(pid)) else None

    def sweep(self) -> None:
        """Nothing is left behind by the dead."""

    def _take(self, connection: sa.Connection, name: str, patience: float) -> None:
        attempt = _TRY_SHARED if name == WORKER else _TRY
        connection.execute(_SIGN, {"name": _signature()})
        give_up = time.monotonic() + patience
        while not connection.scalar(attempt, {"key": self._key(name)}):
            if time.monotonic() > give_up:
                raise Held(name)
            time.sleep(_PAUSE)

    def _keep(self, connection: sa.Connection, name: str, over: threading.Event) -> None:
        """Looks whether the connection that holds a lock is there, and takes it again if not."""
        holds = True
        while not over.wait(_LOOK_SECONDS):
            try:
                if holds:
                    connection.execute(_STILL_THERE)
                else:
                    connection = self._engine.connect()
                    self._take(connection, name, PATIENCE)
                    holds = True
                    _log.warning("the lock of the %s was lost and is held again", name)
            except (SQLAlchemyError, Held):
                holds = False
                connection.close()
        connection.close()

    def _holder(self, name: str) -> str | None:
        key = self._key(name) & (2**64 - 1)
        with self._engine.connect() as connection:
            found = connection.scalar(_HOLDER, {"high": key >> 32, "low": key & (2**32 - 1)})
        return None if found is None else str(found)

    def _key(self, name: str) -> int:
        """The lock's number, as PostgreSQL wants it: 64 bits with a sign."""
        digest = sha256(f"zlh:{self._deployment}:{name}".encode()).digest()
        return int.from_bytes(digest[:8], "big", signed=True)


def _signature(pid: int | None = None) -> str:
    return f"zlh {pid or os.getpid()} {machine()}"[:_NAME_LIMIT]
