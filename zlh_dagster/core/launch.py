"""What of a tick's decisions is asked for now, given what is open and what was told."""

from collections.abc import Collection
from dataclasses import dataclass

from zlh_dagster.core.repair import Decisions, Finding, RepairRequest

REPAIR_RUN_FAILED = "run_failed:level1_repair"
"""Incident of repair runs that cannot even begin; it lasts until one can, or none is needed."""


@dataclass(frozen=True, slots=True)
class Launch:
    """A batch to ask for, and the incidents that are over."""

    repairs: tuple[RepairRequest, ...]
    findings: tuple[Finding, ...]
    over: tuple[str, ...]

    def __bool__(self) -> bool:
        return bool(self.repairs or self.findings)


def choose(
    decisions: Decisions, *, already_open: Collection[str], live: bool, all_seen: bool
) -> Launch:
    """Drops what was told already; closes what is no longer there.

    A live repair is asked for at every tick while its drift lasts (budget and guards decide in
    the repair); a dry run and a finding only once while they last.

    Args:
        decisions: What the policy decided.
        already_open: Names of open incidents.
        live: Whether repairs write.
        all_seen: Whether everything that is on was observed; while something was not, no
            incident is taken for over.
    """
    current = {finding.incident for finding in decisions.findings}
    for request in decisions.repairs:
        current.update(request.incidents)
    repairs = tuple(
        request
        for request in decisions.repairs
        if live or request.dry_run_incident not in already_open
    )
    findings = tuple(f for f in decisions.findings if f.incident not in already_open)
    over = set(already_open) - current if all_seen else set()
    if repairs or findings:
        over.discard(REPAIR_RUN_FAILED)
    return Launch(repairs, findings, tuple(sorted(over)))
