"""What the loop watches beside the edge, from the outside system to the ledger and the message."""

from dataclasses import replace
from datetime import timedelta

import pytest
import sqlalchemy as sa

from tests.clock import ago, at
from tests.dead_work import NEW, operation, queued, running, two_ticks
from tests.harness import Loop, statuses, titles, writes
from tests.queues import PROVISIONING, a_minute_passes, make_queue, put_job
from zlh_dagster.cli.holds import pause
from zlh_dagster.resources import workload_repairs
from zlh_dagster.resources.database import DatabaseError
from zlh_dagster.sandbox.platform_rows import (
    change_server,
    write_operation,
    write_ports,
    write_reservation,
)
from zlh_dagster.schema.tables import (
    container_instance,
    port_pool,
    vmid_reservation,
)


@pytest.fixture
def redis(loop):
    make_queue(loop.services.redis, PROVISIONING)
    make_queue(loop.services.redis, "operation")
    return loop.services.redis


@pytest.fixture
def db(platform):
    return platform.engine


def servers(db):
    with db.connect() as connection:
        query = sa.select(container_instance).where(container_instance.c.ctype == "game")
        return [dict(row) for row in connection.execute(query).mappings()]


def ports(db):
    with db.connect() as connection:
        rows = connection.execute(sa.select(port_pool).order_by(port_pool.c.port)).mappings()
        return [(row["port"], row["status"], row["allocatedTo"]) for row in rows]


def reserved(db, vmid=NEW):
    with db.connect() as connection:
        table = vmid_reservation
        query = sa.select(table.c.releasedAt).where(table.c.vmid == vmid)
        return connection.execute(query).scalar_one() is None


# Stale operation lock


@pytest.mark.parametrize(("vmid", "tag"), [(5000, "5000"), (None, "op-running")])
def test_the_run_of_an_operation_is_found_by_its_server(loop, db, redis, vmid, tag):
    running(db, redis, vmid=vmid)
    made = two_ticks(loop)[-1]
    assert loop.instance.get_run_by_id(made.run_id).tags["zlh/vmid"] == tag


def test_a_stale_operation_lock_is_cleared_with_a_structured_error(loop, sandbox, db, redis):
    made = running(db, redis)
    assert two_ticks(loop)[-1].success
    row = operation(db, made)
    assert row["status"] == "stale"
    assert row["completedAt"] is not None
    assert row["error"]["code"] == "stale_operation"
    assert row["error"]["observed"]["job"] == "gone"
    [event] = loop.services.ledger.events()
    assert row["error"]["controllerRunId"] == event["runId"]
    assert (event["action"], event["status"], event["vmid"]) == (
        "clear_stale_operation_lock",
        "succeeded",
        5000,
    )
    assert event["before"]["status"] == "running"
    assert event["after"]["status"] == "stale"
    assert titles(sandbox) == ["Repaired server 5000"]
    assert writes(sandbox) == []
    loop.minute()
    assert statuses(loop.services) == ["succeeded"]


@pytest.mark.parametrize(
    ("state", "columns"),
    [
        ("active", {}),
        ("wait", {}),
        ("delayed", {}),
        ("gone", {"heartbeatAt": timedelta(seconds=20)}),
        ("gone", {"heartbeatAt": None}),
        ("gone", {"status": "succeeded"}),
    ],
)
def test_an_operation_that_may_be_worked_on_is_left_alone(loop, sandbox, db, redis, state, columns):
    """An old heartbeat alone proves nothing, and neither does a dead job alone."""
    made = running(db, redis, state=state, **columns)
    before = operation(db, made)
    two_ticks(loop)
    assert operation(db, made) == before
    assert statuses(loop.services) == []


def test_a_job_that_is_dead_at_one_tick_only_is_left_alone(loop, db, redis):
    made = running(db, redis)
    assert loop.minute() == []
    put_job(redis, "operation", "77", "active")
    loop.minute()
    put_job(redis, "operation", "77", "gone")
    a_minute_passes(loop.services)
    assert loop.minute() == []
    assert operation(db, made)["status"] == "running"


