"""Closing rows of dead work: only what is dead, only as it was read, only under the lease."""

from dataclasses import replace
from datetime import datetime, timedelta, timezone

import pytest
import sqlalchemy as sa

from tests.clock import ago, at
from tests.conftest import SERVERS
from tests.queues import a_minute_passes, make_queue, put_job
from tests.resources.repairing import Proxmox, bench, code, table_rows
from zlh_dagster.core.holds import EVERYTHING, Pause
from zlh_dagster.core.incidents import Incident
from zlh_dagster.core.model import Action
from zlh_dagster.core.repair import OPERATOR, RepairRequest
from zlh_dagster.resources import operations as operations_module
from zlh_dagster.resources.database import DatabaseError
from zlh_dagster.resources.ledger import Fenced
from zlh_dagster.resources.operation_repairs import OperationRepairs
from zlh_dagster.resources.redis import RedisUnavailable
from zlh_dagster.sandbox.platform_rows import (
    change_server,
    write_operation,
    write_ports,
    write_reservation,
)
from zlh_dagster.schema.tables import (
    container_instance,
    port_pool,
    provisioning_operation,
    vmid_reservation,
)

NEW = 5900
DEV = 6000
ACTIVE = [{"vmid": v, "status": "running"} for v in (*range(5000, 5000 + SERVERS), DEV)]
CLEAR = RepairRequest(5000, Action.CLEAR_STALE_OPERATION_LOCK, target="stale")
FAIL = RepairRequest(NEW, Action.FAIL_STUCK_PROVISIONING, target="stuck")
BOTH = pytest.mark.parametrize("request_", [CLEAR, FAIL], ids=["clear", "fail"])
PLATFORM = (provisioning_operation, vmid_reservation, port_pool, container_instance)


@pytest.fixture
def services(platform):
    return platform.services()


@pytest.fixture
def db(platform, services):
    """A stale lock on 5000 and a stuck creation of 5900, both jobs dead at two reads."""
    engine, redis = platform.engine, services.redis
    make_queue(redis, "operation")
    put_job(redis, "operation", "1", "failed")
    put_job(redis, "provisioning", "2", "gone")
    write_operation(
        engine,
        id="stale",
        vmid=5000,
        type="restart",
        queue="operation",
        jobId="1",
        status="running",
        heartbeatAt=ago(minutes=10),
        createdAt=ago(minutes=20),
    )
    write_operation(
        engine,
        id="stuck",
        vmid=NEW,
        type="create",
        queue="provisioning",
        jobId="2",
        createdAt=ago(minutes=16),
    )
    write_reservation(engine, vmid=NEW, operation_id="stuck", reservedAt=ago(minutes=16))
    write_ports(engine, [25601, 25602], allocatedTo=NEW)
    write_ports(engine, [25603], allocatedTo=5001)
    services.count_operations()
    a_minute_passes(services)
    services.count_operations()
    return engine


@pytest.fixture
def run(services, db):
    """Repairs one request; the database, the lease and the ledger are real."""
    with bench(services) as made:

        def run(request, *, proxmox=None, **values):
            batch = made.batch(request, **values)
            made.proxmox = Proxmox(ACTIVE) if proxmox is None else proxmox
            repairs = OperationRepairs(
                engine=db,
                read_operations=services.read_operations,
                read_payloads=services.read_payloads,
                list_containers=made.proxmox.list_containers if made.proxmox else None,
                lease=made.lease,
                **made.parts(batch),
            )
            return repairs.repair(batch, request)

        run.bench = made
        yield run


def operation(db, name):
    row = operations_module.read_one(db, name)
    return row["status"], row["completedAt"] is not None, row["error"]


def change(db, name, **values):
    """Changes columns; a span becomes a time that long ago, counted from now."""
    table = provisioning_operation
    with db.begin() as connection:
        connection.execute(sa.update(table).where(table.c.id == name).values(**at(values)))


# --- what is closed ------------------------------------------------------------------------------


def test_a_stale_lock_becomes_stale_with_a_structured_error_and_nothing_else_changes(run, db):
    before = table_rows(db, *PLATFORM)
    outcome = run(CLEAR)
    assert code(outcome) == ("succeeded", "")
    status, completed, error = operation(db, "stale")
    assert (status, completed) == ("stale", True)
    assert error["code"] == "stale_operation"
    assert error["controllerRunId"] == "run-1"
    assert error["observed"]["job"] == "failed"
    assert error["observed"]["status"] == "running"
    assert outcome.changes == ("restart operation stale (running, job failed) as stale",)
    after = table_rows(db, *PLATFORM)
    assert {name for name in before if before[name] != after[name]} == {"ProvisioningOperation"}
    assert operation(db, "stuck")[0] == "queued"


