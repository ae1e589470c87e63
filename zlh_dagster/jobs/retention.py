"""The job `retention`: every hour, what is old goes, and the figures of the day are kept."""

import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from datetime import datetime, timedelta, timezone

import dagster as dg
from dagster._core.definitions.assets.job.asset_job import IMPLICIT_ASSET_JOB_NAME

from zlh_dagster.assets.drift import DRIFT
from zlh_dagster.core.launch import RETENTION_RUN_FAILED
from zlh_dagster.core.retention import KEPT
from zlh_dagster.jobs.agent_shards import PROBE_AGENTS
from zlh_dagster.jobs.digest import DIGEST
from zlh_dagster.jobs.level1_repair import LEVEL1_REPAIR
from zlh_dagster.jobs.observe import OBSERVE, UNFINISHED
from zlh_dagster.jobs.storage import RunStore
from zlh_dagster.resources.compaction import compact
from zlh_dagster.resources.history import fold
from zlh_dagster.resources.redis import RedisUnavailable
from zlh_dagster.resources.services import Services
from zlh_dagster.resources.snapshots import SnapshotStore

RETENTION = "retention"
MAX_RUNTIME_SECONDS = 300
WORK_SECONDS = 10.0
"""Deleting stops after that; the rest is deleted an hour later."""

ROUTINE = (OBSERVE, PROBE_AGENTS, DIGEST, RETENTION, IMPLICIT_ASSET_JOB_NAME)
"""Jobs of which a run that succeeded is uneventful; the last is of assets materialized by hand."""

KEPT_ROUNDS = timedelta(hours=1)
"""How long answers of agents that were asked in shards are kept; a tick keeps its own copy."""

_TOGETHER = 50


@dataclass
class Done:
    """What one retention run did: counts by name, and what did not work."""

    counts: dict[str, int] = field(default_factory=dict)
    problems: list[str] = field(default_factory=list)


def retain(
    instance: dg.DagsterInstance,
    services: Services,
    *,
    now: datetime,
    location: str | None = None,
    seconds: float = WORK_SECONDS,
) -> Done:
    """Deletes what is old, gives space back, and brings the daily figures up to date.

    Each part is tried, whatever became of the one before.

    Args:
        instance: Whose runs.
        services: Snapshots, figures and the database.
        now: The time by which the age of things is told.
        location: Label of the code location of which this is a part, where it is part of one.
        seconds: How long runs and events, and after them snapshots, may be deleted for.
    """
    done = Done()
    store = RunStore(instance)
    limit = now - timedelta(hours=services.settings.zlh_retention_hours)
    deadline = time.monotonic() + seconds

    def runs() -> int:
        ended = store.ended(
            location=location,
            jobs=(*ROUTINE, LEVEL1_REPAIR),
            routine=ROUTINE,
            before=limit,
            expired=now - KEPT,
        )
        return _delete_runs(store, done, ended.to_delete(), deadline=deadline)

    def runless() -> int:
        return store.delete_runless(dg.AssetKey(DRIFT), before=limit, deadline=deadline)

    def snapshots() -> int:
        return _delete_snapshots(store, services, done, limit=limit, seconds=seconds)

    def rounds() -> int:
        old = now - KEPT_ROUNDS
        written = services.agent_rounds.ticks()
        return _delete_ticks(services.agent_rounds, done, written, older=old, seconds=seconds)

    def figures() -> int:
        try:
            return fold(services, now=now)
        except RedisUnavailable:
            # The loop tells it; what was counted by then is kept when Redis is back.
            return 0

    def compaction() -> int:
        repairing = dg.RunsFilter(job_name=LEVEL1_REPAIR, statuses=UNFINISHED)
        files = store.shared_files
        return sum(compact(path) for path in files if not instance.get_run_ids(repairing, limit=1))

    _try(done, "runless_rows", runless)
    _try(done, "runs", runs)
    _try(done, "files", store.delete_files_without_run)
    _try(done, "snapshots", snapshots)
    _try(done, "agent_rounds", rounds)
    _try(done, "daily_figures", figures)
    _try(done, "bytes_given_back", compaction)
    return done


