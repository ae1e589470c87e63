"""Who is alive: locks on files below `$DAGSTER_HOME`, which end with the process that holds them.

The system gives a lock back in the moment in which its holder dies, however it dies. So no
heartbeat is sent, none can be late, and a Redis that lost everything says nothing about a run.
"""

import contextlib
import fcntl
import os
import socket
import time
from collections.abc import Iterator
from hashlib import sha256
from pathlib import Path
from typing import IO, Protocol

WORKER = "worker"
PATIENCE = 0.5
"""Seconds that those who want a lock wait for those who only look whether it is held."""


def machine() -> str:
    """Where the number of a process names this process: a host's name and, on Linux, more.

    Machines that were copied have the same name, and so may containers. A boot's random number
    tells kernels apart, the number of a PID namespace the containers of one (proc(5)).
    """
    try:
        boot = Path("/proc/sys/kernel/random/boot_id").read_text()
        space = os.stat("/proc/self/ns/pid").st_ino
    except OSError:
        return socket.gethostname()
    return f"{sha256(f'{boot}{space}'.encode()).hexdigest()[:12]} {socket.gethostname()}"


class Held(Exception):
    """Somebody else holds the lock."""


class RunLocks(Protocol):
    """Locks that end with the process that holds them."""

    def hold(
        self, name: str, *, patience: float = PATIENCE
    ) -> contextlib.AbstractContextManager[None]: ...

    def keep(self, name: str) -> contextlib.AbstractContextManager[None]: ...

    def held(self, name: str) -> bool: ...

    def holder(self, name: str) -> int | None: ...

    def sweep(self) -> None: ...


class Locks:
    """The locks of one deployment: one for its worker, one for each run that a worker executes.

    Args:
        home: State directory.
    """

    def __init__(self, home: Path) -> None:
        self._folder = home / "locks"

    @contextlib.contextmanager
    def hold(self, name: str, *, patience: float = PATIENCE) -> Iterator[None]:
        """Holds a lock; its file names the holder meanwhile.

        Args:
            name: Of the lock.
            patience: How long to wait for it, in seconds.

        Raises:
            Held: If somebody else holds it.
        """
        self._folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        path = self._path(name)
        with _exclusively(path, patience) as file:
            file.truncate(0)
            file.write(f"{os.getpid()} {machine()}")
            file.flush()
            try:
                yield
            finally:
                path.unlink(missing_ok=True)

    def keep(self, name: str) -> contextlib.AbstractContextManager[None]:
        """Holds a lock for as long as this process lives; nothing can take it from it."""
        return self.hold(name)

    def held(self, name: str) -> bool:
        """Whether somebody holds a lock now."""
        try:
            with self._path(name).open() as file:
                return not locked(file, fcntl.LOCK_SH)
        except FileNotFoundError:
            return False

    def sweep(self) -> None:
        """Removes what dead holders left behind."""
        for path in self._folder.glob("*.lock"):
            if not self.held(path.stem):
                path.unlink(missing_ok=True)

    def holder(self, name: str) -> int | None:
        """The process that holds a lock, if it does and is one of this machine."""
        if not self.held(name):
            return None
        try:
            pid, _, where = self._path(name).read_text().partition(" ")
            return int(pid) if where == machine() else None
        except (FileNotFoundError, ValueError):
            return None

    def _path(self, name: str) -> Path:
        return self._folder / f"{name}.lock"


@contextlib.contextmanager
def _exclusively(path: Path, patience: float) -> Iterator[IO[str]]:
    """The file, locked."""
    give_up = time.monotonic() + patience
    while True:
        with path.open("a+") as file:
            if locked(file, fcntl.LOCK_EX):
                # Somebody may have removed the file between opening and locking it.
                if path.exists() and path.stat().st_ino == os.fstat(file.fileno()).st_ino:
                    yield file
                    return
            elif time.monotonic() > give_up:
                raise Held(path.stem)
        time.sleep(0.01)


def locked(file: IO[str], kind: int) -> bool:
    """Locks an open file, unless somebody holds it in a way that forbids it; whether it could."""
    try:
        fcntl.flock(file, kind | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True
