"""The controller without Dagster: a tick is observed, judged, carried out and told in one call."""

import uuid
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

from zlh_dagster.core.changes import Change
from zlh_dagster.core.repair import CONTROLLER
from zlh_dagster.core.result import BatchResult
from zlh_dagster.resources.batch import Batch
from zlh_dagster.resources.batch_run import may_write, run_batch, take_lease
from zlh_dagster.resources.controller import ask, assess
from zlh_dagster.resources.observe import observe_all
from zlh_dagster.resources.services import Services
from zlh_dagster.resources.teller import tell


class Watched:
    """A surface's client that shows each write to a witness before it is made."""

    def __init__(self, client: Any, witness: Callable[[Change], None]) -> None:
        self._client = client
        self._witness = witness

    def apply(self, change: Change) -> None:
        self._witness(change)
        self._client.apply(change)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._client, name)


@dataclass
class Controller:
    """One deployment; ``writes`` are the changes that it made."""

    services: Services
    writes: list[Change] = field(default_factory=list)
    broken: list[str] = field(default_factory=list)
    unobserved: dict[str, int] = field(default_factory=dict)

    def __post_init__(self) -> None:
        surfaces = self.services.surfaces
        for surface, client in list(surfaces.items()):
            surfaces[surface] = Watched(client, self._witness)  # type: ignore[assignment]

    def tick(self) -> BatchResult | None:
        """One whole minute."""
        services = self.services
        run_id = uuid.uuid4().hex
        tick = observe_all(services, run_id)
        assessment = assess(services, tick)
        self.unobserved = {s: self.unobserved.get(s, 0) + 1 for s in tick.unobserved}
        if services.leadership.take() is not None:
            return None
        launch = ask(services, assessment, unobserved_ticks=self.unobserved, redis_lost_since=None)
        if not launch:
            return None
        with take_lease(services, run_id=run_id) as lease:
            batch = Batch(
                repairs=launch.repairs,
                findings=launch.findings,
                requested_by=CONTROLLER,
                run_id=run_id,
                live=may_write(services, live=True, requested_by=CONTROLLER),
                fencing_token=lease.fence,
                decided_at=assessment.holds.now,
                due=launch.incidents.due,
                over=launch.incidents.over,
                approvals=launch.approvals,
            )
            result = run_batch(services, lease, batch)
        tell(services, result, run_id=run_id, requested_by=CONTROLLER)
        return result

    def _witness(self, change: Change) -> None:
        """Laws that hold at the very moment of a write."""
        self.writes.append(change)
        redis: Any = self.services.redis
        if redis.get("zlh:lease") is None:
            self.broken.append(f"written without the lease: {change.describe()}")
        running = [e for e in self.services.ledger.events(limit=20) if e["status"] == "running"]
        names = {entry["name"] for event in running for entry in event["before"] if event["before"]}
        if change.wanted.name not in names:
            self.broken.append(f"written before its ledger row: {change.describe()}")
        if self.services.gate.holds().server(None) is not None:
            self.broken.append(f"written while paused: {change.describe()}")
