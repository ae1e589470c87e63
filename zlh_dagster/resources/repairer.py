"""One batch of repairs: guard, look, write, look again, record.

A batch goes through in chunks. For each chunk the guards are read from the database and the
surfaces are listed afresh; what is still wrong is written by the publisher and proved.
"""

import logging
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from datetime import timedelta

import numpy as np
import pandas as pd

from zlh_dagster.core import changes as core_changes
from zlh_dagster.core.changes import Plan, plan_changes
from zlh_dagster.core.desired import EdgeConfig, desired_edge
from zlh_dagster.core.guards import refusals
from zlh_dagster.core.launch import REPAIR_RUN_FAILED
from zlh_dagster.core.repair import BatchResult, Finding, RepairOutcome, RepairRequest, Status
from zlh_dagster.resources.database import DatabaseError
from zlh_dagster.resources.incidents import Incidents
from zlh_dagster.resources.ledger import Entry, Fenced, Ledger
from zlh_dagster.resources.publisher import EdgePublisher, OpenRepair, Sight, Stopped
from zlh_dagster.resources.redis import RedisUnavailable

CHUNK = 50
"""Servers between two looks at the surfaces."""

OPERATOR, CONTROLLER = "operator", "controller"
_log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Batch:
    """What one run was asked to do; each VMID at most once."""

    repairs: tuple[RepairRequest, ...]
    findings: tuple[Finding, ...]
    requested_by: str
    run_id: str
    live: bool
    fencing_token: int
    reasons: Mapping[int, str] = field(default_factory=dict)

    @property
    def by_hand(self) -> bool:
        return self.requested_by == OPERATOR

    def entry(self, request: RepairRequest, plan: Plan, **values: object) -> Entry:
        """A ledger row for one request."""
        surfaces = plan.surfaces or request.covers
        return Entry(
            action=request.action.value,
            level=request.action.level,
            reason=self.reasons.get(request.vmid, f"{request.action.value} asked for by hand"),
            requested_by=self.requested_by,
            run_id=self.run_id,
            fencing_token=self.fencing_token,
            vmid=request.vmid,
            surface=surfaces[0].value if len(surfaces) == 1 else None,
            **values,
        )


