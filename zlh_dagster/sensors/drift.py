"""The sensor that judges each complete tick and asks for at most one batch of repairs.

It reads snapshots and Dagster's own storage; the only thing it calls on the network is Redis.
"""

import json
import logging
import threading
import time
from contextlib import suppress
from dataclasses import asdict, dataclass, field, replace
from datetime import datetime, timezone
from typing import Any

import dagster as dg

from zlh_dagster.assets.drift import DRIFT, IN_STEP, drift_metadata
from zlh_dagster.core.judge import Judgement, Tick
from zlh_dagster.core.launch import DRIFT_SENSOR_FAILED, Launch
from zlh_dagster.core.messages import sensor_failed
from zlh_dagster.core.pulse import why_not_good
from zlh_dagster.core.repair import CONTROLLER
from zlh_dagster.core.retention import EVENTFUL_TAG, NEW_DRIFT, TICK_RUN_TAG
from zlh_dagster.core.snapshot import AHEAD_SECONDS, NotNow, require_one_fresh_tick
from zlh_dagster.hooks.discord import REQUESTED_BY_TAG
from zlh_dagster.jobs.level1_repair import LEVEL1_REPAIR, run_config
from zlh_dagster.jobs.observe import OBSERVE, UNFINISHED
from zlh_dagster.resources.controller import Assessment, ask, assess, hand_on_redis_lost
from zlh_dagster.resources.pulse import HEARTBEAT, call_heartbeat
from zlh_dagster.resources.redis import RedisUnavailable
from zlh_dagster.resources.services import Services
from zlh_dagster.resources.snapshots import SnapshotMissing
from zlh_dagster.resources.teller import tell_failing
from zlh_dagster.resources.ticks import load_tick

LOOK_SECONDS = 6.0
"""Dagster's daemon looks at its sensors every five seconds, and then runs them one by one."""

_EVERY_LOOK = 1
"""Less than the daemon's five seconds: of two looks 4.99 s apart it would pass over the second."""

WAIT_SECONDS = 9.0
"""How long one look waits for a tick that is near, instead of leaving it to the next look."""

_PAUSE = 0.2
_START_SECONDS = 2.0
_log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Cursor:
    """What the sensor remembers from tick to tick.

    Attributes:
        tick: The newest tick that was judged.
        unobserved: Ticks in a row in which a source was not seen, by source.
        redis_lost: Since when the operator knows that Redis does not answer, seconds since the
            epoch; null while it does.
        drift: Fingerprint of the last drift that was seen, whether or not it is still there.
        stood_by: When another deployment was last seen to lead, seconds since the epoch; null once
            this one leads.
    """

    tick: str = ""
    unobserved: dict[str, int] = field(default_factory=dict)
    redis_lost: float | None = None
    drift: str = ""
    stood_by: float | None = None

    @staticmethod
    def parse(text: str | None) -> "Cursor":
        """Reads a cursor; one that cannot be read starts afresh."""
        try:
            value: Any = json.loads(text or "{}")
            return Cursor(
                str(value.get("tick", "")),
                {str(k): int(v) for k, v in value.get("unobserved", {}).items()},
                _moment(value, "redis_lost"),
                str(value.get("drift", "")),
                _moment(value, "stood_by"),
            )
        except (ValueError, TypeError, AttributeError):
            return Cursor()

    def dump(self) -> str:
        return json.dumps(asdict(self))


def _moment(value: dict[str, Any], field: str) -> float | None:
    return None if value.get(field) is None else float(value[field])


@dg.sensor(
    name="drift_sensor",
    job_name=LEVEL1_REPAIR,
    minimum_interval_seconds=_EVERY_LOOK,
    default_status=dg.DefaultSensorStatus.RUNNING,
    description="Compares desired with observed at every tick; asks for at most one batch.",
)
def drift_sensor(
    context: dg.SensorEvaluationContext, services: dg.ResourceParam[Services]
) -> dg.SensorResult:
    """Judges the newest complete tick once; an error of its own is told, and raised."""
    try:
        return _evaluate(context, services)
    except Exception as error:
        _tell_error(services, error)
        raise