def test_the_ledger_has_the_row_before_and_after(run):
    outcome = run(replace(CLEAR, reason="its queue job is failed"))
    [event] = run.bench.events()
    assert outcome.event_id == event["id"]
    assert (event["status"], event["vmid"], event["level"]) == ("succeeded", 5000, 1)
    assert event["reason"] == "its queue job is failed"
    assert event["fencingToken"] == run.bench.lease.fence
    assert (event["before"]["status"], event["after"]["status"]) == ("running", "stale")
    assert event["before"]["deadReads"] == 2
    assert event["error"] is None
    assert run.bench.opened == []


def test_a_stuck_creation_fails_and_gives_back_its_vmid_and_its_ports(run, db):
    outcome = run(FAIL)
    assert code(outcome) == ("succeeded", "")
    assert outcome.reason == f"released VMID {NEW}, ports 25601, 25602"
    status, completed, error = operation(db, "stuck")
    assert (status, completed, error["code"]) == ("failed", True, "stuck_provisioning")
    with db.connect() as connection:
        reserved = connection.execute(sa.select(vmid_reservation.c.releasedAt)).scalar_one()
        assert abs(reserved - datetime.now(timezone.utc)) < timedelta(seconds=10)
        ports = connection.execute(
            sa.select(port_pool.c.port, port_pool.c.status, port_pool.c.allocatedTo)
        ).all()
    assert [tuple(row) for row in ports] == [
        (25601, "free", None),
        (25602, "free", None),
        (25603, "allocated", 5001),
    ]
    [event] = run.bench.events()
    assert event["after"]["released"] == {"vmid": NEW, "ports": [25601, 25602]}


def reserve(db, *vmids):
    """Only these VMIDs are reserved for the stuck creation."""
    with db.begin() as connection:
        connection.execute(sa.delete(vmid_reservation))
    for vmid in vmids:
        write_reservation(db, vmid=vmid, operation_id="stuck", reservedAt=ago(minutes=16))


def test_a_creation_that_names_no_vmid_gives_back_the_one_reserved_for_it(run, db):
    change(db, "stuck", vmid=None)
    outcome = run(FAIL)
    assert code(outcome) == ("succeeded", "")
    assert outcome.reason == f"released VMID {NEW}, ports 25601, 25602"
    assert run.bench.proxmox.asked == 1


def test_a_creation_that_never_got_a_vmid_is_failed_without_asking_proxmox(run, db):
    change(db, "stuck", vmid=None)
    reserve(db)
    outcome = run(replace(FAIL, vmid=None), proxmox=Proxmox(error="down"))
    assert code(outcome) == ("succeeded", "")
    assert run.bench.proxmox.asked == 0
    assert operation(db, "stuck")[0] == "failed"
    [event] = run.bench.events()
    assert event["vmid"] is None


def test_a_vmid_reserved_for_another_operation_is_not_given_back(run, db):
    table = vmid_reservation
    with db.begin() as connection:
        connection.execute(sa.update(table).values(operationId="another"))
    outcome = run(FAIL)
    assert code(outcome) == ("succeeded", "")
    assert outcome.reason == ""
    with db.connect() as connection:
        assert connection.execute(sa.select(table.c.releasedAt)).scalar_one() is None
        held = sa.select(port_pool.c.port).where(port_pool.c.allocatedTo == NEW)
        assert len(connection.execute(held).all()) == 2


@pytest.mark.parametrize("vmid", [5000, None])
def test_by_hand_the_servers_only_such_operation_is_meant(run, db, vmid):
    if vmid is None:
        outcome = run(replace(FAIL, target=None), requested_by=OPERATOR, decided_at=None)
        assert operation(db, "stuck")[0] == "failed"
    else:
        outcome = run(replace(CLEAR, target=None), requested_by=OPERATOR, decided_at=None)
        assert operation(db, "stale")[0] == "stale"
    assert code(outcome) == ("succeeded", "")


def test_by_hand_two_such_operations_are_not_guessed_between(run, db):
    change(db, "stuck", vmid=5000, status="running", type="restart")
    outcome = run(replace(CLEAR, target=None), requested_by=OPERATOR)
    assert code(outcome) == ("refused", "ambiguous")
    assert "stale, stuck" in outcome.reason
    assert operation(db, "stale")[0] == "running"