def _try(done: Done, name: str, work: Callable[[], int]) -> None:
    try:
        done.counts[name] = work()
    except Exception as error:  # noqa: BLE001 - the other parts are worth trying
        done.problems.append(f"{name}: {type(error).__name__}: {error}")


def _delete_runs(store: RunStore, done: Done, run_ids: Sequence[str], *, deadline: float) -> int:
    """Deletes many at once, and one by one where that fails: one may keep the others."""
    tried = deleted = 0
    while time.monotonic() < deadline and (together := run_ids[tried : tried + _TOGETHER]):
        try:
            store.delete_runs(together)
            tried += len(together)
            deleted += len(together)
        except Exception:  # noqa: BLE001 - whatever it was, it is told of the run that has it
            for run_id in together:
                tried += 1
                try:
                    store.delete_runs([run_id])
                    deleted += 1
                except Exception as error:  # noqa: BLE001 - the other runs are worth trying
                    done.problems.append(f"run {run_id}: {type(error).__name__}: {error}")
                if time.monotonic() >= deadline:
                    break
    done.counts["runs_left_for_later"] = len(run_ids) - tried
    return deleted


def _delete_snapshots(
    store: RunStore, services: Services, done: Done, *, limit: datetime, seconds: float
) -> int:
    """Deletes the snapshots of runs that are gone, and those that never had one, when old."""
    # Snapshots before runs: the run of whatever is listed here was made before it.
    written = services.snapshots.ticks()
    runs = store.all_runs()
    unclaimed = {tick: last for tick, last in written.items() if tick not in runs}
    return _delete_ticks(services.snapshots, done, unclaimed, older=limit, seconds=seconds)


def _delete_ticks(
    snapshots: SnapshotStore,
    done: Done,
    written: Mapping[str, datetime],
    *,
    older: datetime,
    seconds: float,
) -> int:
    deadline = time.monotonic() + seconds
    deleted = 0
    for tick, last in written.items():
        if last >= older or time.monotonic() > deadline:
            continue
        try:
            snapshots.delete(tick)
            deleted += 1
        except OSError as error:
            done.problems.append(f"snapshots of {tick}: {error}")
    return deleted


@dg.op(
    out=dg.Out(dg.Nothing),
    description="Deletes old runs, events and snapshots; keeps the figures of the day.",
)
def delete_what_is_old(
    context: dg.OpExecutionContext, services: dg.ResourceParam[Services]
) -> dg.Output[None]:
    """Fails in the end when a part did not work, after all of them were tried."""
    origin = context.run.remote_job_origin
    done = retain(
        context.instance,
        services,
        now=datetime.now(timezone.utc),
        location=None if origin is None else origin.repository_origin.get_label(),
    )
    context.log.info(", ".join(f"{name}: {count}" for name, count in done.counts.items()))
    if done.problems:
        for problem in done.problems:
            context.log.warning(services.redactor.text(problem))
        raise dg.Failure(
            description=f"{len(done.problems)} things could not be done, the first:"
            f" {services.redactor.text(done.problems[0])}",
            allow_retries=False,
        )
    with suppress(RedisUnavailable):
        services.incidents.absent([RETENTION_RUN_FAILED], now=time.time())
    return dg.Output(None, metadata=done.counts)


@dg.job(
    name=RETENTION,
    tags={"dagster/max_runtime": str(MAX_RUNTIME_SECONDS)},
    description="Keeps the disk bounded: old runs, events and snapshots go, daily figures stay.",
)
def retention() -> None:
    """What is old goes."""
    delete_what_is_old()


retention_every_hour = dg.ScheduleDefinition(
    name="retention_every_hour",
    job=retention,
    cron_schedule="17 * * * *",
    execution_timezone="UTC",
    default_status=dg.DefaultScheduleStatus.RUNNING,
    description="Old runs go at 17 minutes past each hour.",
)
