"""The life of an incident: opened, reminded of, over. Values only.

An incident is over when two ticks in a row that could see its sources no longer find it: something
that flickers makes one message, not one a minute.
"""

import math
from collections.abc import Collection, Iterable, Mapping
from dataclasses import asdict, dataclass
from typing import Any

from zlh_dagster.core.repair import Finding
from zlh_dagster.core.rules import Severity

RETRY_SECONDS = 600.0
"""How long a refused or failed repair is not asked for again, where haste gains nothing."""

RETELL_SECONDS = 300.0
"""How long after Discord did not take a message what it told is told again."""

REMINDERS = (3600.0, 6 * 3600.0, 24 * 3600.0)
"""Seconds after the opening at which an incident that lasts is told again."""


@dataclass(frozen=True, slots=True)
class Incident:
    """An open incident; times are seconds since the epoch.

    Attributes:
        name: The same while it lasts.
        severity: Channel of its messages.
        title: A few words.
        text: What was found.
        opened_at: When.
        sources: Sources that must be seen before it can be over.
        reminded: Reminders sent so far.
        absent_since: When a tick first did not find it any more, or null.
        message: Identifier of the message that told it, or null.
        worse: Identifier of the message that told that it became worse, or null.
        tried_at: When the repair that it is about was last asked for, or null: when it opened.
        untold_at: When Discord did not take the last message about it, or null.
        code: Why a repair was last refused, for programs; empty where it is no refusal.
    """

    name: str
    severity: Severity
    title: str
    text: str = ""
    opened_at: float = 0.0
    sources: tuple[str, ...] = ()
    reminded: int = 0
    absent_since: float | None = None
    message: str | None = None
    tried_at: float | None = None
    untold_at: float | None = None
    worse: str | None = None
    code: str = ""

    @property
    def messages(self) -> tuple[str, ...]:
        """Identifiers of the messages that told it."""
        return tuple(message for message in (self.message, self.worse) if message)

    @property
    def kind(self) -> str:
        return self.name.partition(":")[0]

    @staticmethod
    def of(finding: Finding, *, now: float) -> "Incident":
        """The incident that a finding opens."""
        return Incident(
            name=finding.incident,
            severity=finding.severity,
            title=finding.title,
            text=finding.text,
            opened_at=now,
            sources=finding.sources,
        )

    def reminder_due(self, now: float) -> bool:
        """Whether the next reminder's time has come, or a message has to be told again."""
        if self.untold_at is not None:
            return not 0 <= now - self.untold_at < RETELL_SECONDS
        left = REMINDERS[self.reminded :]
        return bool(left) and now - self.opened_at >= left[0]

    def retry_due(self, now: float) -> bool:
        """Whether the repair that it is about may be asked for again."""
        last = self.opened_at if self.tried_at is None else self.tried_at
        return not 0 <= now - last < RETRY_SECONDS

    def reminders_until(self, now: float) -> int:
        """How many reminders' times have come; after a long silence one stands for all."""
        return sum(now - self.opened_at >= after for after in REMINDERS)

    def to_json(self) -> dict[str, Any]:
        value = asdict(self)
        value.pop("name")
        return {**value, "severity": self.severity.value, "sources": list(self.sources)}

    @staticmethod
    def from_json(name: str, value: Mapping[str, Any]) -> "Incident":
        """Reads an incident; one that cannot be read is open all the same."""
        title, message, worse = (value.get(k) for k in ("title", "message", "worse"))
        absent_since, tried_at, untold_at = (
            value.get(k) for k in ("absent_since", "tried_at", "untold_at")
        )
        try:
            return Incident(
                name,
                Severity(value.get("severity", Severity.WARNING.value)),
                title=name if title is None else str(title),
                text=str(value.get("text") or ""),
                opened_at=_moment(value.get("opened_at")),
                sources=tuple(str(source) for source in value.get("sources") or ()),
                reminded=max(0, int(value.get("reminded") or 0)),
                absent_since=None if absent_since is None else float(absent_since),
                message=None if message is None else str(message),
                tried_at=None if tried_at is None else float(tried_at),
                untold_at=None if untold_at is None else float(untold_at),
                worse=None if worse is None else str(worse),
                code=str(value.get("code") or ""),
            )
        except (TypeError, ValueError, OverflowError):
            return Incident(name, Severity.WARNING, name)


def _moment(value: Any) -> float:
    """Seconds since the epoch; what is no moment was long ago."""
    seconds = float(value or 0.0)
    return seconds if math.isfinite(seconds) else 0.0


@dataclass(frozen=True, slots=True)
class Changes:
    """What a tick does to the open incidents.

    Attributes:
        opened: Findings that are new.
        due: Names of incidents to remind of.
        over: Names of incidents that are over.
        absent: Names that were not found for the first time.
        back: Names that were found again after that.
        tried: Names whose repair is asked for again.
    """

    opened: tuple[Finding, ...] = ()
    due: tuple[str, ...] = ()
    over: tuple[str, ...] = ()
    absent: tuple[str, ...] = ()
    back: tuple[str, ...] = ()
    tried: tuple[str, ...] = ()


def follow(
    open_incidents: Mapping[str, Incident],
    *,
    findings: Iterable[Finding],
    lasting: Collection[str],
    unseen: Collection[str],
    now: float,
) -> Changes:
    """Compares what is open with what a tick found.

    Args:
        open_incidents: What is open, by name.
        findings: What the tick found.
        lasting: Names that last without a finding, such as refusals of repairs still asked for.
        unseen: Sources that the tick could not see; their incidents are neither over nor absent.
        now: The time.
    """
    found = {finding.incident: finding for finding in findings}
    present = set(found) | set(lasting)
    over, absent, back, due = [], [], [], []
    for name, incident in sorted(open_incidents.items()):
        if name in present:
            if incident.absent_since is not None:
                back.append(name)
            if incident.reminder_due(now):
                due.append(name)
        elif set(incident.sources) & set(unseen):
            continue
        elif incident.absent_since is None:
            absent.append(name)
        else:
            over.append(name)
    return Changes(
        opened=tuple(f for name, f in found.items() if name not in open_incidents),
        due=tuple(due),
        over=tuple(over),
        absent=tuple(absent),
        back=tuple(back),
    )
