"""A bad row costs its own server the observation, is told once, and never stops the others."""

import pytest
import sqlalchemy as sa

from tests.harness import statuses, titles, writes


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
    assert titles(sandbox) == ["Repaired server 5000; Server 5001: its row cannot be used"]


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
