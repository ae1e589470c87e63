"""Repairs of the edge: guard, look, write, look again, record.

A batch goes through in rounds, mostly in one. In each the guards are read from the database and the
surfaces are listed afresh; what is still wrong is written group by group, the rows of a group read
once more directly before, and one fresh listing proves the whole round. A look that grew too old
ends the round, and the next one begins with what is left.
"""

import logging
import time
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import replace
from typing import Any, Protocol

import numpy as np
import pandas as pd

from zlh_dagster.core import changes as core_changes
from zlh_dagster.core.changes import Plan, plan_changes
from zlh_dagster.core.desired import EdgeConfig, desired_edge
from zlh_dagster.core.guards import changed_refusal, edge_refusals, rows_by_vmid
from zlh_dagster.core.holds import Holds
from zlh_dagster.core.model import Surface
from zlh_dagster.core.repair import Refusal, RepairOutcome, RepairRequest
from zlh_dagster.resources.batch import Batch, Recorder, converged
from zlh_dagster.resources.database import DatabaseError
from zlh_dagster.resources.gate import Gate
from zlh_dagster.resources.preconditions import Checks
from zlh_dagster.resources.publisher import EdgePublisher, Ready, Sight
from zlh_dagster.resources.writer import NOT_TRIED, OpenRepair

_log = logging.getLogger(__name__)


class PayloadReader(Protocol):
    """Reads the platform's rows now, of some servers or of all."""

    def __call__(self, vmids: Iterable[int] | None = None) -> pd.DataFrame: ...


GROUP = 50
"""Servers whose rows are opened, and whose records are written, together."""

LOOK_SECONDS = 10.0
"""Age of a look from which no further group is written before the next one."""


