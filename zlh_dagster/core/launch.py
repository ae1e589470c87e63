"""What of a tick's decisions is asked for now, given what is open and what was told."""

from collections.abc import Collection, Mapping
from dataclasses import dataclass, field, replace

from zlh_dagster.core.incidents import Changes, Incident, follow
from zlh_dagster.core.model import EDGE_ACTIONS
from zlh_dagster.core.repair import Decisions, Finding, RepairRequest

REPAIR_RUN_FAILED = "run_failed:level1_repair"
"""Incident of repair runs that cannot even begin; it lasts until one can, or none is needed."""

DRIFT_SENSOR_FAILED = "sensor_failed:drift_sensor"
"""Incident of the drift sensor's own errors."""

DIGEST_RUN_FAILED = "run_failed:digest"
RETENTION_RUN_FAILED = "run_failed:retention"
_ENDED_BY_THEIR_OWN_RUNS = (DIGEST_RUN_FAILED, RETENTION_RUN_FAILED)


@dataclass(frozen=True, slots=True)
class Launch:
    """A batch to ask for, what became of the incidents, and approvals that the batch uses up."""

    repairs: tuple[RepairRequest, ...] = ()
    incidents: Changes = field(default_factory=Changes)
    approvals: tuple[str, ...] = ()

    @property
    def findings(self) -> tuple[Finding, ...]:
        return self.incidents.opened

    def __bool__(self) -> bool:
        told = self.incidents
        return bool(self.repairs or told.opened or told.due or told.over)


def choose(
    decisions: Decisions,
    *,
    open_incidents: Mapping[str, Incident],
    unseen: Collection[str],
    live: bool,
    now: float,
) -> Launch:
    """Drops what was told already; sees which incidents are due for a reminder, or over.

    A live repair of the edge is asked for at every tick while its drift lasts (budget and guards
    decide in the repair): players wait there. Any other one that was refused or failed is asked for
    again after a while. A dry run and a finding are asked for only once while they last.

    Args:
        decisions: What the policy decided.
        open_incidents: Open incidents by name.
        unseen: Sources that this tick could not see.
        live: Whether repairs write.
        now: Seconds since the epoch.
    """
    kept_back = (request for request, _ in decisions.kept_back)
    wanted = (*decisions.repairs, *kept_back, *decisions.lasting)
    lasting = {name for request in wanted for name in request.incidents}
    repairs = tuple(
        request
        for request in decisions.repairs
        if _is_due(request, open_incidents, live=live, now=now)
    )
    if repairs or any(f.incident not in open_incidents for f in decisions.findings):
        # Whether repair runs can begin again is seen when this one does.
        lasting.add(REPAIR_RUN_FAILED)
    # Only their own next success, which calls it absent, ends what other jobs failed at.
    lasting.update(
        name
        for name in _ENDED_BY_THEIR_OWN_RUNS
        if name in open_incidents and open_incidents[name].absent_since is None
    )
    changes = follow(
        open_incidents, findings=decisions.findings, lasting=lasting, unseen=unseen, now=now
    )
    tried = [name for request in repairs for name in _setbacks(request) if name in open_incidents]
    return Launch(repairs, replace(changes, tried=tuple(tried)))


def _is_due(
    request: RepairRequest, open_incidents: Mapping[str, Incident], *, live: bool, now: float
) -> bool:
    """Whether a repair may be asked for now."""
    if live and request.action in EDGE_ACTIONS:
        return True
    if not live and request.dry_run_incident in open_incidents:
        return False
    known = [open_incidents[name] for name in _setbacks(request) if name in open_incidents]
    return all(incident.retry_due(now) for incident in known)


def _setbacks(request: RepairRequest) -> tuple[str, ...]:
    return (request.refusal_incident, request.failure_incident)
