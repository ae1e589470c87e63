"""Starts a schedule's or sensor's run that nothing holds back at once; any other one is queued.

Dagster's daemon looks at its queue every second, and a tick with a repair would wait for that look
twice. The queue is for what a limit holds back, and for what people ask for.
"""

import logging
import sys
from collections.abc import Mapping
from contextlib import ExitStack
from typing import Any

from dagster import DagsterRun, DagsterRunStatus, QueuedRunCoordinator, RunsFilter
from dagster._core.events import DagsterEvent, DagsterEventType, EngineEventData
from dagster._core.launcher import LaunchRunContext
from dagster._core.op_concurrency_limits_counter import GlobalOpConcurrencyLimitsCounter
from dagster._core.run_coordinator import SubmitRunContext
from dagster._core.storage.dagster_run import ACTIVE_RUN_STATUSES
from dagster._core.storage.tags import SCHEDULE_NAME_TAG, SENSOR_NAME_TAG
from dagster._serdes import ConfigurableClassData
from dagster._utils.error import serializable_error_info_from_exc_info
from dagster._utils.tags import TagConcurrencyLimitsCounter

from zlh_dagster.resources.settings import load_settings
from zlh_dagster.runs.alive import locks_of
from zlh_dagster.runs.locks import RunLocks

HANDING_OVER = "handing-over"
"""Lock of whoever counts what is under way and then starts a run."""

_log = logging.getLogger(__name__)


class PromptRunCoordinator(QueuedRunCoordinator):
    """Dagster's queue with its limits, passed by where there is nothing to wait for.

    Args:
        locks: Those of the deployment.
        options: What the queue takes; see Dagster's ``QueuedRunCoordinator``.
    """

    def __init__(self, locks: RunLocks, **options: Any) -> None:
        super().__init__(**options)
        self._locks = locks

    @classmethod
    def from_config_value(
        cls, inst_data: ConfigurableClassData, config_value: Mapping[str, Any]
    ) -> "PromptRunCoordinator":
        """Made of its part of dagster.yaml.

        Raises:
            SettingsError: If a setting is missing or malformed.
        """
        return cls(locks_of(load_settings()), inst_data=inst_data, **config_value)

    def submit_run(self, context: SubmitRunContext) -> DagsterRun:
        """Starts the run, or queues it when a limit, another run or another process is before it.

        A run that cannot be started has failed, and Dagster's events say of what.
        """
        run_id, tags = context.dagster_run.run_id, context.dagster_run.tags
        with ExitStack() as stack:
            asked_by_daemon = SCHEDULE_NAME_TAG in tags or SENSOR_NAME_TAG in tags
            if asked_by_daemon and self._is_next(run_id, stack):
                self._start(context)
                return self._as_it_stands(run_id)
        return super().submit_run(context._replace(dagster_run=self._as_it_stands(run_id)))

    def _is_next(self, run_id: str, stack: ExitStack) -> bool:
        """Whether nothing is before the run; until the stack ends nobody else counts."""
        try:
            # Two that count at the same time would both find the last place free.
            stack.enter_context(self._locks.hold(HANDING_OVER))
            run = self._as_it_stands(run_id)
            return run.status is DagsterRunStatus.NOT_STARTED and self._is_free_for(run)
        except Exception as error:  # noqa: BLE001 - where nothing can be counted, the daemon counts
            _log.info("run %s is queued: %s", run_id, type(error).__name__)
            return False

    def _start(self, context: SubmitRunContext) -> None:
        """Starts it as Dagster's daemon does; what runs after an error of the launcher goes on."""
        instance, run_id = self._instance, context.dagster_run.run_id
        starting = DagsterEvent(
            event_type_value=DagsterEventType.PIPELINE_STARTING.value,
            job_name=context.dagster_run.job_name,
        )
        instance.report_dagster_event(starting, run_id=run_id)
        try:
            instance.run_launcher.launch_run(
                LaunchRunContext(self._as_it_stands(run_id), context.workspace)
            )
        except Exception:  # noqa: BLE001 - whatever it is, the run's events tell it
            error = serializable_error_info_from_exc_info(sys.exc_info())
            run = self._as_it_stands(run_id)
            if run.status is not DagsterRunStatus.STARTING:
                _log.warning(
                    "run %s goes on, though starting it ended in: %s", run_id, error.message
                )
                return
            instance.report_engine_event(
                "The run could not be started", run, EngineEventData.engine_error(error)
            )
            instance.report_run_failed(run)

    def _as_it_stands(self, run_id: str) -> DagsterRun:
        """The run as it is stored now; what a caller holds may be old."""
        run = self._instance.get_run_by_id(run_id)
        if run is None:
            raise ValueError(f"run {run_id} was deleted while it was submitted")
        return run

    def _is_free_for(self, run: DagsterRun) -> bool:
        """Whether the daemon would start this run at its next look, and no other one."""
        if self._instance.get_runs(RunsFilter(statuses=[DagsterRunStatus.QUEUED]), limit=1):
            return False
        concurrency = self._instance.get_concurrency_config()
        limits = concurrency.run_queue_config
        if limits is None or limits.max_user_code_failure_retries:
            return False  # only the daemon counts those retries
        records = self._instance.get_run_records(RunsFilter(statuses=ACTIVE_RUN_STATUSES))
        if 0 <= limits.max_concurrent_runs <= len(records):
            return False
        under_way = [record.dagster_run for record in records]
        if TagConcurrencyLimitsCounter(limits.tag_concurrency_limits, under_way).is_blocked(run):
            return False
        if not run.run_op_concurrency or not limits.should_block_op_concurrency_limited_runs:
            return True
        storage = self._instance.event_log_storage
        pools = GlobalOpConcurrencyLimitsCounter(
            self._instance,
            [run],
            records,
            concurrency_keys=storage.get_concurrency_keys(),
            pool_limits=storage.get_pool_limits(),
            slot_count_offset=limits.op_concurrency_slot_buffer,
            pool_granularity=concurrency.pool_config.pool_granularity,
        )
        return not pools.is_blocked(run)
