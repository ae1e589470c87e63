"""One repair run: the lease, then the batch."""

from zlh_dagster.core.repair import BatchResult, Finding, RepairRequest
from zlh_dagster.resources.lease import Lease, acquire
from zlh_dagster.resources.publisher import EdgePublisher
from zlh_dagster.resources.repairer import OPERATOR, Batch, Repairer
from zlh_dagster.resources.services import Services


def take_lease(services: Services, *, run_id: str) -> Lease:
    """Takes the singleton lease, with a fencing token above every one in the ledger.

    Raises:
        LeaseHeld: If somebody else holds it; the message says who.
        RedisUnavailable: If Redis does not answer.
        DatabaseError: If the ledger cannot be read.
    """
    return acquire(
        services.redis,
        run_id=run_id,
        seconds=services.settings.zlh_lease_seconds,
        fence_floor=services.ledger.max_fencing_token(),
    )


def run_batch(
    services: Services,
    lease: Lease,
    *,
    repairs: tuple[RepairRequest, ...],
    findings: tuple[Finding, ...],
    reasons: dict[int, str],
    requested_by: str,
    run_id: str,
    live: bool,
) -> BatchResult:
    """Carries out the batch under the lease.

    Writes happen only when ``live`` is asked for and either the operator asks or the controller's
    mode is live, so that a run queued before a switch to dry-run writes nothing.

    Raises:
        RedisUnavailable: If Redis went away before anything was written.
        DatabaseError: If ledger or guards cannot be read.
        Fenced: If another controller has taken over.
    """
    settings = services.settings
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
        publisher=EdgePublisher(surfaces=services.surfaces, ledger=services.ledger, lease=lease),
        read_payloads=services.read_payloads,
        edge=settings.edge,
        ledger=services.ledger,
        incidents=services.incidents,
        budget=settings.zlh_max_repairs_per_server_hour,
    )
    return repairer.run(batch)
