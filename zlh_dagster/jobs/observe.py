"""The job `observe`: one tick, every minute."""

import uuid

import dagster as dg

from zlh_dagster.core.policy import SOURCES
from zlh_dagster.resources.observe import DESIRED_EDGE

OBSERVE = "observe"
MAX_RUNTIME_SECONDS = 150
UNFINISHED = [
    dg.DagsterRunStatus.QUEUED,
    dg.DagsterRunStatus.NOT_STARTED,
    dg.DagsterRunStatus.STARTING,
    dg.DagsterRunStatus.STARTED,
    dg.DagsterRunStatus.CANCELING,
]

observe = dg.define_asset_job(
    OBSERVE,
    selection=dg.AssetSelection.assets(DESIRED_EDGE, *SOURCES),
    description="Observes desired state and edge once, in one process, and changes nothing.",
    tags={"dagster/max_runtime": str(MAX_RUNTIME_SECONDS)},
)


@dg.schedule(
    name="observe_every_minute",
    job=observe,
    cron_schedule="* * * * *",
    default_status=dg.DefaultScheduleStatus.RUNNING,
    description="One tick a minute, skipped while the last one still runs.",
)
def observe_every_minute(context: dg.ScheduleEvaluationContext) -> dg.RunRequest | dg.SkipReason:
    """Asks for a tick unless one is under way."""
    running = context.instance.get_runs(
        dg.RunsFilter(job_name=OBSERVE, statuses=UNFINISHED), limit=1
    )
    if running:
        return dg.SkipReason(f"the tick of run {running[0].run_id[:8]} is still under way")
    # A key of its own: Dagster makes no second run for the same minute, and after a clock was set
    # back minutes come again.
    return dg.RunRequest(
        run_key=uuid.uuid4().hex,
        tags={"zlh/tick": context.scheduled_execution_time.isoformat(timespec="seconds")},
    )