class Repairer:
    """Carries out one batch.

    Args:
        publisher: Writes to the edge, under the lease.
        read_payloads: Reads the platform's rows, now.
        edge: Where servers are published.
        ledger: The repair ledger.
        incidents: What was told already.
        budget: Repairs that one server may have within an hour.
    """

    def __init__(
        self,
        *,
        publisher: EdgePublisher,
        read_payloads: Callable[[], pd.DataFrame],
        edge: EdgeConfig,
        ledger: Ledger,
        incidents: Incidents,
        budget: int,
    ) -> None:
        self._publisher = publisher
        self._read_payloads = read_payloads
        self._edge = edge
        self._ledger = ledger
        self._incidents = incidents
        self._budget = budget
        self._told: dict[str, dict[str, str]] = {}

    def run(self, batch: Batch) -> BatchResult:
        """Does everything that the batch asks for and the laws allow.

        Raises:
            DatabaseError: If guards or ledger could not be read before anything was written.
            Fenced: If another controller has taken over before anything was written.
            RedisUnavailable: If Redis went away before anything was written.
        """
        started = time.monotonic()
        already_open = set(self._incidents.all_open())
        interrupted = self._ledger.interrupt_below(batch.fencing_token)
        findings = self._record_findings(batch, already_open)
        outcomes: list[RepairOutcome] = []
        for start in range(0, len(batch.repairs), CHUNK):
            chunk = batch.repairs[start : start + CHUNK]
            try:
                outcomes.extend(self._chunk(batch, chunk, already_open))
            except (DatabaseError, Fenced) as error:
                if not outcomes:
                    raise
                # What was repaired before is still told; what was not tried is told as that.
                rest = batch.repairs[start:]
                outcomes.extend(_not_tried(request, Plan(), str(error)) for request in rest)
                break
        self._settle_incidents(outcomes)
        return BatchResult(
            outcomes=tuple(outcomes),
            findings=tuple(findings),
            interrupted=tuple(interrupted),
            live=batch.live,
            seconds=round(time.monotonic() - started, 3),
            writes=self._publisher.writes,
        )

    def _chunk(
        self, batch: Batch, requests: tuple[RepairRequest, ...], already_open: set[str]
    ) -> list[RepairOutcome]:
        vmids = [request.vmid for request in requests]
        desired = desired_edge(self._read_payloads(), self._edge)
        why = refusals(
            requests,
            desired=desired.records,
            invalid=desired.invalid,
            spent=self._ledger.repairs_since(vmids, timedelta(hours=1)),
            budget=self._budget,
        )
        allowed = [request for request in requests if request.vmid not in why]
        sight = self._publisher.look({s for request in allowed for s in request.covers})
        plans = plan_changes(_wanted(allowed, desired.records, sight), sight.rows())
        outcomes: list[RepairOutcome] = []
        to_write: list[tuple[RepairRequest, Plan, tuple[str, ...]]] = []
        for request in requests:
            plan = plans.get(request.vmid, Plan())
            blind = tuple(sight.unread[s] for s in request.covers if s in sight.unread)
            refusal = why.get(request.vmid) or _nothing_but_reasons(plan, blind)
            if refusal:
                outcomes.append(self._refuse(batch, request, refusal, already_open))
            elif not plan.changes:
                outcomes.append(_converged(request))
            elif not batch.live:
                outcomes.append(self._dry_run(batch, request, plan, already_open))
            else:
                to_write.append((request, plan, blind))
        # Last, so that nothing that can fail stands between a write and its proof.
        opened: list[OpenRepair] = []
        for request, plan, blind in to_write:
            entry = batch.entry(request, plan, before=core_changes.before(plan.changes))
            try:
                opened.append(self._publisher.write(request, plan, entry, blind))
            except Stopped as error:
                outcomes.append(_not_tried(request, plan, str(error)))
        return [*outcomes, *self._publisher.prove(opened)]

    def _dry_run(
        self, batch: Batch, request: RepairRequest, plan: Plan, already_open: set[str]
    ) -> RepairOutcome:
        name = request.dry_run_incident
        news = batch.by_hand or name not in already_open
        described = tuple(change.describe() for change in plan.changes)
        event_id = None
        if news:
            entry = batch.entry(
                request,
                plan,
                before=core_changes.before(plan.changes),
                after=core_changes.wanted(plan.changes),
            )
            event_id = self._ledger.record(entry, Status.DRY_RUN)
            self._told[name] = {"title": f"server {request.vmid}: would {request.action.value}"}
        return RepairOutcome(
            request.vmid, request.action, Status.DRY_RUN, "", described, event_id, news
        )

    def _refuse(
        self, batch: Batch, request: RepairRequest, why: str, already_open: set[str]
    ) -> RepairOutcome:
        """Records a refusal and tells it: once while it lasts, always when asked by hand."""
        name = request.refusal_incident
        news = batch.by_hand or name not in already_open
        event_id = None
        if news:
            entry = batch.entry(request, Plan(), error={"code": "refused", "message": why})
            event_id = self._ledger.record(entry, Status.REFUSED)
            title = f"server {request.vmid}: {request.action.value} refused"
            self._told[name] = {"title": title, "reason": why}
        return RepairOutcome(request.vmid, request.action, Status.REFUSED, why, (), event_id, news)

    def _record_findings(self, batch: Batch, already_open: set[str]) -> list[Finding]:
        told = []
        for finding in batch.findings:
            if finding.incident in already_open:
                continue
            told.append(finding)
            self._told[finding.incident] = {"title": finding.title, "reason": finding.text}
            if finding.action is None:
                continue
            entry = Entry(
                action=finding.action.value,
                level=finding.action.level,
                reason=finding.title,
                requested_by=batch.requested_by,
                run_id=batch.run_id,
                fencing_token=batch.fencing_token,
                vmid=finding.vmid,
                surface=finding.surface.value if finding.surface else None,
                error={"code": "refused", "message": finding.text},
            )
            self._ledger.record(entry, Status.REFUSED)
        return told

    def _settle_incidents(self, outcomes: list[RepairOutcome]) -> None:
        """Opens what was told and closes what was repaired; a failing Redis costs a repetition."""
        over = [
            name
            for outcome in outcomes
            if outcome.status in (Status.SUCCEEDED, None)
            for name in RepairRequest(outcome.vmid, outcome.action).incidents
        ]
        try:
            for name, detail in self._told.items():
                self._incidents.open(name, now=time.time(), detail=dict(detail))
            self._incidents.close([*over, REPAIR_RUN_FAILED])
        except RedisUnavailable as error:
            _log.warning("%s", error)


def _wanted(requests: list[RepairRequest], desired: pd.DataFrame, sight: Sight) -> pd.DataFrame:
    """The desired records of these servers on the surfaces that were just read."""
    seen = {surface.value for surface in sight.observed}
    covers = {r.vmid: {s.value for s in r.covers} & seen for r in requests}
    rows = desired[desired["vmid"].isin(list(covers))]
    pairs = zip(rows["vmid"], rows["surface"], strict=True)
    keep = np.array([surface in covers[int(vmid)] for vmid, surface in pairs], dtype=bool)
    return rows[keep].reset_index(drop=True)


def _nothing_but_reasons(plan: Plan, blind: tuple[str, ...]) -> str | None:
    """Why nothing can be written, where there is a reason beyond 'nothing is wrong'."""
    if plan.changes:
        return None
    return "; ".join((*plan.left_alone, *blind)) or None


def _converged(request: RepairRequest) -> RepairOutcome:
    return RepairOutcome(
        request.vmid, request.action, None, "nothing to do: the edge is as it should be"
    )


def _not_tried(request: RepairRequest, plan: Plan, why: str) -> RepairOutcome:
    return RepairOutcome(
        vmid=request.vmid,
        action=request.action,
        status=Status.FAILED,
        reason=f"not tried: {why}",
        changes=tuple(change.describe() for change in plan.changes),
    )
