"""One repair run from lease to result."""

from zlh_dagster.core.repair import BatchResult, Finding, RepairRequest
from zlh_dagster.resources.lease import LeaseHeld, acquire
from zlh_dagster.resources.publisher import EdgePublisher
from zlh_dagster.resources.repairer import OPERATOR, Batch, Repairer
from zlh_dagster.resources.services import Services


def run_batch(
    services: Services,
    *,
    repairs: tuple[RepairRequest, ...],
    findings: tuple[Finding, ...],
    reasons: dict[int, str],
    requested_by: str,
    run_id: str,
    live: bool,
) -> BatchResult:
    """Takes the lease, carries out the batch, gives the lease back.

    Writes happen only when ``live`` is asked for and either the operator asks or the controller's
    mode is live, so that a run queued before a switch to dry-run writes nothing.

    Returns:
        What was done; ``standby`` names the holder when somebody else holds the lease.

    Raises:
        RedisUnavailable: If the lease cannot be asked for.
        DatabaseError: If ledger or guards cannot be read.
        Fenced: If another controller has taken over.
    """
    settings = services.settings
    try:
        lease = acquire(
            services.redis,
            run_id=run_id,
            seconds=settings.zlh_lease_seconds,
            fence_floor=services.ledger.max_fencing_token(),
        )
    except LeaseHeld as held:
        return BatchResult(standby=str(held), live=live)
    with lease:
        batch = Batch(
            repairs=repairs,
            findings=findings,
            requested_by=requested_by,
            run_id=run_id,
            live=live and (settings.live or requested_by == OPERATOR),
            fencing_token=lease.fence,
            reasons=reasons,
        )
        repairer = Repairer(
            publisher=EdgePublisher(
                surfaces=services.surfaces, ledger=services.ledger, lease=lease
            ),
            read_payloads=services.read_payloads,
            edge=settings.edge,
            ledger=services.ledger,
            incidents=services.incidents,
            budget=settings.zlh_max_repairs_per_server_hour,
        )
        return repairer.run(batch)
