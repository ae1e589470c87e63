"""What one repair run was asked to do, and what it writes into the ledger about it."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from zlh_dagster.core.breaker import server_breaker
from zlh_dagster.core.holds import breaker_incident
from zlh_dagster.core.incidents import Incident
from zlh_dagster.core.policy import sources_of
from zlh_dagster.core.repair import (
    BREAKER_OPEN,
    BY_BREAKER,
    OPERATOR,
    Finding,
    Refusal,
    RepairOutcome,
    RepairRequest,
    Status,
)
from zlh_dagster.core.rules import Severity
from zlh_dagster.resources.database import DatabaseError
from zlh_dagster.resources.ledger import Closing, Entry, Ledger


@dataclass(frozen=True, slots=True)
class Batch:
    """One batch; each subject at most once.

    Attributes:
        decided_at: When the controller decided it, seconds since the epoch; null by hand.
        due: Incidents to remind of.
        over: Incidents that are over.
        approvals: The operator's approvals that this batch uses up.
    """

    repairs: tuple[RepairRequest, ...]
    findings: tuple[Finding, ...]
    requested_by: str
    run_id: str
    live: bool
    fencing_token: int
    decided_at: float | None = None
    due: tuple[str, ...] = ()
    over: tuple[str, ...] = ()
    approvals: tuple[str, ...] = ()

    @property
    def by_hand(self) -> bool:
        return self.requested_by == OPERATOR

    def entry(self, request: RepairRequest, *, surface: str | None = None, **values: Any) -> Entry:
        """A ledger row for one request."""
        if surface is None and len(request.covers) == 1:
            surface = request.covers[0].value
        return Entry(
            action=request.action.value,
            level=request.action.level,
            reason=request.reason or f"{request.action.value} asked for by hand",
            requested_by=self.requested_by,
            run_id=self.run_id,
            fencing_token=self.fencing_token,
            vmid=request.vmid,
            surface=surface,
            **values,
        )


class Recorder:
    """Turns refusals, dry runs and failures into ledger rows, incidents and outcomes.

    What lasts is recorded and told once: at the first time, and always when asked for by hand.

    Args:
        batch: The batch.
        ledger: The repair ledger.
        open_incidents: What was open when the batch began.
    """

    def __init__(
        self, batch: Batch, ledger: Ledger, open_incidents: Mapping[str, Incident]
    ) -> None:
        self._batch = batch
        self._ledger = ledger
        self._open = open_incidents
        self.opened: list[Finding] = []
        self.changed: list[Finding] = []
        """Refusals that were open, and now have another reason."""
        self.codes: dict[str, str] = {}
        """Why repairs were refused, by incident."""

    def refuse(
        self, request: RepairRequest, refusal: Refusal, *, event_id: str | None = None
    ) -> RepairOutcome:
        """Records a refusal, unless ``event_id`` names the row that says so already."""
        incident = request.refusal_incident
        severity = Severity.CRITICAL if refusal.code in BY_BREAKER else Severity.WARNING
        if refusal.code == BREAKER_OPEN and self._batch.live and request.vmid is not None:
            # A dry run opens no breaker: no tick would find one.
            incident = breaker_incident(server_breaker(request.vmid))
        known = None if self._batch.by_hand else self._open.get(incident)
        news = known is None
        if known is None or known.code not in ("", refusal.code):
            if event_id is None:
                entry = self._batch.entry(request, error=refusal.to_json())
                event_id = self._ledger.record(entry, Status.REFUSED)
            title = f"{_name(request)}: repair refused: {request.action.words}"
            self.codes[incident] = refusal.code
            if known is None:
                self._opens(request, incident, severity, title, refusal.message)
            else:
                news = severity is Severity.CRITICAL and known.severity is not severity
                worst = severity if news else known.severity
                self.changed.append(Finding(incident, worst, title, refusal.message))
        return RepairOutcome(
            request=request,
            status=Status.REFUSED,
            reason=refusal.message,
            event_id=event_id,
            code=refusal.code,
            incident=None if self._batch.by_hand else incident,
            is_news=news,
        )

    def dry_run(
        self,
        request: RepairRequest,
        *,
        before: Any,
        after: Any,
        changes: tuple[str, ...],
        surface: str | None = None,
    ) -> RepairOutcome:
        """Records what would have been written."""
        incident = request.dry_run_incident
        event_id = None
        news = self._is_news(incident)
        if news:
            entry = self._batch.entry(request, surface=surface, before=before, after=after)
            event_id = self._ledger.record(entry, Status.DRY_RUN)
            title = f"{_name(request)}: would repair: {request.action.words}"
            self._opens(request, incident, Severity.REPAIR, title, "; ".join(changes))
        return RepairOutcome(
            request=request,
            status=Status.DRY_RUN,
            reason="",
            changes=changes,
            event_id=event_id,
            incident=None if self._batch.by_hand else incident,
            is_news=news,
        )

    def failed(
        self,
        request: RepairRequest,
        reason: str,
        *,
        code: str = "repair_failed",
        changes: tuple[str, ...] = (),
        event_id: str | None = None,
    ) -> RepairOutcome:
        """A failure, its ledger row closed already where there is one; told once while it lasts."""
        incident = request.failure_incident
        news = self._is_news(incident)
        if news:
            title = f"{_name(request)}: repair failed: {request.action.words}"
            self._opens(request, incident, Severity.CRITICAL, title, reason)
        return RepairOutcome(
            request=request,
            status=Status.FAILED,
            reason=reason,
            changes=changes,
            event_id=event_id,
            code=code,
            incident=None if self._batch.by_hand else incident,
            is_news=news,
        )

    def broken_off(self, request: RepairRequest, error: Exception) -> RepairOutcome:
        """A repair that an unexpected error ended; a row that it left open is closed as failed."""
        reason = f"an unexpected error ended it: {type(error).__name__}"
        detail = {"code": "repair_failed", "message": reason}
        event_id = None
        try:
            for event_id in self._ledger.left_open(self._batch.run_id):
                unclosed = self.close(event_id, Status.FAILED, error=detail)
                reason = "; ".join(filter(None, (reason, unclosed)))
        except DatabaseError as failure:
            reason = f"{reason}; its ledger row could not be closed: {failure}"
        return self.failed(request, reason, event_id=event_id)

    def close(
        self, event_id: str, status: Status, *, after: Any = None, error: Any = None
    ) -> str | None:
        """Closes a ledger row; returns why it could not be closed, or ``None``."""
        return self.close_all([Closing(event_id, status, after, error)]).get(event_id)

    def close_all(self, closings: Sequence[Closing]) -> dict[str, str]:
        """Closes ledger rows; returns why each could not be closed that was not."""
        try:
            closed = self._ledger.close_all(closings)
        except DatabaseError as failure:
            why = f"the ledger row could not be closed: {failure}"
            return {closing.event_id: why for closing in closings}
        lost = "another controller has taken over this repair"
        return {c.event_id: lost for c in closings if c.event_id not in closed}

    def finding(self, finding: Finding) -> bool:
        """Records a finding; returns whether it is news."""
        if finding.incident in self._open:
            return False
        if finding.action is not None:
            entry = Entry(
                action=finding.action.value,
                level=finding.action.level,
                reason=finding.title,
                requested_by=self._batch.requested_by,
                run_id=self._batch.run_id,
                fencing_token=self._batch.fencing_token,
                vmid=finding.vmid,
                surface=finding.surface.value if finding.surface else None,
                error={"code": finding.kind, "message": finding.text},
            )
            self._ledger.record(entry, Status.REFUSED)
        self.opened.append(finding)
        return True

    def _is_news(self, incident: str) -> bool:
        return self._batch.by_hand or incident not in self._open

    def _opens(
        self, request: RepairRequest, incident: str, severity: Severity, title: str, text: str
    ) -> None:
        if self._batch.by_hand:
            # The operator is looking; nothing lasts that a tick would have to find again.
            return
        self.opened.append(
            Finding(
                incident=incident,
                severity=severity,
                title=title,
                text=text,
                action=request.action,
                vmid=request.vmid,
                sources=sources_of(request),
            )
        )


def converged(request: RepairRequest, what: str = "the edge is as it should be") -> RepairOutcome:
    """Nothing is wrong any more."""
    return RepairOutcome(request=request, status=None, reason=f"nothing to do: {what}")


def _name(request: RepairRequest) -> str:
    if request.vmid is not None:
        return f"Server {request.vmid}"
    return f"Operation {request.subject}"