def _evaluate(context: dg.SensorEvaluationContext, services: Services) -> dg.SensorResult:
    cursor = Cursor.parse(context.cursor)
    standby, cursor = _standby(services, cursor)
    newest = _newest_tick(context.instance, cursor.tick)
    if newest is None:
        return _skip("no tick is complete yet", cursor)
    tick_id = newest.run_id
    if tick_id == cursor.tick:
        return _skip(f"tick {tick_id[:8]} was judged already", cursor)
    cursor = replace(cursor, tick=tick_id)
    try:
        tick = load_tick(services.snapshots, tick_id)
        require_one_fresh_tick(tick.snapshots, now=datetime.now(timezone.utc))
    except (SnapshotMissing, NotNow) as error:
        return _skip(f"tick {tick_id[:8]} causes no repair: {error}", cursor)

    assessment = assess(services, tick)
    _beat(services, assessment)
    judgement, events = assessment.judgement, _events(tick, assessment.judgement)
    counts = {source: cursor.unobserved.get(source, 0) + 1 for source in tick.unobserved}
    drift = _mark_new_drift(context.instance, tick_id, judgement, before=cursor.drift)
    cursor = replace(cursor, unobserved=counts, drift=drift)
    if standby is None:
        # Two that look at one platform would count it twice.
        _count(services, tick, judgement)
    why_not = standby or _busy(context.instance, tick)
    if why_not:
        return _skip(f"tick {tick_id[:8]}: {why_not}", cursor, events)
    launch = ask(services, assessment, unobserved_ticks=counts, redis_lost_since=cursor.redis_lost)
    lost = assessment.open_incidents is None
    cursor = replace(cursor, redis_lost=(cursor.redis_lost or time.time()) if lost else None)
    if not launch:
        return _skip(_verdict(tick, judgement), cursor, events)
    return dg.SensorResult(
        run_requests=[_request(newest, launch, live=services.settings.live)],
        cursor=cursor.dump(),
        asset_events=events,
    )


def _mark_new_drift(
    instance: dg.DagsterInstance, tick_id: str, judgement: Judgement, *, before: str
) -> str:
    """Marks the tick's run to be kept when it shows another drift than the last that was seen.

    Drift that stays for weeks, or is out of sight now and then, marks one tick and not all.

    Returns:
        Fingerprint of the last drift that was seen.
    """
    found = judgement.fingerprint()
    if not found or found == before:
        return before
    instance.add_run_tags(tick_id, {EVENTFUL_TAG: NEW_DRIFT})
    return found


def _newest_tick(instance: dg.DagsterInstance, judged: str) -> dg.DagsterRun | None:
    """The newest complete tick; one that is near, or under way, is waited for a while."""
    give_up = time.monotonic() + WAIT_SECONDS
    while True:
        found = instance.get_runs(
            dg.RunsFilter(job_name=OBSERVE, statuses=[dg.DagsterRunStatus.SUCCESS]), limit=1
        )
        newest = found[0] if found else None
        if newest is not None and newest.run_id != judged:
            return newest
        if time.monotonic() >= give_up or not _tick_is_near(instance):
            return newest
        time.sleep(_PAUSE)


def _tick_is_near(instance: dg.DagsterInstance) -> bool:
    """Whether a tick is under way, or begins before the next look."""
    second = time.time() % 60
    if second >= 60 - LOOK_SECONDS or second < _START_SECONDS:
        return True
    under_way = dg.RunsFilter(job_name=OBSERVE, statuses=UNFINISHED)
    return bool(instance.get_runs(under_way, limit=1))


def _tell_error(services: Services, error: Exception) -> None:
    """Dagster shows a sensor's error in its UI only; nobody looks there at night."""
    message = sensor_failed(f"{type(error).__name__}: {error}")
    try:
        tell_failing(services, DRIFT_SENSOR_FAILED, message)
    except Exception:  # noqa: BLE001 - the error itself is what must be raised
        _log.exception("the sensor's error could not be told")