class EdgeRepairs:
    """Carries out the edge actions of one batch.

    Args:
        publisher: Writes to the edge, under the lease.
        read_payloads: Reads the platform's rows, now.
        edge: Where servers are published.
        checks: What every repair passes first.
        gate: Pauses and breakers.
        recorder: Keeps refusals and dry runs.
    """

    def __init__(
        self,
        *,
        publisher: EdgePublisher,
        read_payloads: PayloadReader,
        edge: EdgeConfig,
        checks: Checks,
        gate: Gate,
        recorder: Recorder,
    ) -> None:
        self._publisher = publisher
        self._read_payloads = read_payloads
        self._edge = edge
        self._checks = checks
        self._gate = gate
        self._recorder = recorder

    def run(self, batch: Batch, requests: list[RepairRequest]) -> Iterator[list[RepairOutcome]]:
        """The outcomes of each round, in turn.

        Raises:
            DatabaseError: If guards or ledger cannot be read before a round's first write.
            Fenced: If another controller has taken over.
            RedisUnavailable: If pauses and breakers cannot be read.
        """
        left = list(requests)
        while left:
            holds = self._gate.holds()
            # A half-open breaker lets one server through; only its success lets others follow.
            trials = (r for r in left if any(holds.on_trial(s) for s in r.covers))
            trial = next(trials, None) if batch.live else None
            now = left if trial is None else [trial]
            left = [] if trial is None else [request for request in left if request is not trial]
            outcomes, late = self._round(batch, now, holds)
            yield outcomes
            left = [*late, *left]

    def _round(
        self, batch: Batch, requests: list[RepairRequest], holds: Holds
    ) -> tuple[list[RepairOutcome], list[RepairRequest]]:
        """The outcomes of some servers, and those whose look grew too old before their turn."""
        why = self._checks.refusals(requests)
        payloads = self._read_payloads()
        desired = desired_edge(payloads, self._edge)
        guards = edge_refusals(
            requests, payloads=payloads, desired=desired.records, invalid=desired.invalid
        )
        closed = {s: refusal for s in Surface if (refusal := holds.surface(s)) is not None}
        allowed: dict[RepairRequest, RepairRequest] = {}
        for request in requests:
            refusal = why.get(request)
            narrowed = _narrowed(request, closed)
            if refusal is None and not self._publisher.has(request.covers):
                # Before the guards: where nothing is on, no server is published either.
                refusal = Refusal("surface_off", "none of the surfaces it covers is configured")
            refusal = refusal or guards.get(request.vmid or 0)
            if refusal is None and isinstance(narrowed, Refusal):
                refusal = narrowed
            if refusal is not None:
                why[request] = refusal
            elif isinstance(narrowed, RepairRequest):
                allowed[request] = narrowed
        looked_at = time.monotonic()
        sight = self._publisher.look({s for request in allowed.values() for s in request.covers})
        wanted = _wanted(list(allowed.values()), desired.records, sight)
        plans = plan_changes(wanted, sight.rows())
        outcomes: list[RepairOutcome] = []
        to_write: list[Ready] = []
        for request in requests:
            plan = plans.get(request.vmid or 0, Plan())
            covers = allowed[request].covers if request in allowed else ()
            blind = tuple(sight.unread[s] for s in covers if s in sight.unread)
            skipped = [closed[s] for s in request.covers if s in closed]
            refusal = why.get(request) or _nothing_but_reasons(plan, blind, skipped)
            if refusal:
                outcomes.append(self._recorder.refuse(request, refusal))
            elif not plan.changes:
                outcomes.append(converged(request))
            elif not batch.live:
                outcomes.append(
                    self._recorder.dry_run(
                        request,
                        before=core_changes.before(plan.changes),
                        after=core_changes.wanted(plan.changes),
                        changes=tuple(change.describe() for change in plan.changes),
                        surface=plan.surface,
                    )
                )
            else:
                left_alone = (*plan.left_alone, *(hold.message for hold in skipped))
                plan = replace(plan, left_alone=left_alone)
                before = core_changes.before(plan.changes)
                entry = batch.entry(request, surface=plan.surface, before=before)
                to_write.append(Ready(request, plan, entry, blind))
        # Last, so that nothing that can fail stands between a write and its proof.
        opened, stopped, late = self._write(to_write, rows_by_vmid(payloads), looked_at)
        proved = self._publisher.prove(opened, self._recorder)
        return [*outcomes, *proved, *self._not_written(stopped)], late

    def _write(
        self, ready: list[Ready], before: Mapping[int, dict[str, Any]], looked_at: float
    ) -> tuple[list[OpenRepair], list[tuple[Ready, Refusal]], list[RepairRequest]]:
        """What was opened, what was stopped and why, and what is left for the next look."""
        opened: list[OpenRepair] = []
        stopped: list[tuple[Ready, Refusal]] = []
        left = list(ready)
        while left:
            if len(left) < len(ready) and time.monotonic() - looked_at > LOOK_SECONDS:
                break
            # A surface that has not yet taken a write in this run gets one server's, to see.
            size = GROUP if self._publisher.tried(left[0].plan) else 1
            group, left = left[:size], left[size:]
            try:
                changed = self._changed(group, before)
                free = [one for one in group if one.request not in changed]
                now_open, stops = self._publisher.write(free)
            except DatabaseError as error:
                stopped += [(one, Refusal(NOT_TRIED, str(error))) for one in group]
                continue
            except Exception as error:  # noqa: BLE001 - what is open must come to its proof
                _log.exception("a group could not be written")
                stopped += [(one, Refusal(NOT_TRIED, type(error).__name__)) for one in group]
                continue
            stopped += [(one, changed[one.request]) for one in group if one.request in changed]
            opened += now_open
            why = dict(stops)
            stopped += [
                (one, Refusal(why[one.request].code, str(why[one.request])))
                for one in group
                if one.request in why
            ]
        return opened, stopped, [one.request for one in left]

    def _changed(
        self, group: list[Ready], before: Mapping[int, dict[str, Any]]
    ) -> dict[RepairRequest, Refusal]:
        """Guards at the last moment: the rows as they are directly before the writes."""
        vmids = [one.request.vmid for one in group if one.request.vmid is not None]
        now = rows_by_vmid(self._read_payloads(vmids))
        found = {
            one.request: changed_refusal(
                before.get(one.request.vmid or 0), now.get(one.request.vmid or 0)
            )
            for one in group
        }
        return {request: why for request, why in found.items() if why is not None}

    def _not_written(self, stopped: list[tuple[Ready, Refusal]]) -> list[RepairOutcome]:
        outcomes = []
        for one, why in stopped:
            if why.code == NOT_TRIED:
                changes = tuple(change.describe() for change in one.plan.changes)
                text = f"not tried: {why.message}"
                failed = self._recorder.failed(one.request, text, code=NOT_TRIED, changes=changes)
                outcomes.append(failed)
                continue
            try:
                outcomes.append(self._recorder.refuse(one.request, why))
            except DatabaseError as error:
                # What was written and proved in this round is told all the same.
                text = f"refused ({why.message}), which could not be recorded: {error}"
                outcomes.append(self._recorder.failed(one.request, text))
        return outcomes


def _narrowed(request: RepairRequest, closed: dict[Surface, Refusal]) -> RepairRequest | Refusal:
    """The request without the surfaces that may not be written to, or why none is left."""
    left = tuple(surface for surface in request.covers if surface not in closed)
    if left or not request.covers:
        return replace(request, surfaces=left)
    return next(closed[surface] for surface in request.covers)


def _wanted(requests: list[RepairRequest], desired: pd.DataFrame, sight: Sight) -> pd.DataFrame:
    """The desired records of these servers on the surfaces that were just read."""
    seen = {surface.value for surface in sight.observed}
    covers = {r.vmid: {s.value for s in r.covers} & seen for r in requests}
    rows = desired[desired["vmid"].isin(list(covers))]
    pairs = zip(rows["vmid"], rows["surface"], strict=True)
    keep = np.array([surface in covers[int(vmid)] for vmid, surface in pairs], dtype=bool)
    return rows[keep].reset_index(drop=True)


def _nothing_but_reasons(
    plan: Plan, blind: tuple[str, ...], skipped: list[Refusal]
) -> Refusal | None:
    """Why nothing can be written, where there is a reason beyond 'nothing is wrong'.

    What was not looked at, because it cannot be read or may not be written to, is not in step.
    """
    if plan.changes:
        return None
    reasons = (*plan.left_alone, *blind, *(hold.message for hold in skipped))
    if not reasons:
        return None
    text = "; ".join(reasons)
    if blind:
        return Refusal("unobserved", text)
    return Refusal(skipped[0].code, text) if skipped else Refusal("not_mendable", text)