def test_a_job_that_comes_alive_between_tick_and_repair_is_left_alone(loop, db, redis):
    made = running(db, redis)
    loop.minute()
    a_minute_passes(loop.services)
    assert loop.observe().success
    [request] = loop.judge()
    put_job(redis, "operation", "77", "active")
    loop.repair(request.run_config)
    assert operation(db, made)["status"] == "running"
    assert statuses(loop.services) == ["refused"]
    assert loop.services.ledger.events()[0]["error"]["code"] == "job_alive"


def test_queues_that_are_not_there_are_unknown_and_not_dead(loop, db):
    """A wrong prefix, or a Redis that lost everything, must not fail every operation."""
    write_operation(
        db,
        id="x",
        type="restart",
        queue="operation",
        jobId="1",
        status="running",
        vmid=5000,
        heartbeatAt=ago(hours=2),
    )
    for _ in range(3):
        loop.minute()
        a_minute_passes(loop.services)
    assert operation(db, "x")["status"] == "running"
    assert statuses(loop.services) == []


def test_after_a_failure_of_the_ledger_at_the_edge_no_operation_is_closed_either(
    loop, sandbox, db, redis, monkeypatch
):
    """What stops one kind of repair stops all others in the same run."""
    running(db, redis, vmid=5001)
    loop.observe()
    a_minute_passes(loop.services)
    loop.observe()
    [record] = sandbox.edge.cloudflare.named("mc-5000.example.gg")
    sandbox.edge.cloudflare.remove(record.id)
    real, asked = loop.services.ledger.open_all, []

    def fails_once(entries):
        asked.extend(entry.action for entry in entries)
        if len(asked) == 1:
            raise DatabaseError("platform database: gone for a moment")
        return real(entries)

    monkeypatch.setattr(loop.services.ledger, "open_all", fails_once)
    both = ((5000, "dns_republish"), (5001, "clear_stale_operation_lock"))
    assert not loop.by_hand(*both).success
    assert asked == ["dns_republish"]
    assert writes(sandbox) == []
    assert operation(db, "op-running")["status"] == "running"
    assert loop.by_hand(*both).success
    assert operation(db, "op-running")["status"] == "stale"


# Stuck provisioning


def test_stuck_provisioning_is_failed_and_gives_back_what_it_held(loop, sandbox, db, redis):
    made = queued(db, redis)
    assert two_ticks(loop)[-1].success
    row = operation(db, made)
    assert row["status"] == "failed"
    assert row["error"]["code"] == "stuck_provisioning"
    assert not reserved(db)
    assert ports(db) == [(25601, "free", None), (25602, "free", None)]
    [event] = loop.services.ledger.events()
    assert (event["action"], event["status"]) == ("fail_stuck_provisioning", "succeeded")
    assert event["after"]["status"] == "failed"
    assert titles(sandbox) == [f"Repaired server {NEW}"]


@pytest.mark.parametrize(
    ("state", "columns"),
    [
        ("active", {}),
        ("gone", {"progressAt": timedelta(minutes=1)}),
        ("gone", {"createdAt": timedelta(minutes=14)}),
        ("gone", {"type": "start"}),
    ],
)
def test_provisioning_that_moves_or_is_worked_on_is_left_alone(loop, db, redis, state, columns):
    made = queued(db, redis, state=state, **columns)
    two_ticks(loop)
    assert operation(db, made)["status"] == "queued"
    assert reserved(db)
    assert statuses(loop.services) == []


def test_provisioning_whose_job_waits_is_told_and_not_failed(loop, sandbox, db, redis):
    made = queued(db, redis, state="wait")
    two_ticks(loop)
    assert operation(db, made)["status"] == "queued"
    assert titles(sandbox) == [f"Server {NEW}: provisioning waits"]


@pytest.mark.parametrize("fault", ["empty", "status"])
def test_without_a_listing_of_containers_nothing_is_released(loop, sandbox, db, redis, fault):
    made = queued(db, redis)
    options = {"code": 500} if fault == "status" else {}
    sandbox.edge.faults.switch_on("proxmox", fault, **options)
    two_ticks(loop)
    assert operation(db, made)["status"] == "queued"
    assert reserved(db)
    assert loop.services.ledger.events()[0]["error"]["code"] == "proxmox_unseen"


