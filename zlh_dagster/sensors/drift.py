"""The sensor that judges each complete tick and asks for at most one batch of repairs.

It reads snapshots and Dagster's own storage; the only thing it calls on the network is Redis.
"""

import json
from dataclasses import dataclass, field, replace
from datetime import datetime, timezone
from typing import Any

import dagster as dg

from zlh_dagster.assets.drift import DRIFT, IN_STEP, drift_metadata
from zlh_dagster.core.judge import Judgement, Tick, judge
from zlh_dagster.core.launch import Launch, choose
from zlh_dagster.core.repair import Decisions, Finding, Severity
from zlh_dagster.core.snapshot import NotNow, require_one_fresh_tick
from zlh_dagster.jobs.level1_repair import LEVEL1_REPAIR, run_config
from zlh_dagster.jobs.observe import OBSERVE, UNFINISHED
from zlh_dagster.resources.redis import RedisUnavailable
from zlh_dagster.resources.services import Services
from zlh_dagster.resources.snapshots import SnapshotMissing
from zlh_dagster.resources.ticks import load_tick


@dataclass(frozen=True, slots=True)
class Cursor:
    """What the sensor remembers from tick to tick.

    Attributes:
        tick: The newest tick that was judged.
        unobserved: Ticks in a row in which a source was not seen, by source.
        redis_lost: Whether the operator was told already that Redis does not answer.
    """

    tick: str = ""
    unobserved: dict[str, int] = field(default_factory=dict)
    redis_lost: bool = False

    @staticmethod
    def parse(text: str | None) -> "Cursor":
        """Reads a cursor; one that cannot be read starts afresh."""
        try:
            value: Any = json.loads(text or "{}")
            return Cursor(
                str(value.get("tick", "")),
                {str(k): int(v) for k, v in value.get("unobserved", {}).items()},
                bool(value.get("redis_lost", False)),
            )
        except (ValueError, TypeError, AttributeError):
            return Cursor()

    def dump(self) -> str:
        return json.dumps(
            {"tick": self.tick, "unobserved": self.unobserved, "redis_lost": self.redis_lost}
        )


@dg.sensor(
    name="drift_sensor",
    job_name=LEVEL1_REPAIR,
    minimum_interval_seconds=5,
    default_status=dg.DefaultSensorStatus.RUNNING,
    description="Compares desired with observed at every tick; asks for at most one batch.",
)
def drift_sensor(
    context: dg.SensorEvaluationContext, services: dg.ResourceParam[Services]
) -> dg.SensorResult:
    """Judges the newest complete tick once."""
    cursor = Cursor.parse(context.cursor)
    newest = context.instance.get_runs(
        dg.RunsFilter(job_name=OBSERVE, statuses=[dg.DagsterRunStatus.SUCCESS]), limit=1
    )
    if not newest:
        return _skip("no tick is complete yet", cursor)
    tick_id = newest[0].run_id
    if tick_id == cursor.tick:
        return _skip(f"tick {tick_id[:8]} was judged already", cursor)
    cursor = replace(cursor, tick=tick_id)
    try:
        tick = load_tick(services.snapshots, tick_id)
        require_one_fresh_tick(tick.snapshots, now=datetime.now(timezone.utc))
    except (SnapshotMissing, NotNow) as error:
        return _skip(f"tick {tick_id[:8]} causes no repair: {error}", cursor)

    settings = services.settings
    judgement = judge(tick, edge=settings.edge, policy=settings.policy)
    events = _events(tick, judgement)
    counts = {source: cursor.unobserved.get(source, 0) + 1 for source in tick.unobserved}
    cursor = replace(cursor, unobserved=counts)
    decisions = _with_findings(
        judgement.decisions, _unobserved(tick, counts, settings.zlh_surface_failures_to_open)
    )
    why_not = _busy(context.instance, tick)
    if why_not:
        return _skip(f"tick {tick_id[:8]}: {why_not}", cursor, events)
    try:
        launch = choose(
            decisions,
            already_open=services.incidents.all_open(),
            live=settings.live,
            all_seen=not tick.unobserved,
        )
        services.incidents.close(launch.over)
        cursor = replace(cursor, redis_lost=False)
    except RedisUnavailable as error:
        launch = _without_redis(error, cursor)
        cursor = replace(cursor, redis_lost=True)
    if not launch:
        return _skip(_verdict(tick, judgement), cursor, events)
    return dg.SensorResult(
        run_requests=[_request(newest[0], judgement, launch, live=settings.live)],
        cursor=cursor.dump(),
        asset_events=events,
    )


