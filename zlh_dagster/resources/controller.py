"""One complete tick: judged, and turned into at most one batch. Needs no Dagster."""

import time
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass, replace

from zlh_dagster.core.holds import NOTHING_HELD, Holds
from zlh_dagster.core.incidents import Changes, Incident
from zlh_dagster.core.judge import Judgement, Tick, judge
from zlh_dagster.core.launch import Launch, choose
from zlh_dagster.core.repair import Finding
from zlh_dagster.core.rules import RULES, Kind, Severity
from zlh_dagster.core.snapshot import Outcome
from zlh_dagster.resources.database import DatabaseError
from zlh_dagster.resources.redis import RedisUnavailable
from zlh_dagster.resources.services import Services

REDIS_LOST = "redis_lost"
_REDIS_LOST = Incident(REDIS_LOST, Severity.CRITICAL, "Redis does not answer: nothing is repaired")


@dataclass(frozen=True, slots=True)
class Assessment:
    """A tick judged against what is paused, open and approved.

    Attributes:
        holds: Pauses, breakers and approvals.
        open_incidents: What is open; null when Redis did not answer.
        redis_lost: What Redis' failure was, or null. Pauses are then those that the database keeps.
        pauses_known: Whether at least those are known.
    """

    tick: Tick
    judgement: Judgement
    holds: Holds
    open_incidents: Mapping[str, Incident] | None
    redis_lost: str | None
    pauses_known: bool = True


def assess(services: Services, tick: Tick, *, recall: bool = False) -> Assessment:
    """Judges a tick; a Redis that does not answer costs the decisions, not the judgement.

    Args:
        services: The outside systems.
        tick: What was observed.
        recall: Whether pauses that the database alone keeps hold already. Whoever observed with a
            tick of the loop has given them back to Redis before.
    """
    settings = services.settings
    holds, open_incidents, lost, pauses_known = NOTHING_HELD, None, None, True
    try:
        holds = services.gate.holds()
        if recall:
            with suppress(DatabaseError):
                holds = replace(holds, pauses=services.gate.known_pauses())
        open_incidents = services.incidents.all_open()
    except RedisUnavailable as error:
        lost = str(error)
        try:
            holds = Holds(time.time(), services.gate.kept_pauses())
        except DatabaseError:
            pauses_known = False
    judgement = judge(
        tick,
        edge=settings.edge,
        policy=settings.policy,
        holds=holds,
        level2=settings.zlh_level2_actions,
    )
    return Assessment(tick, judgement, holds, open_incidents, lost, pauses_known)


def ask(
    services: Services,
    assessment: Assessment,
    *,
    unobserved_ticks: Mapping[str, int],
    redis_lost_since: float | None,
) -> Launch:
    """What to ask for now; keeps what became of the incidents, uses up approvals of nothing.

    Args:
        services: The outside systems.
        assessment: The tick.
        unobserved_ticks: Ticks in a row in which each source was not seen.
        redis_lost_since: Since when the operator knows that Redis does not answer, seconds since
            the epoch; null while it did.
    """
    settings, tick = services.settings, assessment.tick
    if assessment.open_incidents is None:
        return _without_redis(assessment.redis_lost or "", told=redis_lost_since is not None)
    decisions = replace(
        assessment.judgement.decisions,
        findings=(
            *assessment.judgement.decisions.findings,
            *assessment.holds.findings(),
            *_unobserved(tick, unobserved_ticks, settings.zlh_surface_failures_to_open),
        ),
    )
    now = time.time()
    launch = choose(
        decisions,
        open_incidents=assessment.open_incidents,
        unseen=_unseen(tick),
        live=settings.live,
        now=now,
    )
    try:
        services.incidents.note(launch.incidents, now=now)
        if launch.repairs:
            launch = replace(launch, approvals=tuple(_spent(assessment)))
        else:
            services.gate.spend(_spent(assessment))
        if redis_lost_since is not None:
            # Kept only now, for the run that tells that it is over.
            hand_on_redis_lost(services, since=redis_lost_since)
            over = (*launch.incidents.over, REDIS_LOST)
            launch = replace(launch, incidents=replace(launch.incidents, over=over))
    except RedisUnavailable as error:
        return _without_redis(str(error), told=redis_lost_since is not None)
    return launch


def hand_on_redis_lost(services: Services, *, since: float) -> None:
    """Leaves it to the leader to tell that Redis answers again, which this deployment told.

    Args:
        services: The outside systems.
        since: When the operator was told, seconds since the epoch.

    Raises:
        RedisUnavailable: If Redis does not answer.
    """
    services.incidents.open(replace(_REDIS_LOST, opened_at=since))


def _unseen(tick: Tick) -> set[str]:
    """Sources that were not seen; without the platform's rows nothing was compared at all."""
    if not tick.payloads.observed:
        return {snapshot.source for snapshot in tick.sources}
    return {s.source for s in tick.sources if s.outcome is Outcome.UNOBSERVED}


def _spent(assessment: Assessment) -> list[str]:
    """Approvals that this tick uses up: their surface was seen and not held, whatever it showed."""
    holds, tick = assessment.holds, assessment.tick
    seen = {s.value for s, snap in tick.surfaces.items() if snap.observed and not holds.surface(s)}
    if not tick.payloads.observed or holds.server(None) is not None:
        return []
    return [name for name in assessment.holds.approved if name.partition(":")[2] in seen]


def _unobserved(tick: Tick, counts: Mapping[str, int], limit: int) -> tuple[Finding, ...]:
    return tuple(
        Finding(
            incident=f"{Kind.UNOBSERVED.value}:{source}",
            severity=RULES[Kind.UNOBSERVED].message,
            title=f"{source.replace('_', ' ')}: not seen for {limit} ticks",
            text=f"{reason}. Nothing there is repaired until it can be read again.",
        )
        for source, reason in sorted(tick.unobserved.items())
        if counts.get(source, 0) >= limit
    )


def _without_redis(error: str, *, told: bool) -> Launch:
    """Without Redis nothing is repaired; a run without repairs is what tells the operator, once."""
    if told:
        return Launch()
    finding = Finding(REDIS_LOST, _REDIS_LOST.severity, _REDIS_LOST.title, error)
    return Launch(incidents=Changes(opened=(finding,)))
