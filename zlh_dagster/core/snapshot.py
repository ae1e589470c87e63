"""One observation of one source at one tick, and when a set of them may be acted upon."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from enum import Enum

import pandas as pd

TICK_SECONDS = 60
"""Cadence of observation in seconds."""

MAX_AGE = timedelta(seconds=2 * TICK_SECONDS)
"""A snapshot older than two ticks causes no repair."""

AHEAD_SECONDS = 5.0
"""How far a time may be ahead of the clock, for the difference between two machines' clocks."""


class Outcome(str, Enum):
    """Whether a source was seen: a failure is never an empty list."""

    OBSERVED = "observed"
    UNOBSERVED = "unobserved"
    OFF = "off"


@dataclass(frozen=True, slots=True)
class Snapshot:
    """Rows of one source at one tick.

    Attributes:
        source: Name of the asset that took it.
        tick: Identifier of the tick; the same for all snapshots of one run.
        taken_at: When reading began, aware, UTC.
        outcome: Rows count only when it is ``observed``.
        reason: Why it is unobserved or off, for people; empty when observed.
        rows: Complete listing; without rows unless observed.
        requests: Calls made to the outside for it.
        seconds: How long the reading took.
        extra: Small facts that belong to it, as text.
    """

    source: str
    tick: str
    taken_at: datetime
    outcome: Outcome
    rows: pd.DataFrame
    reason: str = ""
    requests: int = 0
    seconds: float = 0.0
    extra: Mapping[str, str] = field(default_factory=dict)

    @property
    def observed(self) -> bool:
        return self.outcome is Outcome.OBSERVED


class NotNow(Exception):
    """A set of snapshots must cause no repair; the message says why."""


def require_one_fresh_tick(snapshots: Iterable[Snapshot], *, now: datetime) -> None:
    """Passes only when all snapshots are of one tick and none is older than two ticks.

    Raises:
        NotNow: If ticks are mixed, or one snapshot is too old or from the future.
    """
    taken = list(snapshots)
    ticks = sorted({s.tick for s in taken})
    if len(ticks) != 1:
        raise NotNow(f"snapshots of {len(ticks)} ticks ({', '.join(ticks)}) cannot be compared")
    for snapshot in taken:
        age = now - snapshot.taken_at
        if age > MAX_AGE:
            raise NotNow(
                f"{snapshot.source} was read {age.total_seconds():.0f} s ago, more than two ticks"
                f" ({MAX_AGE.total_seconds():.0f} s)"
            )
        if age < -MAX_AGE:
            raise NotNow(
                f"{snapshot.source} was read {-age.total_seconds():.0f} s in the future: the clock"
                " was set back"
            )
