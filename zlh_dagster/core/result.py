"""What one repair run did, as a value that travels from the run to its messages."""

from dataclasses import dataclass
from typing import Any

from zlh_dagster.core.incidents import Incident
from zlh_dagster.core.repair import Finding, RepairOutcome, Status


@dataclass(frozen=True, slots=True)
class BatchResult:
    """What one repair run did.

    Attributes:
        outcomes: One for each request, in order.
        findings: What was newly recorded without repair.
        interrupted: Ledger rows of earlier runs that this one had to close.
        due: Incidents that are reminded of.
        over: Incidents that are over.
        approved: Open mass drifts that the operator let it repair.
        live: Whether writes were allowed.
        seconds: From the start of the batch to the last verification.
        writes: Calls made to write to the edge.
    """

    outcomes: tuple[RepairOutcome, ...] = ()
    findings: tuple[Finding, ...] = ()
    interrupted: tuple[str, ...] = ()
    due: tuple[Incident, ...] = ()
    over: tuple[Incident, ...] = ()
    approved: tuple[str, ...] = ()
    live: bool = False
    seconds: float = 0.0
    writes: int = 0

    @property
    def opened(self) -> tuple[str, ...]:
        """Names of the incidents that this run was the first to tell."""
        by_outcomes = [o.incident for o in self.outcomes if o.incident and o.is_news]
        return (*by_outcomes, *(finding.incident for finding in self.findings))

    def with_status(self, status: Status) -> tuple[RepairOutcome, ...]:
        return tuple(o for o in self.outcomes if o.status is status)

    def to_json(self) -> dict[str, Any]:
        return {
            "outcomes": [o.to_json() for o in self.outcomes],
            "findings": [f.to_json() for f in self.findings],
            "interrupted": list(self.interrupted),
            "due": [{"name": i.name, **i.to_json()} for i in self.due],
            "over": [{"name": i.name, **i.to_json()} for i in self.over],
            "approved": list(self.approved),
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
            due=tuple(Incident.from_json(i["name"], i) for i in value["due"]),
            over=tuple(Incident.from_json(i["name"], i) for i in value["over"]),
            approved=tuple(value.get("approved", ())),
            live=value["live"],
            seconds=value["seconds"],
            writes=value["writes"],
        )