def test_a_creation_that_names_no_vmid_gives_back_the_one_reserved_for_it(loop, sandbox, db, redis):
    """The API reserves first, and writes the VMID into the operation later."""
    made = queued(db, redis, vmid=None)
    write_reservation(db, vmid=NEW, operation_id=made)
    write_ports(db, [25601, 25602], allocatedTo=NEW)
    assert two_ticks(loop)[-1].success
    assert operation(db, made)["status"] == "failed"
    assert not reserved(db)
    assert ports(db) == [(25601, "free", None), (25602, "free", None)]
    [event] = loop.services.ledger.events()
    assert (event["action"], event["status"]) == ("fail_stuck_provisioning", "succeeded")
    assert (event["vmid"], event["after"]["released"]["vmid"]) == (NEW, NEW)
    assert titles(sandbox) == [f"Repaired server {NEW}"]


@pytest.mark.parametrize("vmid", [None, NEW])
def test_a_creation_with_two_vmids_is_told_and_left_alone(loop, sandbox, db, redis, vmid):
    made = queued(db, redis, vmid=vmid)
    for other in (NEW + 1, NEW + 2):
        write_reservation(db, vmid=other, operation_id=made)
    two_ticks(loop)
    assert operation(db, made)["status"] == "queued"
    assert reserved(db, NEW + 1)
    assert reserved(db, NEW + 2)
    assert statuses(loop.services) == []
    assert titles(sandbox) == [f"Operation {made}: it cannot be judged"]


def test_a_container_with_that_vmid_keeps_what_it_holds(loop, sandbox, db, redis):
    made = queued(db, redis, vmid=5003)
    two_ticks(loop)
    assert operation(db, made)["status"] == "queued"
    assert reserved(db, 5003)
    event = loop.services.ledger.events()[0]
    # The server's row says that it is active: that is seen before Proxmox is asked.
    assert (event["status"], event["error"]["code"]) == ("refused", "lifecycle")


def test_a_container_without_a_row_keeps_what_it_holds(loop, sandbox, db, redis):
    made = queued(db, redis)
    [some] = [c for c in sandbox.edge.containers.containers() if c.vmid == 5003]
    sandbox.edge.containers.put(replace(some, vmid=NEW, address=None))
    two_ticks(loop)
    assert operation(db, made)["status"] == "queued"
    assert reserved(db)
    assert loop.services.ledger.events()[0]["error"]["code"] == "container_exists"


def test_a_second_operation_on_that_vmid_keeps_what_is_held(loop, db, redis):
    """A retry is at work on the same VMID: what the first one holds may be its own."""
    made = queued(db, redis)
    put_job(redis, PROVISIONING, "13", "active")
    write_operation(
        db,
        id="op-retry",
        vmid=NEW,
        type="create",
        queue=PROVISIONING,
        jobId="13",
        status="running",
        heartbeatAt=ago(seconds=1),
    )
    two_ticks(loop)
    assert operation(db, made)["status"] == "queued"
    assert reserved(db)
    assert ports(db) == [(25601, "allocated", NEW), (25602, "allocated", NEW)]
    assert loop.services.ledger.events()[0]["error"]["code"] == "vmid_in_use"


def test_an_operation_of_no_game_server_is_left_alone(loop, db, redis):
    made = queued(db, redis, vmid=6100)
    two_ticks(loop)
    assert operation(db, made)["status"] == "queued"
    assert loop.services.ledger.events()[0]["error"]["code"] == "server_type"


# Agents


def test_a_running_server_whose_agent_is_silent_is_told_once(loop, sandbox, redis):
    sandbox.edge.containers.change_agent(5000, mode="refused")
    loop.minute()
    loop.minute()
    assert titles(sandbox) == ["Server 5000: agent offline"]
    assert writes(sandbox) == []
    sandbox.edge.containers.change_agent(5000, mode="healthy")
    loop.minute()
    loop.minute()
    assert titles(sandbox)[1:] == ["Over: Server 5000: agent offline"]


def test_a_stopped_container_with_a_silent_agent_is_no_news(loop, sandbox, redis):
    sandbox.edge.containers.change_agent(5000, mode="refused")
    sandbox.edge.containers.change(5000, status="stopped")
    loop.minute()
    assert titles(sandbox) == []


def test_a_silent_agent_is_unknown_while_proxmox_cannot_be_seen(loop, sandbox, redis):
    sandbox.edge.containers.change_agent(5000, mode="refused")
    sandbox.edge.faults.switch_on("proxmox", "status", code=500)
    loop.minute()
    assert titles(sandbox) == []


