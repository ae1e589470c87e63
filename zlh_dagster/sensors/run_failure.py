"""Tells of runs that failed without their hooks: killed ones, and those of any other location."""

import dagster as dg

from zlh_dagster.hooks.discord import tell_failed_run
from zlh_dagster.resources.services import Services


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
        error = context.failure_event.message or ""
        tell_failed_run(
            services, context.instance, run_id=run.run_id, job=run.job_name, error=error
        )

    return tell_failed_runs
