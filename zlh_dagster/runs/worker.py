"""The warm worker: imports everything once, then forks, and executes runs in the forked processes.

`python -m zlh_dagster.runs.worker` is one of the children of `zlh up`. Nothing is connected to
before the fork but the queue, by Celery's main process.
"""

import contextlib
import gc
import importlib
import logging
import os
import signal
import sys
import threading
import warnings
from collections.abc import Iterator
from functools import cache
from types import FrameType
from typing import cast

from celery import Celery
from celery.apps.worker import Worker
from celery.platforms import SecurityWarning
from celery.signals import worker_process_init
from celery.worker import state
from dagster import DagsterEvent, DagsterInstance, DagsterRunStatus, in_process_executor, job
from dagster._cli.api import _execute_run_command_body
from dagster_celery.make_app import make_app

from zlh_dagster.definitions import defs
from zlh_dagster.resources.settings import Settings, load_settings
from zlh_dagster.resources.watchdog import keep_awake
from zlh_dagster.runs.alive import locks_of
from zlh_dagster.runs.broker import (
    PROCESSES,
    TASK_EXECUTE_RUN,
    broker_url,
    celery_config,
    takes_runs,
)
from zlh_dagster.runs.launcher import LOOK_SECONDS, TERMINATE_SECONDS
from zlh_dagster.runs.locks import WORKER, Held, RunLocks
from zlh_dagster.runs.sqlite import empty_shard

_IMPORTED_LATE = (
    "fsspec.implementations.local",
    "httpcore",
    "pyarrow.dataset",
    "upath",
    "zlh_dagster.runs.storage",
)
_SILENTLY = {"loggers": {"console": {"config": {"log_level": "CRITICAL"}}}}
_log = logging.getLogger(__name__)


class QuietWorker(Worker):  # type: ignore[misc]
    """Celery's worker, ended by SIGTERM without a word."""

    def install_platform_tweaks(self, worker: Worker) -> None:
        signal.signal(signal.SIGTERM, _stop)


def main() -> int:
    """Serves until SIGTERM; returns the exit status."""
    settings = load_settings()
    locks = locks_of(settings)
    locks.sweep()
    app = worker_app(settings, locks)
    # Celery warns whoever is root; what it warns of is pickle, which is not accepted here.
    warnings.simplefilter("ignore", SecurityWarning)
    worker = QuietWorker(
        app=app,
        hostname="zlh",
        pool_cls="prefork",
        concurrency=PROCESSES,
        loglevel="WARNING",
        quiet=True,
        without_gossip=True,
        without_mingle=True,
        without_heartbeat=True,
    )
    warm_up()
    keep_awake(lambda: takes_runs(settings))
    with locks.keep(WORKER):
        worker.start()
    return int(worker.exitcode or 0)


def worker_app(settings: Settings, locks: RunLocks) -> Celery:
    """The worker's end of the queue, with the one task that it knows."""
    app = make_app(  # type: ignore[no-untyped-call]
        {"broker": broker_url(settings.redis_url), "config_source": celery_config(settings)}
    )

    # On the launcher's own machine it sends the signal itself.
    ending = _ended_on_request if settings.dagster_database_url else contextlib.nullcontext

    @app.task(name=TASK_EXECUTE_RUN, shared=False)  # type: ignore[untyped-decorator]
    def execute_run(run_id: str) -> None:
        try:
            # The lock tells who lives, and keeps the same run from being executed twice.
            with locks.hold(run_id), _signals_kept(), ending(run_id):
                _execute_run_command_body(
                    run_id, _instance(), write_stream_fn=_nowhere, set_exit_code_on_failure=False
                )
        except Held:
            _log.warning("run %s is under way already: not started again", run_id)

    return cast(Celery, app)


def warm_up() -> None:
    """Loads what every run needs, and keeps the memory in which it is shared."""
    for name in _IMPORTED_LATE:
        importlib.import_module(name)
    defs.get_repository_def().get_all_jobs()
    with DagsterInstance.ephemeral() as instance:
        _nothing.execute_in_process(instance=instance, run_config=_SILENTLY)
    empty_shard()
    gc.collect()
    gc.freeze()


@job(executor_def=in_process_executor)
def _nothing() -> None:
    """A run of it imports what Dagster imports only when something runs."""


@worker_process_init.connect  # type: ignore[untyped-decorator]
def _open_storage(**_: object) -> None:
    """Before the first run asks for it; if it cannot be opened yet, that run tries again."""
    _instance()


@cache
def _instance() -> DagsterInstance:
    """Dagster's storage, opened once in each process."""
    return DagsterInstance.get()


@contextlib.contextmanager
def _signals_kept() -> Iterator[None]:
    """Dagster leaves SIGTERM with SIGINT's handler, and a forked process ignores that one."""
    kept = {number: signal.getsignal(number) for number in (signal.SIGTERM, signal.SIGINT)}
    try:
        yield
    finally:
        for number, handler in kept.items():
            signal.signal(number, handler)


@contextlib.contextmanager
def _ended_on_request(run_id: str) -> Iterator[None]:
    """Ends this process's run when Dagster's storage says that it is to end, or was given up.

    A run that fails of itself is found as failed, too, while it puts its things away: what counts
    is that it is found so twice.
    """
    over = threading.Event()

    def look() -> None:
        given_up = False
        while not over.wait(LOOK_SECONDS):
            try:
                run = _instance().get_run_by_id(run_id)
            except Exception as error:  # noqa: BLE001 - looks again; the run itself goes on
                _log.warning("whether %s is to end is not known: %s", run_id, type(error).__name__)
                continue
            before, given_up = given_up, run is not None and run.is_failure_or_canceled
            to_end = run is None or run.status is DagsterRunStatus.CANCELING
            if to_end or (before and given_up):
                os.kill(os.getpid(), signal.SIGTERM)
                if not over.wait(TERMINATE_SECONDS):
                    os.kill(os.getpid(), signal.SIGKILL)
                return

    thread = threading.Thread(target=look, name="end", daemon=True)
    thread.start()
    try:
        yield
    finally:
        over.set()
        thread.join()


def _nowhere(event: DagsterEvent) -> None:
    """Events are in Dagster's storage already."""


def _stop(number: int, frame: FrameType | None) -> None:
    """Takes no more runs; those under way are interrupted by the same signal."""
    state.should_stop = os.EX_OK


if __name__ == "__main__":
    sys.exit(main())
