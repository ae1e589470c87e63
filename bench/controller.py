"""A running `zlh up`, and ticks started in it at a chosen moment.

Waiting for twenty full minutes would take twenty minutes. A tick is asked for here as the schedule
asks for it, from a process that has loaded Dagster already; the schedule rests meanwhile, so that
the loop is idle before.
"""

import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass

import dagster as dg
from dagster._cli.job import _create_run  # what `dagster job launch` calls, without its start
from dagster._core.remote_representation.code_location import CodeLocation
from dagster._core.remote_representation.external import RemoteRepository
from dagster._core.storage.tags import SCHEDULE_NAME_TAG
from dagster._core.workspace.context import WorkspaceProcessContext, WorkspaceRequestContext
from dagster._core.workspace.load_target import WorkspaceFileTarget

from bench.deployment import Deployment, until
from zlh_dagster.jobs.observe import OBSERVE, observe_every_minute
from zlh_dagster.sensors.drift import drift_sensor

_SECONDS = 120.0
_LOOK_EVERY = 5.0
"""Seconds between two looks of Dagster's daemon at its sensors."""

_BEFORE_A_LOOK = 0.2
"""Seconds: a tick that was asked for so long ago is there, and is not over yet."""

_IN_TIME = 1.0
"""Seconds before a look that are too short to prepare for it."""


@dataclass
class Controller:
    """One `zlh up`.

    Attributes:
        pid: Of `zlh up` itself.
    """

    deployment: Deployment
    pid: int
    instance: dg.DagsterInstance
    workspace: WorkspaceProcessContext

    def rest(self) -> None:
        """Stops every schedule, so that nothing starts a tick but :meth:`tick`."""
        with self._definitions() as (_, _, repository):
            for schedule in repository.get_schedules():
                self.instance.stop_schedule(
                    schedule.get_remote_origin_id(), schedule.selector_id, schedule
                )

    def resume(self) -> None:
        """Starts the schedule of the ticks, and no other."""
        with self._definitions() as (_, _, repository):
            self.instance.start_schedule(repository.get_schedule(observe_every_minute.name))

    def ticks(self) -> int:
        """How many ticks there were."""
        return self.instance.get_runs_count(dg.RunsFilter(job_name=OBSERVE))

    def until_near_a_look(self) -> None:
        """Waits for the moment at which a tick is asked for that the sensor's next look finds.

        At full minutes the sensor waits for the tick of the schedule. One that is asked for at any
        other moment would be found at the next look, anything up to five seconds later.
        """
        with self._definitions() as (_, _, repository):
            sensor = repository.get_sensor(drift_sensor.name)
        ids = sensor.get_remote_origin_id(), sensor.selector_id

        def last_look() -> float:
            [look] = self.instance.get_ticks(*ids, limit=1)
            return look.timestamp

        before = last_look()
        if time.time() > before + _LOOK_EVERY - _IN_TIME:
            until(lambda: last_look() > before, seconds=_SECONDS, what="a look of the sensor")
        time.sleep(max(last_look() + _LOOK_EVERY - _BEFORE_A_LOOK - time.time(), 0))

    def tick(self) -> tuple[float, str]:
        """Asks for a tick; returns when that was, in seconds since the epoch, and its run."""
        began = time.time()
        with self._definitions() as (context, location, repository):
            run = _create_run(
                instance=self.instance,
                code_location=location,
                remote_repo=repository,
                remote_job=repository.get_full_job(OBSERVE),
                run_config={},
                tags={SCHEDULE_NAME_TAG: observe_every_minute.name},
                op_selection=None,
                run_id=None,
            )
            self.instance.submit_run(run.run_id, context)
        return began, run.run_id

    @contextmanager
    def _definitions(
        self,
    ) -> Iterator[tuple[WorkspaceRequestContext, CodeLocation, RemoteRepository]]:
        """The one code location and its repository, as the daemon has them."""
        with self.workspace.create_request_context() as context:
            [location] = context.code_locations
            [repository] = location.get_repositories().values()
            yield context, location, repository

    def wait(self, run_id: str) -> None:
        """Waits until a run has succeeded.

        Raises:
            RuntimeError: If it failed.
        """

        def ended() -> bool:
            run = self.instance.get_run_by_id(run_id)
            if run is not None and run.is_failure_or_canceled:
                told = [
                    str(e.dagster_event or e.user_message) for e in self.instance.all_logs(run_id)
                ]
                raise RuntimeError(f"run {run_id} is {run.status.value}: {told[-3:]}")
            return run is not None and run.is_finished

        until(ended, seconds=_SECONDS, what=f"the end of run {run_id}")


@contextmanager
def controller(deployment: Deployment, *, web: bool = False) -> Iterator[Controller]:
    """`zlh up` over a deployment, with a connection to it.

    Args:
        deployment: What it watches.
        web: Whether its web server runs too.
    """
    pid = deployment.up(web=web)
    with ExitStack() as stack:
        with deployment.as_environment():
            instance = stack.enter_context(dg.DagsterInstance.from_config(str(deployment.home)))
            # Each of these is made when it is first asked for, and reads the environment then.
            _ = instance.run_coordinator, instance.run_launcher
            instance.get_runs(limit=1)
            instance.get_asset_keys(limit=1)
            instance.all_instigator_state()
            target = WorkspaceFileTarget([str(deployment.home / "workspace.yaml")])
            workspace = stack.enter_context(WorkspaceProcessContext(instance, target))
        yield Controller(deployment, pid, instance, workspace)