def unseen(redis):
    """Operations are not observed: one names a queue, and it is not there."""
    redis.delete("bull:operation:meta", "bull:operation:id")


def test_a_silent_agent_is_unknown_while_operations_cannot_be_seen(loop, sandbox, db, redis):
    """It restarts, and nobody can see that it does."""
    running(db, redis, state="active", heartbeatAt=ago(seconds=1))
    sandbox.edge.containers.change_agent(5000, mode="refused")
    loop.minute()
    unseen(redis)
    loop.minute()
    loop.minute()
    assert "operations" in loop.skips[-1]
    assert titles(sandbox) == []


def test_what_was_told_of_an_agent_is_not_over_while_operations_cannot_be_seen(
    loop, sandbox, db, redis
):
    running(db, redis, vmid=5001, state="active", heartbeatAt=ago(seconds=1))
    sandbox.edge.containers.change_agent(5000, mode="refused")
    loop.minute()
    unseen(redis)
    for _ in range(3):
        loop.minute()
    assert titles(sandbox) == ["Server 5000: agent offline"]


def test_an_address_outside_the_networks_is_told_and_never_called(loop, sandbox, db, redis):
    """A server that is not Minecraft: Velocity would be told of the address as well."""
    vmid = next(e["vmid"] for e in servers(db) if "minecraft" not in str(e["payload"]))
    change_server(db, vmid, ip="203.0.113.77")
    loop.minute()
    assert titles(sandbox) == [f"Server {vmid}: its agent's address is refused"]
    asked = {e.vmid for e in sandbox.edge.journal.entries() if e.surface == "agents"}
    assert vmid not in asked
    assert 5000 in asked


# Suspended and running


@pytest.fixture
def suspended(db):
    change_server(db, 5000, billingStatus="suspended")


def test_a_suspended_server_that_runs_is_escalated_and_not_stopped(loop, sandbox, redis, suspended):
    loop.minute()
    loop.minute()
    assert titles(sandbox) == ["Server 5000: billing suspended, still running"]
    [event] = loop.services.ledger.events()
    assert (event["action"], event["level"], event["status"]) == (
        "stop_suspended_workload",
        2,
        "refused",
    )
    assert writes(sandbox, "agents") == []


def test_a_suspended_server_whose_container_is_stopped_is_fine(loop, sandbox, redis, suspended):
    sandbox.edge.containers.change(5000, status="stopped")
    loop.minute()
    assert titles(sandbox) == []


@pytest.mark.parametrize("level2", ["", "stop_suspended_workload"])
def test_who_may_be_worked_on_is_neither_told_nor_stopped(
    platform, instance, sandbox, db, suspended, level2
):
    services = platform.services(ZLH_LEVEL2_ACTIONS=level2)
    loop = Loop(services, instance)
    running(db, services.redis, state="active", type="restore", heartbeatAt=ago(seconds=5))
    unseen(services.redis)
    assert [loop.minute(), loop.minute()] == [[], []]
    assert titles(sandbox) == []
    assert statuses(services) == []


@pytest.fixture
def stopping(platform, instance, monkeypatch):
    monkeypatch.setattr(workload_repairs, "POLL_SECONDS", 0.02)
    monkeypatch.setattr(workload_repairs, "STOP_SECONDS", 3.0)
    services = platform.services(ZLH_LEVEL2_ACTIONS="stop_suspended_workload")
    make_queue(services.redis, PROVISIONING)
    return Loop(services, instance)


def test_switched_on_by_name_the_workload_is_stopped_and_proved(stopping, sandbox, suspended):
    [run] = stopping.minute()
    assert run.success
    agent = sandbox.edge.containers.get(5000).agent
    assert agent.state == "stopped"
    assert sandbox.edge.containers.get(5000).status == "running"
    [event] = stopping.services.ledger.events()
    assert (event["action"], event["status"], event["level"]) == (
        "stop_suspended_workload",
        "succeeded",
        2,
    )
    assert event["after"] == {"state": "stopped"}
    assert len(writes(sandbox, "agents")) == 1
    assert stopping.minute() == []


