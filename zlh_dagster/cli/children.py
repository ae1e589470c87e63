"""Child processes that are started, watched, restarted and ended together."""

import contextlib
import ctypes
import fcntl
import os
import signal
import subprocess
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path

PATIENCE = 15.0
"""Seconds between asking a child to end and ending it."""

_LONGEST_PAUSE = 30.0
_PR_SET_PDEATHSIG = 1


class NotStarted(Exception):
    """A child did not become ready; the message names it."""


@dataclass(slots=True)
class Child:
    """One program.

    Attributes:
        name: For messages.
        command: Program and arguments.
        environment: All of its environment.
        directory: Its working directory: one without anybody else's ``.env``.
        ready: Tells whether it serves; asked until it does.
        start_seconds: How long that may take.
        works: Tells, while it lives, whether it does its work.
        lock: A file that is locked for as long as the program lives, for others to see.
    """

    name: str
    command: list[str]
    environment: Mapping[str, str]
    directory: Path
    ready: Callable[[], bool] = lambda: True
    start_seconds: float = 60.0
    works: Callable[[], bool] = lambda: True
    lock: Path | None = None
    process: "subprocess.Popen[bytes] | None" = None
    failures: int = 0
    started_at: float = field(default=0.0)

    def start(self) -> None:
        """Starts the program in a session of its own; it ends should this process be killed."""
        self.started_at = time.monotonic()
        with contextlib.ExitStack() as ours:
            inherited = []
            if self.lock is not None:
                file = ours.enter_context(self.lock.open("w"))
                fcntl.flock(file, fcntl.LOCK_EX)
                inherited.append(file.fileno())
            self.process = subprocess.Popen(
                self.command,
                env=dict(self.environment),
                cwd=self.directory,
                stdin=subprocess.DEVNULL,
                start_new_session=True,
                preexec_fn=_die_with_parent,
                pass_fds=inherited,
            )

    def wait_ready(self, stopping: Callable[[], bool]) -> None:
        """Waits until the program serves.

        Raises:
            NotStarted: If it ended, or was not ready in time.
        """
        give_up = time.monotonic() + self.start_seconds
        while not self.ready():
            if stopping():
                return
            if not self.alive() or time.monotonic() > give_up:
                raise NotStarted(f"{self.name} did not start; its own messages are above")
            time.sleep(0.1)

    def alive(self) -> bool:
        return self.process is not None and self.process.poll() is None

    def pause(self) -> float:
        """Seconds to wait before the next restart: longer with every failure in a row."""
        if time.monotonic() - self.started_at > 60:
            self.failures = 0
        self.failures += 1
        return min(_LONGEST_PAUSE, 0.5 * 2.0 ** (self.failures - 1))

    def stop(self) -> None:
        """Asks the program to end, and after a while ends what is left of its session."""
        if self.process is None:
            return
        group = self.process.pid
        _signal(group, signal.SIGTERM)
        with contextlib.suppress(subprocess.TimeoutExpired):
            self.process.wait(timeout=PATIENCE)
        _signal(group, signal.SIGKILL)
        self.process.wait()
        self.process = None


def lock_of(home: Path, name: str) -> Path:
    """The file whose lock says that the directory, or one part of the controller, is in use."""
    return home / f"{name}.lock"


def _signal(group: int, number: signal.Signals) -> None:
    with contextlib.suppress(ProcessLookupError):
        os.killpg(group, number)


def _die_with_parent() -> None:
    ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGTERM)
