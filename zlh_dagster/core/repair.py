"""Repairs as values: what was asked for and what came of it."""

from dataclasses import dataclass, field
from enum import Enum
from typing import Any

from zlh_dagster.core.model import Action, Surface


class Status(str, Enum):
    """How a repair stands in the ledger."""

    RUNNING = "running"
    SUCCEEDED = "succeeded"
    FAILED = "failed"
    REFUSED = "refused"
    DRY_RUN = "dry_run"
    INTERRUPTED = "interrupted"


class Severity(str, Enum):
    """Which channel a message goes to."""

    CRITICAL = "critical"
    WARNING = "warning"
    REPAIR = "repair"
    INFO = "info"


@dataclass(frozen=True, slots=True)
class Finding:
    """Something that is not repaired but told: recorded and reported once as an incident.

    Attributes:
        incident: Stable name of the incident, the same at every tick while it lasts.
        severity: Channel of the message.
        title: A few words.
        text: What was found, why nothing was done, what the operator can do.
        action: The repair that was refused, where there is one.
    """

    incident: str
    severity: Severity
    title: str
    text: str
    action: Action | None = None
    vmid: int | None = None
    surface: Surface | None = None

    def to_json(self) -> dict[str, Any]:
        return {
            "incident": self.incident,
            "severity": self.severity.value,
            "title": self.title,
            "text": self.text,
            "action": self.action.value if self.action else None,
            "vmid": self.vmid,
            "surface": self.surface.value if self.surface else None,
        }

    @staticmethod
    def from_json(value: dict[str, Any]) -> "Finding":
        action, surface = value.get("action"), value.get("surface")
        return Finding(
            incident=value["incident"],
            severity=Severity(value["severity"]),
            title=value["title"],
            text=value["text"],
            action=Action(action) if action else None,
            vmid=value.get("vmid"),
            surface=Surface(surface) if surface else None,
        )


@dataclass(frozen=True, slots=True)
class RepairRequest:
    """One repair of one server; without ``surfaces``, all that the action covers and are on."""

    vmid: int
    action: Action
    surfaces: tuple[Surface, ...] | None = None

    @property
    def dry_run_incident(self) -> str:
        """Name under which a dry run is told once."""
        return f"dry_run:{self.vmid}:{self.action.value}"

    @property
    def refusal_incident(self) -> str:
        """Name under which a refusal is told once."""
        return f"refused:{self.vmid}:{self.action.value}"

    @property
    def incidents(self) -> tuple[str, str]:
        """All names that this request can open."""
        return (self.dry_run_incident, self.refusal_incident)

    @property
    def covers(self) -> tuple[Surface, ...]:
        """The surfaces that this repair may write to."""
        if self.surfaces is None:
            return self.action.surfaces
        return tuple(s for s in self.action.surfaces if s in self.surfaces)


@dataclass(frozen=True, slots=True)
class RepairOutcome:
    """What came of one request; ``event_id`` names its ledger row where one was written."""

    vmid: int
    action: Action
    status: Status | None
    reason: str
    changes: tuple[str, ...] = ()
    event_id: str | None = None
    is_news: bool = True
    """Whether it is told: a repeated refusal of a lasting incident is not."""

    def to_json(self) -> dict[str, Any]:
        return {
            "vmid": self.vmid,
            "action": self.action.value,
            "status": self.status.value if self.status else None,
            "reason": self.reason,
            "changes": list(self.changes),
            "event_id": self.event_id,
            "is_news": self.is_news,
        }

    @staticmethod
    def from_json(value: dict[str, Any]) -> "RepairOutcome":
        return RepairOutcome(
            vmid=value["vmid"],
            action=Action(value["action"]),
            status=Status(value["status"]) if value["status"] else None,
            reason=value["reason"],
            changes=tuple(value["changes"]),
            event_id=value["event_id"],
            is_news=value["is_news"],
        )


@dataclass(frozen=True, slots=True)
class BatchResult:
    """What one repair run did.

    Attributes:
        outcomes: One for each request, in order.
        findings: What was newly recorded without repair.
        interrupted: Ledger rows of earlier runs that this one had to close.
        live: Whether writes were allowed.
        seconds: From the start of the batch to the last verification.
        writes: Calls made to write to the edge.
    """

    outcomes: tuple[RepairOutcome, ...] = ()
    findings: tuple[Finding, ...] = ()
    interrupted: tuple[str, ...] = ()
    live: bool = False
    seconds: float = 0.0
    writes: int = 0

    def with_status(self, status: Status) -> tuple[RepairOutcome, ...]:
        return tuple(o for o in self.outcomes if o.status is status)

    def to_json(self) -> dict[str, Any]:
        return {
            "outcomes": [o.to_json() for o in self.outcomes],
            "findings": [f.to_json() for f in self.findings],
            "interrupted": list(self.interrupted),
            "live": self.live,
            "seconds": self.seconds,
            "writes": self.writes,
        }

    @staticmethod
    def from_json(value: dict[str, Any]) -> "BatchResult":
        return BatchResult(
            outcomes=tuple(RepairOutcome.from_json(o) for o in value["outcomes"]),
            findings=tuple(Finding.from_json(f) for f in value["findings"]),
            interrupted=tuple(value["interrupted"]),
            live=value["live"],
            seconds=value["seconds"],
            writes=value["writes"],
        )


@dataclass(frozen=True, slots=True)
class Decisions:
    """What the policy makes of one tick."""

    repairs: tuple[RepairRequest, ...] = ()
    findings: tuple[Finding, ...] = ()
    held: int = 0
    """Drifts of servers that are guarded (suspended, in maintenance, …)."""

    reasons: dict[int, str] = field(default_factory=dict)
    """Why each repair is asked for, by VMID."""
