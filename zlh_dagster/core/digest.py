"""The daily digest: what a day was like, as one message."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from zlh_dagster.core import times
from zlh_dagster.core.breaker import Breaker, State
from zlh_dagster.core.holds import Pause, describe
from zlh_dagster.core.incidents import Incident
from zlh_dagster.core.messages import Message
from zlh_dagster.core.repair import Status
from zlh_dagster.core.rules import Severity

TICKS, DRIFTS, SEEN, ON = "ticks", "drifts", "seen:", "on:"
"""Names of the counts of a day; the last two stand before the name of a source."""

_LISTED = 6


@dataclass(frozen=True, slots=True)
class Day:
    """The numbers of one day.

    Attributes:
        ticks: Complete ticks that were judged.
        seen: Share of ticks, 0 to 1, in which each source that is on was seen.
        drifts: Drifts found, each counted once while it lasted.
        statuses: Ledger rows by status.
        longest: The longest repair in seconds, and its server; null when none was made.
    """

    ticks: int
    seen: Mapping[str, float]
    drifts: int
    statuses: Mapping[str, int]
    longest: tuple[float, str] | None

    @staticmethod
    def of(
        figures: Mapping[str, int],
        events: Iterable[Mapping[str, Any]],
    ) -> "Day":
        """Reads a day from its counts and its ledger rows.

        Args:
            figures: Counts by name: :data:`TICKS`, :data:`DRIFTS`, and for each source in how many
                ticks it was on (:data:`ON`) and seen (:data:`SEEN`).
            events: Ledger rows with ``vmid``, ``status``, ``createdAt``, ``finishedAt``.
        """
        seen = {}
        for name, count in sorted(figures.items()):
            source = name.removeprefix(ON)
            if source != name and count:
                seen[source] = figures.get(SEEN + source, 0) / count
        statuses: dict[str, int] = {}
        longest: tuple[float, str] | None = None
        for event in events:
            statuses[event["status"]] = statuses.get(event["status"], 0) + 1
            if event["status"] == Status.SUCCEEDED.value and event["finishedAt"] is not None:
                took = (event["finishedAt"] - event["createdAt"]).total_seconds()
                if longest is None or took > longest[0]:
                    longest = (took, str(event["vmid"] or event["action"]))
        return Day(figures.get(TICKS, 0), seen, figures.get(DRIFTS, 0), statuses, longest)


def digest_message(
    day: Day,
    *,
    start: datetime,
    end: datetime,
    incidents: Iterable[Incident],
    breakers: Mapping[str, Breaker],
    pauses: Iterable[Pause],
    now: float,
) -> Message:
    """The digest of a day, for the info channel.

    Args:
        day: Its numbers.
        start: When it began.
        end: When it ended.
        incidents: What is open now.
        breakers: All breakers, by name.
        pauses: Pauses that are on.
        now: Seconds since the epoch.
    """
    minutes = round((end - start).total_seconds() / 60)
    done = {status: day.statuses.get(status.value, 0) for status in Status}
    tripped = [
        f"{name}: {describe(b)}" for name, b in breakers.items() if b.state(now) is State.OPEN
    ]
    still = sorted(incidents, key=lambda incident: incident.opened_at)
    lines = [
        f"Ticks: {day.ticks} of {minutes}",
        "Seen: "
        + (", ".join(f"{n} {share_text(s)}" for n, s in day.seen.items()) or "nothing is on"),
        f"Drift found: {day.drifts}",
        f"Repaired: {done[Status.SUCCEEDED]}, failed: {done[Status.FAILED]},"
        f" refused: {done[Status.REFUSED]}, interrupted: {done[Status.INTERRUPTED]},"
        f" dry run: {done[Status.DRY_RUN]}",
        "Longest repair: "
        + ("none" if day.longest is None else f"{day.longest[0]:.1f} s ({day.longest[1]})"),
        f"Open incidents: {len(still)}",
        *(f"- {i.title}, for {times.words(now - i.opened_at)}" for i in still[:_LISTED]),
        "Breakers: " + ("; ".join(tripped[:_LISTED]) or "all closed"),
        *(f"{pause.scope.replace(':', ' ')}: {pause.describe()}" for pause in pauses),
    ]
    if len(still) > _LISTED:
        lines.insert(6 + _LISTED, f"- and {len(still) - _LISTED} more, see zlh status")
    return Message(
        severity=Severity.INFO,
        title=f"Digest: {_verdict(day, still, tripped)}",
        lines=tuple(lines),
        footer=f"{start:%d %b %H:%M} to {end:%d %b %H:%M} UTC",
        good=not still and not tripped and bool(day.ticks),
    )


def _verdict(day: Day, still: list[Incident], tripped: list[str]) -> str:
    if not day.ticks:
        return "no tick was judged"
    parts = [f"{day.statuses.get(Status.SUCCEEDED.value, 0)} repaired"]
    parts.append(f"{len(still)} open" if still else "nothing open")
    if tripped:
        parts.append(f"{len(tripped)} breakers open")
    return ", ".join(parts)


def share_text(share: float) -> str:
    """A share that is 100 % only when nothing was missed."""
    return f"{int(share * 1000) / 10:g} %"
