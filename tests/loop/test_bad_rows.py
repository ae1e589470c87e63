"""A bad row costs its own server the observation, is told once, and never stops the others."""

import pytest
import sqlalchemy as sa

from tests.dead_work import operation, running, two_ticks
from tests.harness import statuses, titles, writes
from tests.queues import PROVISIONING, a_minute_passes, make_queue
from zlh_dagster.sandbox.platform_rows import write_operation


@pytest.fixture
def db(platform):
    return platform.engine


def spoil(db, column: str, cell: str, vmid: int) -> None:
    with db.begin() as connection:
        change = f'UPDATE "ContainerInstance" SET "{column}" = {cell} WHERE vmid = {vmid}'
        connection.execute(sa.text(change))


def unpublish(sandbox, vmid: int) -> None:
    [record] = sandbox.edge.cloudflare.named(f"mc-{vmid}.example.gg")
    sandbox.edge.cloudflare.remove(record.id)


@pytest.mark.parametrize(
    ("column", "cell"),
    [
        ("lastBackupAt", "'0000-00-00 00:00:00'"),
        ("createdAt", "12345"),
        ("backupEveryHours", "'often'"),
        ("hostname", "CAST(x'6d63ff' AS TEXT)"),
        ("payload", "CAST(x'7bff7d' AS TEXT)"),
    ],
)
def test_another_server_is_repaired_in_the_same_tick_and_the_bad_row_is_told_once(
    loop, sandbox, db, column, cell
):
    spoil(db, column, cell, 5001)
    unpublish(sandbox, 5000)
    unpublish(sandbox, 5001)
    [run] = loop.minute()
    assert run.success
    assert statuses(loop.services, 5000) == ["succeeded"]
    for _ in range(2):
        loop.minute()
    assert len(sandbox.edge.cloudflare.named("mc-5000.example.gg")) == 1
    assert sandbox.edge.cloudflare.named("mc-5001.example.gg") == []
    assert len(writes(sandbox)) == 1
    assert titles(sandbox) == ["Server 5001: its row cannot be used; Repaired server 5000"]


def test_a_row_that_goes_bad_between_tick_and_repair_is_refused(loop, sandbox, db):
    unpublish(sandbox, 5001)
    loop.observe()
    [request] = loop.judge()
    spoil(db, "createdAt", "'x'", 5001)
    loop.repair(request.run_config)
    assert writes(sandbox) == []
    [event] = loop.services.ledger.events()
    assert (event["status"], event["error"]["code"]) == ("refused", "row_unusable")
    assert "createdAt: 'x' is not a time" in event["error"]["message"]


def test_a_row_that_goes_bad_directly_before_the_write_is_refused(loop, sandbox, db, monkeypatch):
    unpublish(sandbox, 5001)
    real = loop.services.read_payloads

    def read(vmids=None):
        if vmids is not None:
            spoil(db, "createdAt", "'x'", 5001)
        return real(vmids)

    monkeypatch.setattr(loop.services, "read_payloads", read)
    loop.by_hand((5001, "dns_republish"))
    assert writes(sandbox) == []
    assert loop.services.ledger.events()[0]["error"]["code"] == "row_unusable"


# Operations and their jobs


@pytest.fixture
def redis(loop):
    make_queue(loop.services.redis, PROVISIONING)
    make_queue(loop.services.redis, "operation")
    return loop.services.redis


@pytest.mark.parametrize(
    ("column", "cell"),
    [
        ("heartbeatAt", "'soon'"),
        ("vmid", "'abc'"),
        ("jobId", "'wait'"),
        ("jobId", "'id'"),
        ("jobId", "'meta'"),
        ("queue", "'oops'"),
        ("queue", "CAST(x'6fff' AS TEXT)"),
    ],
)
def test_another_operation_is_closed_and_the_bad_one_is_told_once(
    loop, sandbox, db, redis, column, cell
):
    made = running(db, redis)
    values = {"type": "restart", "queue": "operation", "jobId": "78", "status": "running"}
    old = {"heartbeatAt": -3600, "createdAt": -7200}
    bad = write_operation(db, id="op-bad", vmid=5001, **values, **old)
    with db.begin() as connection:
        change = f'UPDATE "ProvisioningOperation" SET "{column}" = {cell} WHERE id = :id'
        connection.execute(sa.text(change), {"id": bad})
    assert two_ticks(loop)[-1].success
    a_minute_passes(loop.services)
    loop.minute()
    assert operation(db, made)["status"] == "stale"
    with db.connect() as connection:
        query = sa.text('SELECT status FROM "ProvisioningOperation" WHERE id = :id')
        assert connection.execute(query, {"id": bad}).scalar_one() == "running"
    assert titles(sandbox) == ["Operation op-bad: it cannot be judged", "Repaired server 5000"]


def test_an_operation_that_goes_bad_between_tick_and_repair_is_left_alone(loop, db, redis):
    made = running(db, redis)
    loop.minute()
    a_minute_passes(loop.services)
    loop.observe()
    [request] = loop.judge()
    with db.begin() as connection:
        connection.execute(sa.text('UPDATE "ProvisioningOperation" SET "jobId" = \'wait\''))
    loop.repair(request.run_config)
    assert operation(db, made)["status"] == "running"
    [event] = loop.services.ledger.events()
    assert (event["status"], event["error"]["code"]) == ("refused", "row_unusable")
