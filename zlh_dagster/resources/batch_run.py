"""One run of the repair job: the lease, then the batch under it."""

import logging
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import replace

from zlh_dagster.core.incidents import Incident
from zlh_dagster.core.launch import REPAIR_RUN_FAILED
from zlh_dagster.core.model import EDGE_ACTIONS, OPERATION_ACTIONS, Action
from zlh_dagster.core.policy import sources_of
from zlh_dagster.core.repair import OPERATOR, Refusal, RepairOutcome, RepairRequest, Status
from zlh_dagster.core.result import BatchResult
from zlh_dagster.resources.batch import Batch, Recorder
from zlh_dagster.resources.database import DatabaseError
from zlh_dagster.resources.edge_repairs import EdgeRepairs
from zlh_dagster.resources.http import EdgeError
from zlh_dagster.resources.lease import Lease, acquire
from zlh_dagster.resources.ledger import Fenced
from zlh_dagster.resources.operation_repairs import OperationRepairs
from zlh_dagster.resources.preconditions import Checks
from zlh_dagster.resources.publisher import EdgePublisher
from zlh_dagster.resources.redis import RedisUnavailable
from zlh_dagster.resources.reverts import Reverts
from zlh_dagster.resources.services import Services
from zlh_dagster.resources.workload_repairs import WorkloadRepairs

_OVER = (Status.SUCCEEDED, None)
_ENDS_THE_BATCH = (DatabaseError, Fenced, RedisUnavailable)
_log = logging.getLogger(__name__)


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


def may_write(services: Services, *, live: bool, requested_by: str) -> bool:
    """Whether a batch may write: asked for, and by the operator or in live mode.

    A run that was queued before a switch to dry-run writes nothing.
    """
    return live and (services.settings.live or requested_by == OPERATOR)


def run_batch(services: Services, lease: Lease, batch: Batch) -> BatchResult:
    """Carries out the batch under the lease.

    Raises:
        RedisUnavailable: If Redis went away before anything was written.
        DatabaseError: If ledger or guards cannot be read before anything was written.
        Fenced: If another controller has taken over before anything was written.
    """
    started = time.monotonic()
    recalled = services.gate.recall()
    if recalled:
        _log.warning("Redis did not know of these pauses, they hold now: %s", ", ".join(recalled))
    incidents = services.incidents
    open_incidents = incidents.all_open()
    recorder = Recorder(batch, services.ledger, open_incidents)
    findings = tuple(finding for finding in batch.findings if recorder.finding(finding))
    interrupted = services.ledger.interrupt_below(batch.fencing_token)
    # Under the lease, and before the first write: good for one batch, and lost by none that waits.
    services.gate.spend(batch.approvals)
    publisher = EdgePublisher(
        surfaces=services.surfaces, ledger=services.ledger, lease=lease, gate=services.gate
    )
    outcomes: list[RepairOutcome] = []
    try:
        for part in _parts(services, lease, batch, recorder, publisher):
            outcomes.extend(part)
    except _ENDS_THE_BATCH as error:
        if not (outcomes or findings or interrupted):
            raise
        # What was repaired before is still told; what was not tried is told as that.
        done = {outcome.request for outcome in outcomes}
        outcomes.extend(
            recorder.failed(request, f"not tried: {error}", code="not_tried")
            for request in batch.repairs
            if request not in done
        )
    over = [name for o in outcomes for name in _ended_by(o, open_incidents)]
    try:
        now = time.time()
        for finding in recorder.opened:
            # Untold until the message is sent: a run that dies before is made up for.
            opened = replace(Incident.of(finding, now=now), untold_at=now)
            incidents.open(replace(opened, code=recorder.codes.get(finding.incident, "")))
        for finding in recorder.changed:
            worse = finding.severity is not open_incidents[finding.incident].severity
            code = recorder.codes[finding.incident]
            incidents.change(finding, code=code, untold_at=now if worse else None)
        # Known now, also while Discord cannot be told that it is over.
        incidents.absent([REPAIR_RUN_FAILED], now=now)
    except RedisUnavailable as error:
        _log.warning("%s: what was told may be told again", error)
    # What this run has just mended is over, and not called still open.
    told_over = [name for name in (*batch.over, REPAIR_RUN_FAILED) if name in open_incidents]
    ended = list(dict.fromkeys((*told_over, *over)))
    due = [name for name in batch.due if name in open_incidents and name not in ended]
    return BatchResult(
        outcomes=tuple(outcomes),
        findings=findings,
        interrupted=tuple(interrupted),
        due=tuple(open_incidents[name] for name in due),
        over=tuple(open_incidents[name] for name in ended),
        approved=tuple(name for name in batch.approvals if name in open_incidents),
        live=batch.live,
        seconds=round(time.monotonic() - started, 3),
        writes=publisher.writes,
    )