def _skip(reason: str, cursor: Cursor, events: list[Any] | None = None) -> dg.SensorResult:
    return dg.SensorResult(skip_reason=reason, cursor=cursor.dump(), asset_events=events or [])


def _events(tick: Tick, judgement: Judgement) -> list[Any]:
    """The tick's drift as events; nothing is claimed when the desired state was not read."""
    if not tick.payloads.observed:
        return []
    metadata = drift_metadata(tick, judgement)
    return [
        dg.AssetMaterialization(asset_key=DRIFT, metadata=metadata),
        dg.AssetCheckEvaluation(
            asset_key=dg.AssetKey(DRIFT),
            check_name=IN_STEP,
            passed=judgement.drift.empty,
            severity=dg.AssetCheckSeverity.WARN,
            metadata={
                "drifting": dg.MetadataValue.int(len(judgement.drift)),
                "first_rows": metadata["first_rows"],
            },
        ),
    ]


def _busy(instance: dg.DagsterInstance, tick: Tick) -> str | None:
    """Why no batch may be asked for: one is under way, or came after this tick was observed."""
    running = instance.get_runs(dg.RunsFilter(job_name=LEVEL1_REPAIR, statuses=UNFINISHED), limit=1)
    if running:
        return f"repair run {running[0].run_id[:8]} is under way"
    last = instance.get_run_records(dg.RunsFilter(job_name=LEVEL1_REPAIR), limit=1)
    if not last or last[0].end_time is None:
        return None
    observed_at = min(snapshot.taken_at for snapshot in tick.snapshots).timestamp()
    if observed_at < last[0].end_time:
        return "it was observed before the last repair run ended; the next tick decides"
    return None


def _unobserved(tick: Tick, counts: dict[str, int], limit: int) -> tuple[Finding, ...]:
    return tuple(
        Finding(
            incident=f"unobserved:{source}",
            severity=Severity.CRITICAL,
            title=f"{source}: not seen for {limit} ticks",
            text=f"{reason}. Nothing there is repaired until it can be read again.",
        )
        for source, reason in sorted(tick.unobserved.items())
        if counts[source] >= limit
    )


def _with_findings(decisions: Decisions, more: tuple[Finding, ...]) -> Decisions:
    return replace(decisions, findings=(*decisions.findings, *more))


def _without_redis(error: RedisUnavailable, cursor: Cursor) -> Launch:
    """Without Redis nothing is repaired; a run without repairs is what tells the operator, once."""
    finding = Finding(
        incident="redis_lost",
        severity=Severity.CRITICAL,
        title="Redis does not answer: nothing is repaired",
        text=str(error),
    )
    return Launch((), () if cursor.redis_lost else (finding,), ())


def _verdict(tick: Tick, judgement: Judgement) -> str:
    seen = [surface.value for surface, snap in tick.surfaces.items() if snap.observed]
    text = (
        f"tick {tick.desired.tick[:8]}: {judgement.compared} records compared on"
        f" {', '.join(seen) or 'no surface'}, {len(judgement.drift)} drifting"
    )
    if len(judgement.drift):
        text += f", {judgement.decisions.held} of them held, the rest told before"
    if tick.unobserved:
        text += f"; not seen: {', '.join(sorted(tick.unobserved))}"
    return text


def _request(
    tick: dg.DagsterRun, judgement: Judgement, launch: Launch, *, live: bool
) -> dg.RunRequest:
    vmids = ",".join(str(request.vmid) for request in launch.repairs[:5])
    more = len(launch.repairs) - 5
    return dg.RunRequest(
        run_key=tick.run_id,
        run_config=run_config(
            repairs=launch.repairs,
            findings=launch.findings,
            reasons=judgement.decisions.reasons,
            live=live,
        ),
        tags={
            "zlh/tick": tick.tags.get("zlh/tick", tick.run_id),
            "zlh/mode": "live" if live else "dry-run",
            "zlh/vmid": (f"{vmids} and {more} more" if more > 0 else vmids) or "none",
            "zlh/requested_by": "controller",
        },
    )
