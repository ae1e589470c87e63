"""Which way a run is started: in the warm worker, or in a process of its own.

Dagster loads this class from dagster.yaml, where nothing but its name stands. The settings decide
at run time, so that neither an address nor a password is in that file.
"""

import os
import signal
import time
from collections.abc import Mapping
from typing import Any

import redis
from dagster import DagsterInstance, DagsterRun
from dagster._core.launcher import (
    CheckRunHealthResult,
    DefaultRunLauncher,
    LaunchRunContext,
    RunLauncher,
    WorkerStatus,
)
from dagster._serdes import ConfigurableClassData
from dagster_celery.defaults import task_default_queue
from dagster_celery.launcher import CeleryRunLauncher
from dagster_celery.tags import DAGSTER_CELERY_TASK_ID_TAG

from zlh_dagster.resources.redis import connect
from zlh_dagster.resources.settings import Settings, load_settings
from zlh_dagster.runs.alive import locks_of
from zlh_dagster.runs.broker import TASK_EXECUTE_RUN, broker_url, celery_config, waiting_key
from zlh_dagster.runs.locks import WORKER

TAKEN_SECONDS = 1.0
"""A worker that has left an earlier run waiting for so long hangs."""

TERMINATE_SECONDS = 10.0
"""Between asking a run to end and ending its process; a write gives up before that."""

LOOK_SECONDS = 2.0
"""A worker on another machine looks so often whether a run of its own is to end."""


class WarmRunLauncher(CeleryRunLauncher):
    """Starts runs in the warm worker, and cold while there is no worker or no Redis.

    Args:
        settings: Where Redis and the state directory are.
        inst_data: Dagster's note of where this class was named.
    """

    def __init__(self, settings: Settings, inst_data: ConfigurableClassData | None = None) -> None:
        super().__init__(
            default_queue=task_default_queue,
            broker=broker_url(settings.redis_url),
            config_source=celery_config(settings),
            inst_data=inst_data,
        )
        self._redis_url = settings.redis_url
        self._waiting = waiting_key(settings)
        self._locks = locks_of(settings)
        self._cold = DefaultRunLauncher()

    @classmethod
    def config_type(cls) -> dict[str, Any]:
        return {}

    @classmethod
    def from_config_value(  # type: ignore[override]
        cls, inst_data: ConfigurableClassData, config_value: Mapping[str, Any]
    ) -> RunLauncher:
        """The launcher that ``ZLH_RUN_LAUNCHER`` asks for.

        Raises:
            SettingsError: If a setting is missing or malformed.
        """
        settings = load_settings()
        if settings.zlh_run_launcher == "default":
            return DefaultRunLauncher(inst_data)
        return cls(settings, inst_data)

    def register_instance(self, instance: DagsterInstance) -> None:
        super().register_instance(instance)
        self._cold.register_instance(instance)

    def launch_run(self, context: LaunchRunContext) -> None:
        """Hands the run to the worker, or starts a process for it: observation goes on."""
        run = context.dagster_run
        problem = self._no_worker()
        if problem is not None:
            message = f"{problem}: the run is started in a process of its own"
            self._instance.report_engine_event(message, run, cls=self.__class__)
            self._cold.launch_run(context)
            return
        # Not Dagster's own task, whose message carries all of dagster.yaml into Redis.
        task = self.celery.signature(TASK_EXECUTE_RUN, kwargs={"run_id": run.run_id})
        self._launch_celery_task_run(run, task, TASK_EXECUTE_RUN)

    @property
    def supports_resume_run(self) -> bool:
        """Nothing is resumed: the next tick looks afresh."""
        return False

    def check_run_worker_health(self, run: DagsterRun) -> CheckRunHealthResult:
        """Whether the process that executes a run lives, as its lock tells."""
        if DAGSTER_CELERY_TASK_ID_TAG not in run.tags or self._locks.held(run.run_id):
            # Without the tag it was started cold or from a shell: its process is not known here.
            return CheckRunHealthResult(WorkerStatus.RUNNING)
        return CheckRunHealthResult(WorkerStatus.FAILED, "its process in the worker is gone")

    def terminate(self, run_id: str) -> bool:
        """Interrupts a run as Dagster does, and ends its process when that does not help."""
        run = self._instance.get_run_by_id(run_id)
        if run is None or run.is_finished:
            return False
        if DAGSTER_CELERY_TASK_ID_TAG not in run.tags:
            return bool(self._cold.terminate(run_id))  # type: ignore[no-untyped-call]
        self._instance.report_run_canceling(run)
        pid = self._locks.holder(run_id)
        if pid is not None:
            os.kill(pid, signal.SIGTERM)
            if not self._ended(run_id, within=TERMINATE_SECONDS):
                os.kill(pid, signal.SIGKILL)
            return True
        if not self._locks.held(run_id):
            return False
        # On another machine, whose worker looks: whoever asks may fail the run right after this.
        self._ended(run_id, within=TERMINATE_SECONDS + 2 * LOOK_SECONDS)
        return True

    def _ended(self, run_id: str, *, within: float) -> bool:
        """Waits until nobody executes a run, for so many seconds at most."""
        give_up = time.monotonic() + within
        while self._locks.held(run_id):
            if time.monotonic() > give_up:
                return False
            time.sleep(0.1)
        return True

    def get_run_worker_debug_info(
        self, run: DagsterRun, include_container_logs: bool | None = True
    ) -> str | None:
        return None

    def _no_worker(self) -> str | None:
        """Why no worker can be asked, if none can."""
        if not self._locks.held(WORKER):
            return "no worker runs"
        try:
            with connect(self._redis_url) as client:
                give_up = time.monotonic() + TAKEN_SECONDS
                while client.llen(self._waiting):
                    if time.monotonic() > give_up:
                        return "the worker takes no runs"
                    time.sleep(0.05)
        except redis.RedisError as error:
            return f"Redis does not answer ({type(error).__name__})"
        return None
