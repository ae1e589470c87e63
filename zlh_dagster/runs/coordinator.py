"""Starts a run that nothing holds back at once; any other waits in Dagster's queue.

Dagster's daemon looks at its queue every second, and a tick with a repair would wait for that look
twice. The queue is for what a limit holds back.
"""

import logging
from collections.abc import Mapping
from contextlib import ExitStack
from typing import Any

from dagster import DagsterRun, DagsterRunStatus, QueuedRunCoordinator, RunsFilter
from dagster._core.op_concurrency_limits_counter import GlobalOpConcurrencyLimitsCounter
from dagster._core.run_coordinator import SubmitRunContext
from dagster._core.storage.dagster_run import ACTIVE_RUN_STATUSES
from dagster._serdes import ConfigurableClassData
from dagster._utils.tags import TagConcurrencyLimitsCounter
from sqlalchemy.exc import SQLAlchemyError

from zlh_dagster.resources.settings import load_settings
from zlh_dagster.runs.alive import locks_of
from zlh_dagster.runs.locks import Held, RunLocks

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

        Raises:
            Exception: What the launcher raises; the run has failed then, and Dagster's events say
                of what.
        """
        run = context.dagster_run
        with ExitStack() as stack:
            if run.status is DagsterRunStatus.NOT_STARTED and self._is_next(run, stack):
                return self._instance.launch_run(run.run_id, context.workspace)
        return super().submit_run(context)

    def _is_next(self, run: DagsterRun, stack: ExitStack) -> bool:
        """Whether nothing is before the run; until the stack ends nobody else counts."""
        try:
            # Two that count at the same time would both find the last place free.
            stack.enter_context(self._locks.hold(HANDING_OVER))
            return self._is_free_for(run)
        except (Held, OSError, SQLAlchemyError) as error:
            _log.info("run %s is queued: %s", run.run_id, type(error).__name__)
            return False

    def _is_free_for(self, run: DagsterRun) -> bool:
        """Whether the daemon would start this run at its next look, and no other one."""
        if self._instance.get_runs(RunsFilter(statuses=[DagsterRunStatus.QUEUED]), limit=1):
            return False
        concurrency = self._instance.get_concurrency_config()
        limits = concurrency.run_queue_config
        if limits is None:
            return False
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
