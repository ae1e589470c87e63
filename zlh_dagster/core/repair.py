"""Repairs as values: what was asked for and what came of it."""

from dataclasses import dataclass
from enum import Enum
from typing import Any

from zlh_dagster.core.model import EDGE_ACTIONS, Action, Surface
from zlh_dagster.core.rules import Severity

BREAKER_OPEN = "breaker_open"
SURFACE_BREAKER_OPEN = "surface_breaker_open"
OPERATOR, CONTROLLER = "operator", "controller"
"""Who asks for repairs."""

NOT_PAUSED = "not_paused"
"""Of a revert that succeeded: its server is not paused, or only in Redis; the loop may undo it."""
BY_BREAKER = frozenset({BREAKER_OPEN, SURFACE_BREAKER_OPEN})
"""Codes of refusals by a breaker."""


class Status(str, Enum):
    """How a repair stands in the ledger."""

    RUNNING = "running"
    SUCCEEDED = "succeeded"
    FAILED = "failed"
    REFUSED = "refused"
    DRY_RUN = "dry_run"
    INTERRUPTED = "interrupted"


@dataclass(frozen=True, slots=True)
class Refusal:
    """Why a repair was not carried out: a code for programs, a sentence for people."""

    code: str
    message: str

    def to_json(self) -> dict[str, str]:
        return {"code": self.code, "message": self.message}


@dataclass(frozen=True, slots=True)
class Finding:
    """Something that is not repaired but told: recorded and reported once as an incident.

    Attributes:
        incident: Stable name of the incident, the same at every tick while it lasts; begins with
            its kind.
        severity: Channel of the message.
        title: A few words.
        text: What was found, why nothing was done, what the operator can do.
        action: The repair that was refused or is recommended, where there is one.
        sources: Sources that must be seen before the incident can be taken for over.
    """

    incident: str
    severity: Severity
    title: str
    text: str
    action: Action | None = None
    vmid: int | None = None
    surface: Surface | None = None
    sources: tuple[str, ...] = ()

    @property
    def kind(self) -> str:
        """What the incident is about, for grouping."""
        return self.incident.partition(":")[0]

    def to_json(self) -> dict[str, Any]:
        return {
            "incident": self.incident,
            "severity": self.severity.value,
            "title": self.title,
            "text": self.text,
            "action": self.action.value if self.action else None,
            "vmid": self.vmid,
            "surface": self.surface.value if self.surface else None,
            "sources": list(self.sources),
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
            sources=tuple(value.get("sources") or ()),
        )


@dataclass(frozen=True, slots=True)
class RepairRequest:
    """One repair.

    Attributes:
        vmid: The server; null only for an operation that never got a VMID.
        action: What to do.
        surfaces: Where; all that the action covers when null.
        target: Identifier of the operation, or of the ledger row to revert, where the action has
            one.
        reason: Why it is asked for, for the ledger.
    """

    vmid: int | None
    action: Action
    surfaces: tuple[Surface, ...] | None = None
    target: str | None = None
    reason: str = ""

    @property
    def subject(self) -> str:
        """What the repair is about: an operation or ledger row, else a server."""
        return self.target or str(self.vmid)

    @property
    def dry_run_incident(self) -> str:
        """Name under which a dry run is told once."""
        return f"dry_run:{self.subject}:{self.action.value}"

    @property
    def refusal_incident(self) -> str:
        """Name under which a refusal is told once."""
        return f"refused:{self._fault}"

    @property
    def failure_incident(self) -> str:
        """Name under which failures are told once while they last."""
        return f"failed:{self._fault}"

    @property
    def _fault(self) -> str:
        """What stays the same while a fault lasts: the edge's action narrows as it is mended."""
        what = "edge" if self.action in EDGE_ACTIONS else self.action.value
        return f"{self.subject}:{what}"

    @property
    def incidents(self) -> tuple[str, ...]:
        """All names that this request can open."""
        return (self.dry_run_incident, self.refusal_incident, self.failure_incident)

    @property
    def covers(self) -> tuple[Surface, ...]:
        """The surfaces that this repair may write to."""
        if self.surfaces is None:
            return self.action.surfaces
        return tuple(s for s in self.action.surfaces if s in self.surfaces)


@dataclass(frozen=True, slots=True)
class RepairOutcome:
    """What came of one request; ``event_id`` names its ledger row where one was written.

    Attributes:
        code: Why it was refused or failed, or what is missing although it succeeded, for programs.
        incident: The incident that this outcome opens, where it does.
        is_news: Whether it is told: what repeats within a lasting incident is not.
    """

    request: RepairRequest
    status: Status | None
    reason: str
    changes: tuple[str, ...] = ()
    event_id: str | None = None
    code: str = ""
    incident: str | None = None
    is_news: bool = True

    @property
    def vmid(self) -> int | None:
        return self.request.vmid

    @property
    def action(self) -> Action:
        return self.request.action

    @property
    def name(self) -> str:
        """What it is about, for people: the server, else the operation."""
        return str(self.vmid) if self.vmid is not None else f"operation {self.request.subject}"

    @property
    def escalated(self) -> bool:
        """Whether it failed or a breaker refused it: the operator is called, not only told."""
        return self.status is Status.FAILED or self.code in BY_BREAKER

    def to_json(self) -> dict[str, Any]:
        return {
            "vmid": self.vmid,
            "action": self.action.value,
            "target": self.request.target,
            "status": self.status.value if self.status else None,
            "reason": self.reason,
            "changes": list(self.changes),
            "event_id": self.event_id,
            "code": self.code,
            "incident": self.incident,
            "is_news": self.is_news,
        }

    @staticmethod
    def from_json(value: dict[str, Any]) -> "RepairOutcome":
        return RepairOutcome(
            request=RepairRequest(
                value["vmid"], Action(value["action"]), target=value.get("target")
            ),
            status=Status(value["status"]) if value["status"] else None,
            reason=value["reason"],
            changes=tuple(value["changes"]),
            event_id=value["event_id"],
            code=value.get("code", ""),
            incident=value.get("incident"),
            is_news=value["is_news"],
        )


@dataclass(frozen=True, slots=True)
class Decisions:
    """What the policy makes of one tick.

    Attributes:
        repairs: What to ask for.
        findings: What to tell.
        kept_back: What a pause or an open breaker keeps from being asked for, and why.
        held: Drifts of servers that are guarded (suspended, in maintenance, …).
        lasting: Repairs of which a guard, mass drift or a surface's pause or breaker holds back a
            part or all, as they would be asked for without: what was told of them is not over.
    """

    repairs: tuple[RepairRequest, ...] = ()
    findings: tuple[Finding, ...] = ()
    kept_back: tuple[tuple[RepairRequest, Refusal], ...] = ()
    held: int = 0
    lasting: tuple[RepairRequest, ...] = ()