def test_switched_on_by_name_a_stopped_container_is_asked_nothing(stopping, sandbox, suspended):
    sandbox.edge.containers.change(5000, status="stopped")
    assert stopping.minute() == []
    stopping.by_hand((5000, "stop_suspended_workload"))
    assert writes(sandbox, "agents") == []
    [event] = stopping.services.ledger.events()
    assert (event["status"], event["error"]["code"]) == ("refused", "not_running")


def test_a_stop_that_says_yes_and_does_nothing_is_a_failure(
    stopping, sandbox, suspended, monkeypatch
):
    monkeypatch.setattr(workload_repairs, "STOP_SECONDS", 0.2)
    sandbox.edge.containers.change_agent(5000, stop="nothing")
    [run] = stopping.minute()
    assert not run.success
    assert statuses(stopping.services) == ["failed"]
    assert sandbox.edge.discord.inbox()[-1].level == "critical"


def test_a_bill_paid_between_tick_and_repair_stops_nothing(stopping, sandbox, db, suspended):
    assert stopping.observe().success
    [request] = stopping.judge()
    change_server(db, 5000, billingStatus="active")
    stopping.repair(request.run_config)
    assert writes(sandbox, "agents") == []
    assert stopping.services.ledger.events()[0]["error"]["code"] == "billing"


def test_an_address_that_two_servers_share_stops_neither(stopping, sandbox, db, suspended):
    """The agent that answers there may be the other customer's."""
    address = next(e["ip"] for e in servers(db) if e["vmid"] == 5001)
    change_server(db, 5000, ip=address)
    stopping.minute()
    assert writes(sandbox, "agents") == []
    refused = [e["error"]["code"] for e in stopping.services.ledger.events(vmid=5000)]
    assert "address_shared" in refused


def test_a_server_that_is_being_restored_is_not_stopped(stopping, sandbox, db, suspended):
    redis = stopping.services.redis
    running(db, redis, state="active", type="restore", heartbeatAt=timedelta(seconds=5))
    two_ticks(stopping)
    assert writes(sandbox, "agents") == []
    assert titles(sandbox) == []
    stopping.by_hand((5000, "stop_suspended_workload"))
    assert writes(sandbox, "agents") == []
    [event] = stopping.services.ledger.events()
    assert (event["status"], event["error"]["code"]) == ("refused", "operation_open")


@pytest.mark.parametrize(
    ("queue", "lost", "code"),
    [("no-such-queue", False, "operation_open"), ("operation", True, "unobserved")],
)
def test_while_a_queue_cannot_be_read_nobody_is_stopped(
    stopping, sandbox, db, suspended, queue, lost, code
):
    running(db, stopping.services.redis, state="active", type="restore", queue=queue)
    if lost:
        stopping.services.redis.flushall()
    stopping.by_hand((5000, "stop_suspended_workload"))
    assert writes(sandbox, "agents") == []
    [event] = stopping.services.ledger.events()
    assert (event["status"], event["error"]["code"]) == ("refused", code)


def test_a_pause_between_look_and_stop_stops_nothing(stopping, sandbox, suspended, monkeypatch):
    agent = stopping.services.agent
    real = agent.state

    def and_then_pause(ip):
        pause(stopping.services, "everything", span=None, reason="stop!")
        return real(ip)

    monkeypatch.setattr(agent, "state", and_then_pause)
    stopping.minute()
    assert writes(sandbox, "agents") == []
    assert stopping.services.ledger.events()[0]["error"]["code"] == "paused"


# Backups


def test_a_missed_backup_is_told_and_nothing_else(loop, sandbox, db, redis):
    change_server(db, 5000, backupEveryHours=24, lastBackupAt=ago(hours=26))
    loop.minute()
    loop.minute()
    assert titles(sandbox) == ["Server 5000: backup missed"]
    assert statuses(loop.services) == []
    change_server(db, 5000, lastBackupAt=ago(minutes=1))
    loop.minute()
    loop.minute()
    assert titles(sandbox)[1:] == ["Over: Server 5000: backup missed"]


@pytest.mark.parametrize(
    "columns",
    [
        {"backupEveryHours": None, "lastBackupAt": timedelta(days=400)},
        {"backupEveryHours": 24, "lastBackupAt": timedelta(hours=23)},
    ],
)
def test_an_old_backup_is_fine_where_none_is_asked_for(loop, sandbox, db, redis, columns):
    change_server(db, 5000, **at(columns))
    loop.minute()
    assert titles(sandbox) == []
