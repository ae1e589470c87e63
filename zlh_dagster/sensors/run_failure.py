"""Tells of runs that failed without their hooks: killed ones, and those of any other location."""

import dagster as dg

from zlh_dagster.core.messages import run_failed
from zlh_dagster.hooks.discord import REQUESTED_BY_TAG, claim
from zlh_dagster.jobs.level1_repair import LEVEL1_REPAIR
from zlh_dagster.resources.batch import CONTROLLER
from zlh_dagster.resources.services import Services
from zlh_dagster.resources.teller import tell_failing


def run_failure_sensor() -> dg.SensorDefinition:
    """A sensor over the failed runs of all code locations."""

    @dg.run_failure_sensor(
        name="tell_failed_runs",
        monitor_all_code_locations=True,
        default_status=dg.DefaultSensorStatus.RUNNING,
        minimum_interval_seconds=10,
        description="One Discord message for each failed run that no hook has told of.",
    )
    def tell_failed_runs(
        context: dg.RunFailureSensorContext, services: dg.ResourceParam[Services]
    ) -> None:
        run = context.dagster_run
        if not claim(context.instance, run.run_id):
            return
        error = context.failure_event.message or ""
        message = run_failed(job=run.job_name, run_id=run.run_id, error=error)
        if run.job_name == LEVEL1_REPAIR and run.tags.get(REQUESTED_BY_TAG) != CONTROLLER:
            services.discord.send(message)
        else:
            tell_failing(services, f"run_failed:{run.job_name}", message)

    return tell_failed_runs
