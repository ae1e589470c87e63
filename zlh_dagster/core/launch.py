"""What of a tick's decisions is asked for now, given what is open and what was told."""

from collections.abc import Collection, Mapping
from dataclasses import dataclass, field

from zlh_dagster.core.incidents import Changes, Incident, follow
from zlh_dagster.core.repair import Decisions, Finding, RepairRequest

REPAIR_RUN_FAILED = "run_failed:level1_repair"
"""Incident of repair runs that cannot even begin; it lasts until one can, or none is needed."""

DIGEST_RUN_FAILED = "run_failed:digest"


@dataclass(frozen=True, slots=True)
class Launch:
    """A batch to ask for, and what became of the incidents."""

    repairs: tuple[RepairRequest, ...] = ()
    incidents: Changes = field(default_factory=Changes)

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

    A live repair is asked for at every tick while its drift lasts (budget and guards decide in
    the repair); a dry run and a finding only once while they last.

    Args:
        decisions: What the policy decided.
        open_incidents: Open incidents by name.
        unseen: Sources that this tick could not see.
        live: Whether repairs write.
        now: Seconds since the epoch.
    """
    wanted = [*decisions.repairs, *(request for request, _ in decisions.kept_back)]
    lasting = {name for request in wanted for name in request.incidents}
    repairs = tuple(
        request
        for request in decisions.repairs
        if live or request.dry_run_incident not in open_incidents
    )
    if repairs or any(f.incident not in open_incidents for f in decisions.findings):
        # Whether repair runs can begin again is seen when this one does.
        lasting.add(REPAIR_RUN_FAILED)
    # Only their own next success ends what other jobs failed at.
    lasting.update(name for name in open_incidents if name.startswith(DIGEST_RUN_FAILED))
    changes = follow(
        open_incidents, findings=decisions.findings, lasting=lasting, unseen=unseen, now=now
    )
    return Launch(repairs, changes)