# --- what is not ---------------------------------------------------------------------------------


def refused(run, db, request, **options):
    """The code of a refusal that changed nothing of the platform."""
    before = table_rows(db, *PLATFORM)
    outcome = run(request, **options)
    assert table_rows(db, *PLATFORM) == before
    assert outcome.status.value == "refused"
    [event] = run.bench.events()
    assert (event["status"], event["error"]["code"]) == ("refused", outcome.code)
    assert run.bench.opened == [request.refusal_incident]
    return outcome.code


@pytest.mark.parametrize("state", ["active", "wait", "delayed", "prioritized", "paused"])
@BOTH
def test_a_job_that_lives_after_all_keeps_its_operation(run, db, services, request_, state):
    queue, job = ("operation", "1") if request_ is CLEAR else ("provisioning", "2")
    put_job(services.redis, queue, job, state)
    assert refused(run, db, request_) == "job_alive"


@BOTH
def test_a_job_that_was_read_dead_only_once_keeps_it(run, db, services, request_):
    services.redis.delete("zlh:dead_jobs")
    assert refused(run, db, request_) == "too_soon"
    services.count_operations()
    outcome = run(request_)
    assert code(outcome) == ("refused", "too_soon")


@pytest.mark.parametrize(
    ("request_", "values", "why"),
    [
        (CLEAR, {"heartbeatAt": timedelta(seconds=5)}, "not_stale"),
        (CLEAR, {"heartbeatAt": None}, "not_stale"),
        (FAIL, {"progressAt": timedelta(minutes=1)}, "not_stuck"),
        (FAIL, {"createdAt": timedelta(minutes=1)}, "not_stuck"),
        (FAIL, {"type": "restart"}, "not_stuck"),
    ],
)
def test_an_operation_that_moved_since_the_tick_is_left_alone(run, db, request_, values, why):
    change(db, request_.target, **values)
    assert refused(run, db, request_) == why


@pytest.mark.parametrize(
    ("values", "why"),
    [
        ({"lifecycle": "suspended"}, "lifecycle"),
        ({"lifecycle": "deleting"}, "lifecycle"),
        ({"billingStatus": "suspended"}, "billing"),
        ({"maintenanceReason": "moving"}, "maintenance"),
        ({"ctype": "dev"}, "server_type"),
    ],
)
def test_guards_are_read_again_from_the_database(run, db, values, why):
    change_server(db, 5000, **values)
    assert refused(run, db, CLEAR) == why


@pytest.mark.parametrize("vmid", [5001, None])
def test_an_operation_of_another_server_is_not_closed_past_that_servers_guards(run, db, vmid):
    """The request names a server that may be repaired; the operation belongs to one in work."""
    change_server(db, 5000, maintenanceReason="moving")
    assert refused(run, db, replace(CLEAR, vmid=vmid)) == "other_server"


def test_a_container_of_that_vmid_keeps_all_that_it_may_use(run, db):
    there = Proxmox([*ACTIVE, {"vmid": NEW, "status": "stopped"}])
    assert refused(run, db, FAIL, proxmox=there) == "container_exists"


@pytest.mark.parametrize(
    ("proxmox", "why"),
    [
        (Proxmox([*ACTIVE, {"vmid": NEW, "status": "stopped"}]), "container_exists"),
        (Proxmox(error="HTTP 500"), "proxmox_unseen"),
        (False, "proxmox_unseen"),
    ],
    ids=["exists", "fails", "off"],
)
def test_a_vmid_that_only_the_reservation_names_is_looked_for_as_well(run, db, proxmox, why):
    change(db, "stuck", vmid=None)
    assert refused(run, db, FAIL, proxmox=proxmox) == why


def test_the_guards_of_the_reserved_vmid_hold_too(run, db):
    change(db, "stuck", vmid=None)
    reserve(db, 5003)
    assert refused(run, db, replace(FAIL, vmid=5003)) == "lifecycle"


def test_a_creation_that_got_its_vmid_since_the_tick_is_left_to_the_next_one(run, db):
    change(db, "stuck", vmid=None)
    assert refused(run, db, replace(FAIL, vmid=None)) == "other_server"


@pytest.mark.parametrize("named", [None, NEW])
def test_two_vmids_of_one_creation_are_not_chosen_between(run, db, named):
    change(db, "stuck", vmid=named)
    reserve(db, NEW + 1, NEW + 2)
    assert refused(run, db, replace(FAIL, vmid=named)) == "row_unusable"
    message = run.bench.events()[-1]["error"]["message"]
    assert f"{NEW + 1}, {NEW + 2} reserved for it" in message