def _ended_by(outcome: RepairOutcome, open_incidents: Mapping[str, Incident]) -> list[str]:
    """Open incidents that a repair ends: those that are about no more than it has looked at."""
    if outcome.status not in _OVER:
        return []
    looked_at = set(sources_of(outcome.request))
    return [
        name
        for name in outcome.request.incidents
        if name in open_incidents and looked_at.issuperset(open_incidents[name].sources)
    ]


def _parts(
    services: Services,
    lease: Lease,
    batch: Batch,
    recorder: Recorder,
    publisher: EdgePublisher,
) -> Iterator[list[RepairOutcome]]:
    """The outcomes of the batch, part by part: the edge first, players wait there."""
    settings = services.settings
    checks = Checks(
        batch,
        ledger=services.ledger,
        gate=services.gate,
        budget=settings.zlh_max_repairs_per_server_hour,
        level2=settings.zlh_level2_actions,
    )
    edge = EdgeRepairs(
        publisher=publisher,
        read_payloads=services.read_payloads,
        edge=settings.edge,
        checks=checks,
        gate=services.gate,
        recorder=recorder,
    )
    yield from edge.run(batch, [r for r in batch.repairs if r.action in EDGE_ACTIONS])
    list_containers = services.proxmox.list_containers if services.proxmox else None
    operations = OperationRepairs(
        engine=services.engine,
        read_operations=services.read_operations,
        read_payloads=services.read_payloads,
        list_containers=list_containers,
        ledger=services.ledger,
        lease=lease,
        checks=checks,
        recorder=recorder,
    )
    workloads = WorkloadRepairs(
        agent=services.agent,
        read_payloads=services.read_payloads,
        read_operations=services.read_operations,
        list_containers=list_containers,
        ledger=services.ledger,
        lease=lease,
        checks=checks,
        recorder=recorder,
    )
    reverts = Reverts(
        publisher=publisher,
        read_payloads=services.read_payloads,
        edge=settings.edge,
        ledger=services.ledger,
        gate=services.gate,
        checks=checks,
        recorder=recorder,
    )
    for request in batch.repairs:
        if request.action in EDGE_ACTIONS:
            continue
        if publisher.stopped is not None:
            reason = f"not tried: {publisher.stopped}"
            yield [recorder.failed(request, reason, code="not_tried")]
            continue
        if request.action in OPERATION_ACTIONS:
            carry_out: Callable[[Batch, RepairRequest], RepairOutcome] = operations.repair
        elif request.action is Action.STOP_SUSPENDED_WORKLOAD:
            carry_out = workloads.repair
        elif request.action is Action.REVERT:
            carry_out = reverts.repair
        else:
            yield [_refused(checks, recorder, request)]
            continue
        try:
            yield [carry_out(batch, request)]
        except EdgeError as error:
            yield [recorder.refuse(request, Refusal("unobserved", str(error)))]
        except _ENDS_THE_BATCH:
            raise
        except Exception as error:  # noqa: BLE001 - what was done before must be told
            _log.exception(
                "%s of %s could not be carried out", request.action.value, request.subject
            )
            yield [recorder.broken_off(request, error)]


def _refused(checks: Checks, recorder: Recorder, request: RepairRequest) -> RepairOutcome:
    """An action that no code carries out."""
    refusal = checks.refusals([request]).get(request)
    return recorder.refuse(request, refusal or Refusal("not_built", "no code carries it out"))
