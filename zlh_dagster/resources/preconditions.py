"""What every repair passes before its own guards: level, age of the decision, pause, budget."""

import time
from collections.abc import Collection, Sequence
from datetime import timedelta

from zlh_dagster.core.guards import budget_refusal, level_refusal
from zlh_dagster.core.repair import Refusal, RepairRequest
from zlh_dagster.core.snapshot import MAX_AGE
from zlh_dagster.resources.batch import Batch
from zlh_dagster.resources.gate import Gate
from zlh_dagster.resources.ledger import Ledger

BUDGET_WINDOW = timedelta(hours=1)


class Checks:
    """The checks that do not depend on what is repaired.

    Args:
        batch: The batch, which begins now.
        ledger: Knows what was spent.
        gate: Knows pauses and breakers.
        budget: Repairs that one server may have within an hour.
        level2: Level-2 actions that the operator has switched on.
    """

    def __init__(
        self, batch: Batch, *, ledger: Ledger, gate: Gate, budget: int, level2: Collection[str]
    ) -> None:
        self._live = batch.live
        self._ledger = ledger
        self._gate = gate
        self._budget = budget
        self._level2 = level2
        # Once: a large batch takes its time, and looks and guards are fresh for each chunk.
        self._stale = _stale_refusal(batch)

    def refusals(self, requests: Sequence[RepairRequest]) -> dict[RepairRequest, Refusal]:
        """Why each refused request is refused.

        A server over its budget gets an open breaker, unless nothing would be written anyway.

        Raises:
            DatabaseError: If the ledger cannot be read.
            RedisUnavailable: If pauses and breakers cannot be read.
        """
        holds = self._gate.holds()
        vmids = [request.vmid for request in requests if request.vmid is not None]
        spent = self._ledger.repairs_since(
            vmids, BUDGET_WINDOW, resets=self._gate.counted_since(vmids)
        )
        why: dict[RepairRequest, Refusal] = {}
        for request in requests:
            refusal = (
                level_refusal(request.action, self._level2)
                or self._stale
                or holds.server(request.vmid)
            )
            if refusal is None and request.vmid is not None:
                refusal = budget_refusal(request.vmid, spent, self._budget)
                if refusal is not None and self._live:
                    count = spent[request.vmid]
                    self._gate.open_server(request.vmid, f"{count} repairs within an hour")
            if refusal is not None:
                why[request] = refusal
        return why


def _stale_refusal(batch: Batch) -> Refusal | None:
    """A batch that waited is not carried out: the next tick decides anew."""
    if batch.decided_at is None or batch.by_hand:
        return None
    age = time.time() - batch.decided_at
    if abs(age) <= MAX_AGE.total_seconds():
        return None
    return Refusal(
        "stale_decision",
        f"it was decided {age:.0f} s ago, more than two ticks; the next tick decides anew",
    )