@pytest.mark.parametrize("proxmox", [Proxmox(error="HTTP 500"), False], ids=["fails", "off"])
def test_without_a_listing_of_containers_nothing_is_given_back(run, db, proxmox):
    assert refused(run, db, FAIL, proxmox=proxmox) == "proxmox_unseen"


@pytest.mark.parametrize("missing", [5000, 5003, DEV])
def test_a_list_that_lacks_an_active_server_proves_no_vmid_unused(run, db, missing):
    """The token may see some containers only, or that one lives on another node."""
    short = Proxmox([row for row in ACTIVE if row["vmid"] != missing])
    assert refused(run, db, FAIL, proxmox=short) == "proxmox_unseen"
    assert f"active servers {missing}" in run.bench.events()[-1]["error"]["message"]
    change_server(db, missing, lifecycle="suspended")
    assert code(run(FAIL, proxmox=short)) == ("succeeded", "")


def test_a_pause_and_an_old_decision_refuse(run, db, services):
    assert refused(run, db, CLEAR, decided_at=1.0) == "stale_decision"
    services.gate.pause(Pause(EVERYTHING, "x", 1.0))
    assert code(run(CLEAR)) == ("refused", "paused")
    assert operation(db, "stale")[0] == "running"


def test_a_refusal_that_lasts_is_told_once(run, db, services):
    put_job(services.redis, "operation", "1", "active")
    run.bench.open_incidents = {name: Incident(name, "warning", name) for name in CLEAR.incidents}
    assert not run(CLEAR).is_news
    assert run.bench.events() == []
    assert run.bench.opened == []


@pytest.mark.parametrize("status", ["succeeded", "failed", "stale", "queued"])
def test_an_operation_that_was_closed_meanwhile_needs_nothing(run, db, status):
    change(db, "stale", status=status)
    before = table_rows(db, *PLATFORM)
    outcome = run(CLEAR)
    assert outcome.status is None
    assert table_rows(db, *PLATFORM) == before
    assert run.bench.events() == []


# --- dry run -------------------------------------------------------------------------------------


@BOTH
def test_a_dry_run_writes_its_own_row_and_nothing_else(run, db, request_):
    before = table_rows(db, *PLATFORM)
    outcome = run(request_, live=False)
    assert table_rows(db, *PLATFORM) == before
    assert code(outcome) == ("dry_run", "")
    [event] = run.bench.events()
    assert event["status"] == "dry_run"
    assert event["before"]["id"] == request_.target
    assert event["after"] == {"status": "stale" if request_ is CLEAR else "failed"}
    assert run.bench.opened == [request_.dry_run_incident]


def test_a_dry_run_refuses_what_a_live_one_would(run, db):
    there = Proxmox([*ACTIVE, {"vmid": NEW, "status": "running"}])
    assert refused(run, db, FAIL, proxmox=there, live=False) == "container_exists"


# --- lost on the way -----------------------------------------------------------------------------


@BOTH
def test_without_the_lease_nothing_is_written(run, db, request_):
    before = table_rows(db, *PLATFORM)
    run.bench.take_lease_away()
    outcome = run(request_)
    assert code(outcome) == ("failed", "not_tried")
    assert "lease" in outcome.reason
    assert table_rows(db, *PLATFORM) == before
    assert run.bench.events() == [], "no row, so nothing counts against the server"


@BOTH
def test_a_replaced_controller_writes_nothing(run, db, request_):
    before = table_rows(db, *PLATFORM)
    run.bench.be_replaced()
    with pytest.raises(Fenced):
        run(request_)
    assert table_rows(db, *PLATFORM) == before
    assert run.bench.events() == []


@pytest.mark.parametrize(
    "values",
    [
        {"heartbeatAt": timedelta(seconds=1)},
        {"progressAt": timedelta(seconds=1)},
        {"leaseExpiresAt": timedelta(seconds=-60)},
        {"jobId": "3"},
        {"status": "succeeded"},
        {"updatedAt": timedelta(seconds=1)},
    ],
    ids=lambda values: next(iter(values)),
)
@BOTH
def test_a_row_that_changes_between_look_and_write_is_not_written_to(
    run, db, monkeypatch, request_, values
):
    """The worker comes back to life after the last look: its sign of life wins."""
    ledger, opened = run.bench.services.ledger, run.bench.services.ledger.open

    def and_then_it_moves(entry):
        event_id = opened(entry)
        change(db, request_.target, **values)
        return event_id

    monkeypatch.setattr(ledger, "open", and_then_it_moves)
    before = table_rows(db, vmid_reservation, port_pool)
    outcome = run(request_)
    assert code(outcome) == ("refused", "changed_meanwhile")
    assert "changed between the look and the write" in outcome.reason
    status, completed, error = operation(db, request_.target)
    assert status == values.get("status", "running" if request_ is CLEAR else "queued")
    assert (completed, error) == (False, None)
    assert table_rows(db, vmid_reservation, port_pool) == before
    [event] = run.bench.events()
    assert (event["status"], event["error"]["code"]) == ("refused", "changed_meanwhile")


