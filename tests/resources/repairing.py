"""What the tests of single repairs share: a real ledger, lease and gate; fakes outside of them."""

import contextlib
import time
from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from typing import Any

import sqlalchemy as sa

from zlh_dagster.core.fleet import containers_frame
from zlh_dagster.core.incidents import Incident
from zlh_dagster.core.repair import CONTROLLER, RepairOutcome, RepairRequest
from zlh_dagster.resources.batch import Batch, Recorder
from zlh_dagster.resources.http import Unreachable
from zlh_dagster.resources.lease import KEY, Lease, acquire
from zlh_dagster.resources.ledger import Entry
from zlh_dagster.resources.preconditions import Checks
from zlh_dagster.resources.services import Services


@dataclass
class Proxmox:
    """A listing of containers, or a failure; ``meanwhile`` happens while it is asked."""

    rows: list[dict[str, Any]] = field(default_factory=list)
    error: str | None = None
    asked: int = 0

    def list_containers(self) -> Any:
        self.asked += 1
        if self.error is not None:
            raise Unreachable(self.error)
        return containers_frame(self.rows)


@dataclass
class Bench:
    """One repair run, from the lease on."""

    services: Services
    lease: Lease
    open_incidents: dict[str, Incident] = field(default_factory=dict)
    recorder: Recorder | None = None

    def batch(self, request: RepairRequest, **values: Any) -> Batch:
        made = Batch(
            repairs=(request,),
            findings=(),
            requested_by=CONTROLLER,
            run_id="run-1",
            live=True,
            fencing_token=self.lease.fence,
            decided_at=time.time(),
        )
        return replace(made, **values)

    def parts(self, batch: Batch, *, level2: tuple[str, ...] = ()) -> dict[str, Any]:
        """What every kind of repair is built with."""
        services = self.services
        self.recorder = Recorder(batch, services.ledger, self.open_incidents)
        checks = Checks(batch, ledger=services.ledger, gate=services.gate, budget=3, level2=level2)
        return {"ledger": services.ledger, "checks": checks, "recorder": self.recorder}

    @property
    def opened(self) -> list[str]:
        """Names of the incidents that the last repair opened."""
        assert self.recorder is not None
        return [finding.incident for finding in self.recorder.opened]

    def take_lease_away(self) -> None:
        """Somebody else holds the lease from now on."""
        self.services.redis.set(KEY, "somebody else")

    def be_replaced(self) -> None:
        """A controller with a higher fencing token has written to the ledger."""
        self.services.ledger.open(
            Entry("dns_republish", 1, "", CONTROLLER, "run-2", self.lease.fence + 1, vmid=5999)
        )

    def events(self) -> list[dict[str, Any]]:
        """The ledger's rows of this run, oldest first."""
        return [e for e in reversed(self.services.ledger.events()) if e["runId"] == "run-1"]


@contextlib.contextmanager
def bench(services: Services) -> Iterator[Bench]:
    with acquire(services.redis, run_id="run-1", seconds=60) as lease:
        yield Bench(services, lease)


def table_rows(engine: sa.Engine, *tables: sa.Table) -> dict[str, list[tuple[Any, ...]]]:
    """All rows of some tables, to be compared."""
    with engine.connect() as connection:
        return {
            table.name: sorted(map(tuple, connection.execute(sa.select(table))), key=repr)
            for table in tables
        }


def code(outcome: RepairOutcome) -> tuple[Any, str]:
    """How an outcome ended, for comparing."""
    return (outcome.status and outcome.status.value, outcome.code)
