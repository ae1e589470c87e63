"""Stopping the workload of a suspended server: asks its agent, waits, and looks again.

The container is not touched. Level 2: only when the operator has switched this action on.
"""

import time
from collections.abc import Callable
from datetime import datetime, timezone
from typing import Any, Protocol

import pandas as pd

from zlh_dagster.core.guards import address_refusal, row_of, suspended_refusal
from zlh_dagster.core.repair import Refusal, RepairOutcome, RepairRequest, Status
from zlh_dagster.core.watch import STOPPED_STATES, busy_servers
from zlh_dagster.resources.batch import Batch, Recorder, converged
from zlh_dagster.resources.http import EdgeError
from zlh_dagster.resources.lease import Lease, LeaseLost
from zlh_dagster.resources.ledger import Ledger
from zlh_dagster.resources.preconditions import Checks

STOP_SECONDS = 30.0
"""How long a server may take to save its world and stop."""

ASK_SECONDS = 12.0
"""Seconds that asking may take at the most."""

POLL_SECONDS = 1.0
STOPPED = "stopped"
ENDED = frozenset({STOPPED, "offline"})
"""States in which a server that was asked to stop has done so."""


class Agent(Protocol):
    """What is asked of the agent in a container."""

    def state(self, ip: str | None) -> str:
        """The server's state.

        Raises:
            EdgeError: If it cannot be read, or the address may not be called.
        """
        ...

    def stop(self, ip: str | None) -> None:
        """Asks for the server to be stopped.

        Raises:
            EdgeError: If the agent did not agree, or the address may not be called.
        """
        ...


class WorkloadRepairs:
    """Carries out ``stop_suspended_workload``.

    Args:
        agent: Talks to agents.
        read_payloads: The platform's rows, now.
        read_operations: All open operations with the state of their jobs and since when those are
            dead, now.
        list_containers: All containers, now; null where Proxmox is not configured.
        ledger: The repair ledger.
        lease: The held lease.
        checks: What every repair passes first.
        recorder: Keeps refusals and dry runs.
    """

    def __init__(
        self,
        *,
        agent: Agent,
        read_payloads: Callable[[], pd.DataFrame],
        read_operations: Callable[[], pd.DataFrame],
        list_containers: Callable[[], pd.DataFrame] | None,
        ledger: Ledger,
        lease: Lease,
        checks: Checks,
        recorder: Recorder,
    ) -> None:
        self._agent = agent
        self._read_payloads = read_payloads
        self._read_operations = read_operations
        self._list_containers = list_containers
        self._ledger = ledger
        self._lease = lease
        self._checks = checks
        self._recorder = recorder

    def repair(self, batch: Batch, request: RepairRequest) -> RepairOutcome:
        """One server.

        Raises:
            DatabaseError: If guards or ledger cannot be read before the write.
            EdgeError: If the queues cannot be read.
            Fenced: If another controller has taken over.
            RedisUnavailable: If Redis does not answer.
        """
        payloads = self._read_payloads()
        refusal = self._guards(request, payloads) or self._container(request)
        if refusal is not None:
            return self._recorder.refuse(request, refusal)
        row = row_of(payloads, request.vmid) or {}
        ip: str | None = row.get("ip")
        try:
            state = self._agent.state(ip)
        except EdgeError as error:
            return self._recorder.refuse(request, Refusal("agent_silent", str(error)))
        if state in STOPPED_STATES:
            return converged(request, f"the agent says {state}")
        change = f"server {request.vmid} (was {state})"
        before = {"state": state, "billingStatus": row["billingStatus"]}
        if not batch.live:
            after = {"state": STOPPED}
            return self._recorder.dry_run(request, before=before, after=after, changes=(change,))
        try:
            self._lease.require(ASK_SECONDS)
        except LeaseLost as lost:
            return self._recorder.failed(
                request, f"not tried: {lost}", code="not_tried", changes=(change,)
            )
        # Listing and asking took their time: the bill may be paid, or the operator has paused.
        payloads = self._read_payloads()
        refusal = self._guards(request, payloads)
        if refusal is None and (row_of(payloads, request.vmid) or {}).get("ip") != ip:
            refusal = Refusal("changed_meanwhile", "its address changed just now")
        if refusal is not None:
            return self._recorder.refuse(request, refusal)
        event_id = self._ledger.open(batch.entry(request, before=before))
        try:
            # Once more: what came before took its time.
            self._lease.require(ASK_SECONDS)
        except LeaseLost as lost:
            why = f"not tried: {lost}"
            self._recorder.close(
                event_id, Status.REFUSED, error={"code": "not_tried", "message": str(lost)}
            )
            return self._recorder.failed(
                request, why, code="not_tried", changes=(change,), event_id=event_id
            )
        state, problem = self._stop(ip)
        return self._close(request, event_id, state=state, problem=problem, change=change)

    def _stop(self, ip: str | None) -> tuple[str, str | None]:
        """Asks, then waits; returns the last state seen and what went wrong."""
        problem: str | None = None
        try:
            self._agent.stop(ip)
        except EdgeError as error:
            # The answer may be lost though the server stops: the state decides.
            problem = str(error)
        state, give_up = "unknown", time.monotonic() + STOP_SECONDS
        while True:
            try:
                state = self._agent.state(ip)
            except EdgeError as error:
                state = f"unknown ({error})"
            if state in ENDED:
                return state, None
            if time.monotonic() >= give_up:
                waited = f"it was asked to stop and is {state} after {STOP_SECONDS:.0f} s"
                return state, problem or waited
            time.sleep(POLL_SECONDS)

    def _close(
        self,
        request: RepairRequest,
        event_id: str,
        *,
        state: str,
        problem: str | None,
        change: str,
    ) -> RepairOutcome:
        status = Status.FAILED if problem else Status.SUCCEEDED
        error: Any = {"code": "repair_failed", "message": problem} if problem else None
        unclosed = self._recorder.close(event_id, status, after={"state": state}, error=error)
        problem = unclosed or problem
        if problem:
            return self._recorder.failed(request, problem, changes=(change,), event_id=event_id)
        return RepairOutcome(request, status, "", (change,), event_id)

    def _guards(self, request: RepairRequest, payloads: pd.DataFrame) -> Refusal | None:
        return (
            self._checks.refusals([request]).get(request)
            or suspended_refusal(request, payloads)
            or address_refusal(request, payloads)
            or self._busy(request)
        )

    def _busy(self, request: RepairRequest) -> Refusal | None:
        if request.vmid in busy_servers(self._read_operations(), datetime.now(timezone.utc)):
            return Refusal("operation_open", "an operation of this server is under way")
        return None

    def _container(self, request: RepairRequest) -> Refusal | None:
        if self._list_containers is None:
            return Refusal("proxmox_unseen", "Proxmox is not configured (PROXMOX_URL)")
        try:
            containers = self._list_containers()
        except EdgeError as error:
            return Refusal("proxmox_unseen", f"whether the container runs is not known: {error}")
        mine = containers[containers["vmid"] == request.vmid]
        if mine.empty or mine["status"].iloc[0] != "running":
            return Refusal("not_running", "its container does not run")
        if not pd.isna(mine["lock"].iloc[0]):
            return Refusal("container_locked", f"its container is locked: {mine['lock'].iloc[0]}")
        return None
