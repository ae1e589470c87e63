"""Putting back what a repair overwrote, by hand only; the server is paused with it.

Without the pause the loop would publish the payload's record again a minute later.
"""

import logging
import time
from collections.abc import Callable
from dataclasses import replace

import pandas as pd

from zlh_dagster.core import changes as core_changes
from zlh_dagster.core.desired import EdgeConfig, desired_edge
from zlh_dagster.core.guards import edge_refusals
from zlh_dagster.core.holds import Pause, server_scope
from zlh_dagster.core.model import DNS_SURFACES
from zlh_dagster.core.repair import NOT_PAUSED, Refusal, RepairOutcome, RepairRequest, Status
from zlh_dagster.core.revert import event_refusal, plan_revert
from zlh_dagster.resources.batch import Batch, Recorder, converged
from zlh_dagster.resources.database import DatabaseError
from zlh_dagster.resources.gate import Gate
from zlh_dagster.resources.ledger import Ledger
from zlh_dagster.resources.preconditions import Checks
from zlh_dagster.resources.publisher import EdgePublisher, Ready
from zlh_dagster.resources.redis import RedisUnavailable

_log = logging.getLogger(__name__)


class Reverts:
    """Carries out ``revert``.

    Args:
        publisher: Writes to the edge, under the lease.
        read_payloads: The platform's rows, now.
        edge: Where servers are published.
        ledger: Knows what was overwritten.
        gate: Where the server is paused.
        checks: What every repair passes first.
        recorder: Keeps refusals and dry runs.
    """

    def __init__(
        self,
        *,
        publisher: EdgePublisher,
        read_payloads: Callable[[], pd.DataFrame],
        edge: EdgeConfig,
        ledger: Ledger,
        gate: Gate,
        checks: Checks,
        recorder: Recorder,
    ) -> None:
        self._publisher = publisher
        self._read_payloads = read_payloads
        self._edge = edge
        self._ledger = ledger
        self._gate = gate
        self._checks = checks
        self._recorder = recorder

    def repair(self, batch: Batch, request: RepairRequest) -> RepairOutcome:
        """One ledger row.

        Raises:
            DatabaseError: If guards or ledger cannot be read before the write.
            Fenced: If another controller has taken over.
            RedisUnavailable: If Redis does not answer.
        """
        if not batch.by_hand or request.target is None:
            refusal = Refusal("by_hand_only", "a revert is the operator's: zlh revert EVENT_ID")
            return self._recorder.refuse(request, refusal)
        event = self._ledger.event(request.target)
        refused = event_refusal(event, request.target)
        if event is None or refused is not None:
            return self._recorder.refuse(request, refused or Refusal("no_such_event", "no row"))
        request = replace(
            request, vmid=event["vmid"], reason=f"revert of {event['action']} {request.target}"
        )
        refused = self._checks.refusals([request]).get(request)
        if refused is not None:
            return self._recorder.refuse(request, refused)
        sight = self._publisher.look(DNS_SURFACES)
        # After the look, which may have taken its time.
        payloads = self._read_payloads()
        desired = desired_edge(payloads, self._edge)
        guards = edge_refusals(
            [request], payloads=payloads, desired=desired.records, invalid=desired.invalid
        )
        refused = self._checks.refusals([request]).get(request) or guards.get(request.vmid or 0)
        if refused is not None:
            return self._recorder.refuse(request, refused)
        touched = {entry["surface"] for entry in event["before"] or []}
        blind = [why for surface, why in sight.unread.items() if surface.value in touched]
        if blind:
            return self._recorder.refuse(request, Refusal("unobserved", "; ".join(blind)))
        mine = desired.records[desired.records["vmid"] == request.vmid]
        plan = plan_revert(event, desired=mine, observed=sight.rows())
        if not plan.changes:
            if plan.left_alone:
                why = "; ".join(plan.left_alone)
                return self._recorder.refuse(request, Refusal("not_revertible", why))
            return converged(request, "every record is as it was before that repair")
        holds = self._gate.holds()
        held = next((w for s in plan.surfaces if (w := holds.surface(s)) is not None), None)
        if held is not None:
            return self._recorder.refuse(request, held)
        before = core_changes.before(plan.changes)
        if not batch.live:
            return self._recorder.dry_run(
                request,
                before=before,
                after=core_changes.wanted(plan.changes),
                changes=tuple(change.describe() for change in plan.changes),
                surface=plan.surface,
            )
        entry = batch.entry(request, surface=plan.surface, before=before)
        opened, stopped = self._publisher.write([Ready(request, plan, entry)])
        for _, stop in stopped:
            return self._recorder.failed(request, f"not tried: {stop}", code=stop.code)
        unpaused = self._pause(request) if any(repair.attempted for repair in opened) else None
        outcome = self._publisher.prove(opened, self._recorder)[0]
        if unpaused is None:
            return outcome
        _log.error("%s", unpaused)
        return replace(
            outcome,
            reason="; ".join(filter(None, (outcome.reason, unpaused))),
            code=NOT_PAUSED if outcome.status is Status.SUCCEEDED else outcome.code,
        )

    def _pause(self, request: RepairRequest) -> str | None:
        """Pauses the server; returns what the operator must know when that failed.

        The record is written by now: what was done is proved and recorded all the same.
        """
        why = f"reverted {request.target}: the loop would undo that"
        pause = Pause(scope=server_scope(request.vmid), reason=why, since=time.time())
        try:
            try:
                self._gate.pause(pause)
            except RedisUnavailable:
                # Every tick and every repair run sets it before anything else.
                self._gate.keep(pause)
        except DatabaseError as error:
            command = f"zlh pause --vmid {request.vmid}"
            return f"the loop may undo this ({error}): {command} keeps it from that"
        return None
