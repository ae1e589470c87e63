"""What the laws about every repair share: the three repairs that are not of the edge."""

from dataclasses import dataclass
from typing import Any

import pytest

from tests.dead_work import NEW, operation, queued, running
from tests.harness import Loop, writes
from tests.queues import OPERATION, PROVISIONING, a_minute_passes, make_queue
from zlh_dagster.core.model import Action
from zlh_dagster.resources import operation_repairs, workload_repairs
from zlh_dagster.sandbox.platform_rows import change_server


@dataclass
class Beside:
    """One repair beside the edge that is due; ``asked`` makes its run's config.

    Attributes:
        seconds: How long its write may take.
        first_write: Where it writes, as something to be replaced: owner and name.
        operation: The operation it closes, where it closes one.
        vmid: The server that it is about, and that has a row.
    """

    loop: Loop
    sandbox: Any
    engine: Any
    action: Action
    seconds: float
    first_write: tuple[Any, str]
    vmid: int
    operation: str | None = None

    def asked(self) -> dict[str, Any]:
        """Two ticks, the second of which asks for the repair."""
        for _ in range(2):
            assert self.loop.observe().success
            a_minute_passes(self.loop.services)
            requests = self.loop.judge()
        [request] = requests
        [repair] = request.run_config["ops"]["level1_repair"]["config"]["repairs"]
        assert repair["action"] == self.action.value
        return request.run_config

    def untouched(self) -> bool:
        """Whether nobody wrote: the operation is open, no agent was asked to do anything."""
        if self.operation is not None:
            return operation(self.engine, self.operation)["completedAt"] is None
        return writes(self.sandbox, "agents") == []

    def event(self) -> tuple[str, str | None]:
        """Status and code of the newest ledger row of that action."""
        rows = self.loop.services.ledger.events()
        [newest, *_] = [row for row in rows if row["action"] == self.action.value]
        return newest["status"], (newest["error"] or {}).get("code")


@pytest.fixture(
    params=[
        Action.CLEAR_STALE_OPERATION_LOCK,
        Action.FAIL_STUCK_PROVISIONING,
        Action.STOP_SUSPENDED_WORKLOAD,
    ],
    ids=lambda action: action.value,
)
def beside(request, platform, instance, sandbox, monkeypatch):
    """A stale lock, a stuck creation, or a suspended server that runs."""
    monkeypatch.setattr(workload_repairs, "POLL_SECONDS", 0.02)
    monkeypatch.setattr(workload_repairs, "STOP_SECONDS", 3.0)
    action, db = request.param, platform.engine
    services = platform.services(ZLH_LEVEL2_ACTIONS="stop_suspended_workload")
    loop = Loop(services, instance)
    for name in (PROVISIONING, OPERATION):
        make_queue(services.redis, name)
    here = {"loop": loop, "sandbox": sandbox, "engine": db, "action": action}
    slow = operation_repairs.WRITE_SECONDS
    rows = operation_repairs.operations
    if action is Action.CLEAR_STALE_OPERATION_LOCK:
        made = running(db, services.redis)
        return Beside(
            **here, seconds=slow, first_write=(rows, "mark_stale"), vmid=5000, operation=made
        )
    if action is Action.FAIL_STUCK_PROVISIONING:
        made = queued(db, services.redis)
        change_server(db, 5003, vmid=NEW, lifecycle="provisioning")
        where = (rows, "fail_provisioning")
        return Beside(**here, seconds=slow, first_write=where, vmid=NEW, operation=made)
    change_server(db, 5000, billingStatus="suspended")
    ask = workload_repairs.ASK_SECONDS
    return Beside(**here, seconds=ask, first_write=(services.agent, "stop"), vmid=5000)
