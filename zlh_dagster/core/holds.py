"""What keeps repairs back: the operator's pauses, and open breakers."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from datetime import datetime, timezone
from typing import Any

from zlh_dagster.core.breaker import Breaker, State, server_breaker, surface_breaker
from zlh_dagster.core.model import Surface
from zlh_dagster.core.repair import (
    BREAKER_OPEN,
    BY_BREAKER,
    SURFACE_BREAKER_OPEN,
    Finding,
    Refusal,
)
from zlh_dagster.core.rules import Severity

EVERYTHING = "everything"
PAUSED = "paused"
HELD = BY_BREAKER | {PAUSED}
"""Codes of what keeps a repair back and is no failure of it."""


@dataclass(frozen=True, slots=True)
class Pause:
    """The operator's stop; times are seconds since the epoch.

    Attributes:
        scope: ``everything``, ``surface:NAME`` or ``server:VMID``.
        reason: Why, always there.
        since: When it began.
        until: When it ends by itself, or null.
    """

    scope: str
    reason: str
    since: float
    until: float | None = None

    def on(self, now: float) -> bool:
        return self.until is None or not now >= self.until

    def describe(self) -> str:
        """``paused until 18:30 UTC: reason``, for people."""
        end = "" if self.until is None else f" until {clock(self.until)}"
        return f"paused{end}: {self.reason}"

    def to_json(self) -> dict[str, Any]:
        return {"reason": self.reason, "since": self.since, "until": self.until}

    @staticmethod
    def from_json(scope: str, value: dict[str, Any]) -> "Pause":
        """Reads a pause; one that cannot be read is a pause all the same."""
        until = value.get("until")
        try:
            return Pause(
                scope,
                str(value.get("reason", "no reason known")),
                float(value.get("since", 0.0)),
                None if until is None else float(until),
            )
        except (TypeError, ValueError, OverflowError):
            return Pause(scope, "cannot be read; zlh resume ends it", 0.0)


@dataclass(frozen=True, slots=True)
class Holds:
    """All pauses and breakers at one moment."""

    now: float
    pauses: Mapping[str, Pause] = field(default_factory=dict)
    breakers: Mapping[str, Breaker] = field(default_factory=dict)
    approved: frozenset[str] = frozenset()
    """Incidents that the operator has approved for one batch."""

    def surface(self, surface: Surface) -> Refusal | None:
        """Why nothing may be written to a surface, or ``None``; half-open lets a trial through."""
        pause = self._pause(surface_scope(surface.value))
        if pause is not None:
            return Refusal(PAUSED, f"{surface.value} is {pause.describe()}")
        breaker = self.breakers.get(surface_breaker(surface.value))
        if breaker is not None and breaker.state(self.now) is State.OPEN:
            return Refusal(SURFACE_BREAKER_OPEN, f"{surface.value}: {describe(breaker)}")
        return None

    def on_trial(self, surface: Surface) -> bool:
        """Whether the surface's breaker is half-open."""
        breaker = self.breakers.get(surface_breaker(surface.value))
        return breaker is not None and breaker.state(self.now) is State.HALF_OPEN

    def server(self, vmid: int | None) -> Refusal | None:
        """Why nothing may be done for a server, or ``None``."""
        everything = self._pause(EVERYTHING)
        if everything is not None:
            return Refusal(PAUSED, f"repairs are {everything.describe()}; zlh resume ends it")
        if vmid is None:
            return None
        pause = self._pause(server_scope(vmid))
        if pause is not None:
            return Refusal(
                PAUSED, f"server {vmid} is {pause.describe()}; zlh resume --vmid {vmid} ends it"
            )
        breaker = self.breakers.get(server_breaker(vmid))
        if breaker is not None and breaker.state(self.now) is State.OPEN:
            return Refusal(BREAKER_OPEN, f"server {vmid}: {describe(breaker)}")
        return None

    def findings(self) -> Iterable[Finding]:
        """What the operator is told of: each pause and each open breaker, while it lasts."""
        for scope, pause in sorted(self.pauses.items()):
            if pause.on(self.now):
                yield Finding(
                    incident=f"{PAUSED}:{scope}",
                    severity=Severity.INFO,
                    title=f"Repairs {pause.describe()}"
                    if scope == EVERYTHING
                    else f"{scope.replace(':', ' ')} {pause.describe()}",
                    text="Observation goes on. To end it: " + resume_command(scope),
                )
        for name, breaker in sorted(self.breakers.items()):
            if breaker.state(self.now) is State.OPEN:
                yield breaker_finding(name, breaker)

    def _pause(self, scope: str) -> Pause | None:
        pause = self.pauses.get(scope)
        return pause if pause is not None and pause.on(self.now) else None


NOTHING_HELD = Holds(0.0)


def surface_scope(surface: str) -> str:
    """Scope of a pause of one surface."""
    return f"surface:{surface}"


def server_scope(vmid: int | None) -> str:
    """Scope of a pause of one server."""
    return f"server:{vmid}"


def breaker_incident(name: str) -> str:
    """Name of the incident of an open breaker."""
    return f"breaker:{name}"


def breaker_finding(name: str, breaker: Breaker) -> Finding:
    """The incident of an open breaker."""
    why = describe(breaker)
    return Finding(
        incident=breaker_incident(name),
        severity=Severity.CRITICAL,
        title=f"Breaker open: {name.replace(':', ' ')}",
        text=f"{why[:1].upper()}{why[1:]}. To close it at once: zlh breakers reset {name}",
    )


def describe(breaker: Breaker) -> str:
    """``open until 18:30 UTC after 5 failures: reason``, for people."""
    until = "" if breaker.until is None else f" until {clock(breaker.until)}"
    failures = f" after {breaker.failures} failures in a row" if breaker.failures > 1 else ""
    return f"the breaker is open{until}{failures}: {breaker.reason}"


def resume_command(scope: str) -> str:
    """The command that ends a pause."""
    kind, _, name = scope.partition(":")
    option = {"surface": f" --surface {name}", "server": f" --vmid {name}"}.get(kind, "")
    return f"zlh resume{option}"


def clock(seconds: float) -> str:
    """A time of day in UTC, with the date when it is not today's to everybody."""
    try:
        return datetime.fromtimestamp(seconds, timezone.utc).strftime("%d %b %H:%M UTC")
    except (ValueError, OverflowError, OSError):
        return "the end of all calendars"