def _standby(services: Services, cursor: Cursor) -> tuple[str | None, Cursor]:
    """Why another deployment decides, and what is remembered of that.

    Without Redis nobody is known to lead. Who led a moment ago sees that too and tells it, unless
    it is gone as well: two lease times later the others go on. Who told it and no longer leads
    leaves it to the new leader to tell that it is over; a leader that stayed tells that anyway.
    """
    now = time.time()
    try:
        leader = services.leadership.take()
        if leader is None:
            return None, replace(cursor, stood_by=None)
        if cursor.redis_lost is not None and leader.since > cursor.redis_lost:
            hand_on_redis_lost(services, since=cursor.redis_lost)
    except RedisUnavailable:
        before = cursor.stood_by
        patience = 2 * services.settings.zlh_lease_seconds
        waits = before is not None and 0 <= now - before < patience
        return "standby, and Redis does not answer" if waits else None, cursor
    reason = f"standby, the leader is {leader.name}"
    return reason, replace(cursor, stood_by=now, redis_lost=None)


def _beat(services: Services, assessment: Assessment) -> None:
    """Notes a good tick and calls the dead man's switch, which no repair waits for.

    While Redis is away no tick is good, for nothing could be repaired.
    """
    if assessment.redis_lost is not None or why_not_good(assessment.tick) is not None:
        return
    with suppress(RedisUnavailable):
        services.pulse.note(time.time())
        if services.settings.zlh_heartbeat_url is not None:
            url = services.settings.zlh_heartbeat_url.get_secret_value()
            threading.Thread(
                target=call_heartbeat, args=(url,), name=HEARTBEAT, daemon=True
            ).start()


def _count(services: Services, tick: Tick, judgement: Judgement) -> None:
    try:
        services.figures.count(tick, judgement.drift, now=datetime.now(timezone.utc))
    except RedisUnavailable:
        # The launch that follows finds the same, and tells it.
        return


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
    found = instance.get_run_records(dg.RunsFilter(job_name=LEVEL1_REPAIR), limit=1)
    last = found[0] if found else None
    if last is None or last.end_time is None:
        return None
    before = tick.taken_at.timestamp() < last.end_time
    if last.end_time > time.time() + AHEAD_SECONDS:
        # The clock was set back since: which came first is told by the order of the records.
        mine = instance.get_run_record_by_id(tick.desired.tick)
        before = mine is None or mine.storage_id < last.storage_id
    if before:
        return "it was observed before the last repair run ended; the next tick decides"
    return None


def _verdict(tick: Tick, judgement: Judgement) -> str:
    seen = [surface.value for surface, snap in tick.surfaces.items() if snap.observed]
    text = (
        f"tick {tick.desired.tick[:8]}: {judgement.compared} records compared on"
        f" {', '.join(seen) or 'no surface'}, {len(judgement.drift)} drifting"
    )
    if len(judgement.drift):
        text += f", {judgement.decisions.held} of them held, the rest told before"
    kept = {refusal.message for _, refusal in judgement.decisions.kept_back}
    if kept:
        text += f"; kept back: {'; '.join(sorted(kept)[:3])}"
    if tick.unobserved:
        text += f"; not seen: {', '.join(sorted(tick.unobserved))}"
    return text


def _request(tick: dg.DagsterRun, launch: Launch, *, live: bool) -> dg.RunRequest:
    told = launch.incidents
    incidents = [*(finding.incident for finding in told.opened), *told.due, *told.over]
    servers = [str(r.vmid) if r.vmid is not None else r.subject for r in launch.repairs]
    return dg.RunRequest(
        run_key=tick.run_id,
        run_config=run_config(launch, live=live, decided_at=time.time()),
        tags={
            "zlh/tick": tick.tags.get("zlh/tick", tick.run_id),
            TICK_RUN_TAG: tick.run_id,
            "zlh/mode": "live" if live else "dry-run",
            "zlh/vmid": _first_five(list(dict.fromkeys(servers))),
            "zlh/incident": _first_five(incidents),
            REQUESTED_BY_TAG: CONTROLLER,
        },
    )


def _first_five(names: list[str]) -> str:
    more = len(names) - 5
    return (",".join(names[:5]) + (f" and {more} more" if more > 0 else "")) or "none"