@pytest.mark.parametrize("vmid", [NEW, None])
def test_a_vmid_that_is_reserved_between_look_and_write_keeps_the_creation(
    run, db, monkeypatch, vmid
):
    """It would be nobody's from then on, for a failed creation is not looked at again."""
    change(db, "stuck", vmid=vmid)
    reserve(db)
    ledger, opened = run.bench.services.ledger, run.bench.services.ledger.open

    def and_then_one_is_reserved(entry):
        event_id = opened(entry)
        write_reservation(db, vmid=NEW + 1, operation_id="stuck")
        return event_id

    monkeypatch.setattr(ledger, "open", and_then_one_is_reserved)
    before = table_rows(db, provisioning_operation, port_pool)
    assert code(run(replace(FAIL, vmid=vmid))) == ("refused", "changed_meanwhile")
    assert table_rows(db, provisioning_operation, port_pool) == before


@BOTH
def test_a_controller_that_is_replaced_between_its_row_and_its_write_writes_nothing(
    run, db, monkeypatch, request_
):
    ledger, opened = run.bench.services.ledger, run.bench.services.ledger.open

    def and_then_be_replaced(entry):
        event_id = opened(entry)
        monkeypatch.setattr(ledger, "open", opened)
        ledger.interrupt_below(entry.fencing_token + 1)
        run.bench.be_replaced()
        return event_id

    monkeypatch.setattr(ledger, "open", and_then_be_replaced)
    before = table_rows(db, *PLATFORM)
    outcome = run(request_)
    assert table_rows(db, *PLATFORM) == before
    assert code(outcome)[0] == "failed"
    [event] = run.bench.events()
    assert event["status"] == "interrupted", "what the later one has closed stays as it is"


def test_a_database_that_fails_at_the_write_is_a_failure_with_its_row_closed(run, db, monkeypatch):
    def fails(*_, **__):
        raise DatabaseError("platform database: OperationalError: disk full")

    monkeypatch.setattr(operations_module, "mark_stale", fails)
    outcome = run(CLEAR)
    assert code(outcome) == ("failed", "repair_failed")
    assert "disk full" in outcome.reason
    [event] = run.bench.events()
    assert (event["status"], event["error"]["code"]) == ("failed", "repair_failed")
    assert run.bench.opened == [CLEAR.failure_incident]


def test_a_write_that_a_fresh_read_does_not_show_is_no_success(run, monkeypatch):
    monkeypatch.setattr(operations_module, "mark_stale", lambda *_, **__: True)
    outcome = run(CLEAR)
    assert code(outcome)[0] == "failed"
    assert "a fresh read does not show it" in outcome.reason


def test_without_redis_nothing_is_known_to_be_dead(run, db, services, monkeypatch):
    def lost(*_, **__):
        raise RedisUnavailable("Redis cannot be reached: dead jobs are not known")

    monkeypatch.setattr(services.dead_jobs, "look", lost)
    before = table_rows(db, *PLATFORM)
    with pytest.raises(RedisUnavailable):
        run(CLEAR)
    assert table_rows(db, *PLATFORM) == before


def test_a_second_repair_of_the_same_operation_finds_nothing_to_do(run):
    run(CLEAR)
    assert run(CLEAR).status is None
    assert len(run.bench.events()) == 1


@pytest.mark.parametrize(("what", "expected"), [("job", "job_alive"), ("pause", "paused")])
def test_what_changes_while_proxmox_is_listed_is_seen(run, db, services, what, expected):
    """The listing may take seconds: jobs, pauses and guards are looked at once more after it."""

    class Slow(Proxmox):
        def list_containers(self):
            if what == "job":
                put_job(services.redis, "provisioning", "2", "active")
            else:
                services.gate.pause(Pause(EVERYTHING, "x", 1.0))
            return super().list_containers()

    assert refused(run, db, FAIL, proxmox=Slow(ACTIVE)) == expected
