"""Tells of runs that failed without their hooks: killed ones, and those of any other location."""

import time

import dagster as dg

from zlh_dagster.core.messages import run_failed
from zlh_dagster.hooks.discord import claim
from zlh_dagster.jobs.level1_repair import LEVEL1_REPAIR
from zlh_dagster.resources.redis import RedisUnavailable
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
        if not claim(context.instance, run.run_id):
            return
        if run.job_name != LEVEL1_REPAIR and not _is_news(services, run.job_name):
            return
        error = context.failure_event.message or ""
        services.discord.send(run_failed(job=run.job_name, run_id=run.run_id, error=error))

    return tell_failed_runs


def _is_news(services: Services, job: str) -> bool:
    """A job that fails every minute is one incident; the next good tick ends it."""
    try:
        detail = {"title": f"{job} fails"}
        return services.incidents.open(f"run_failed:{job}", now=time.time(), detail=detail)
    except RedisUnavailable:
        return True
