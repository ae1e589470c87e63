"""Law 8: the ledger row is there before the write and closed after it."""

import pytest

from tests.clock import forget_everything
from tests.harness import statuses, writes
from tests.queues import a_minute_passes
from zlh_dagster.core.model import Surface
from zlh_dagster.core.repair import Status
from zlh_dagster.resources import edge_repairs
from zlh_dagster.resources.database import DatabaseError
from zlh_dagster.resources.ledger import Entry, Ledger

SRV = "_minecraft._tcp.mc-5000.example.gg"


def delete_srv(sandbox):
    delete_srv_of(sandbox, 5000)


def delete_srv_of(sandbox, vmid):
    [record] = sandbox.edge.cloudflare.named(f"_minecraft._tcp.mc-{vmid}.example.gg")
    sandbox.edge.cloudflare.remove(record.id)


def entry(fencing_token: int, run_id: str = "crashed") -> Entry:
    return Entry(
        action="dns_republish",
        level=1,
        reason="test",
        requested_by="controller",
        run_id=run_id,
        fencing_token=fencing_token,
        vmid=5000,
    )


def test_written_first_the_row_is_there_when_the_write_happens(loop, sandbox):
    delete_srv(sandbox)
    seen = []

    class Watched:
        def __init__(self, real) -> None:
            self._real = real

        def __getattr__(self, name):
            return getattr(self._real, name)

        def apply(self, change) -> None:
            seen.extend(loop.services.ledger.events())
            self._real.apply(change)

    surfaces = loop.services.surfaces
    surfaces[Surface.CLOUDFLARE] = Watched(surfaces[Surface.CLOUDFLARE])
    loop.minute()
    assert [(e["status"], e["vmid"], e["before"][0]["name"]) for e in seen] == [
        ("running", 5000, SRV)
    ]
    [event] = loop.services.ledger.events()
    assert (event["id"], event["status"]) == (seen[0]["id"], "succeeded")
    assert event["finishedAt"] >= event["createdAt"]


def test_no_write_when_the_row_cannot_be_written(loop, sandbox, platform):
    delete_srv(sandbox)
    assert loop.observe().success
    [request] = loop.judge()
    with platform.engine.begin() as connection:
        connection.exec_driver_sql(
            'CREATE TRIGGER no_rows BEFORE INSERT ON "RepairEvent" '
            "BEGIN SELECT RAISE(ABORT, 'the disk is full'); END"
        )
    assert not loop.repair(request.run_config).success
    assert writes(sandbox) == []
    assert "the disk is full" in str(sandbox.edge.discord.inbox()[-1].payload)


def test_a_row_left_open_by_a_crash_is_closed_as_interrupted_and_counts(loop, sandbox):
    """Three crashed repairs within the hour are three repairs: the budget is spent."""
    for token in (1, 2, 3):
        loop.services.ledger.open(entry(token))
    delete_srv(sandbox)
    loop.services.redis.set("zlh:fence", 3)
    loop.minute()
    assert writes(sandbox) == []
    assert statuses(loop.services) == ["interrupted"] * 3 + ["refused"]
    assert "3 repairs within an hour" in loop.services.ledger.events()[0]["error"]["message"]
    text = str(sandbox.edge.discord.inbox()[-1].payload)
    assert "ended in the middle of 3 repair" in text


def test_a_controller_that_was_overtaken_writes_nothing(loop, sandbox):
    """A higher fencing token appears in the ledger while the batch is under way."""
    delete_srv(sandbox)
    assert loop.observe().success
    [request] = loop.judge()
    real = loop.services.ledger.repairs_since

    def overtaken(*arguments, **options):
        loop.services.ledger.open(entry(10_000, "the newer run"))
        return real(*arguments, **options)

    loop.services.ledger.repairs_since = overtaken
    assert not loop.repair(request.run_config).success
    assert writes(sandbox) == []
    assert statuses(loop.services) == ["running"]


def test_a_database_that_goes_away_between_two_rounds_loses_no_repair(
    loop, sandbox, platform, monkeypatch
):
    """What was repaired before is proved, recorded and told; the rest is told as not tried."""
    monkeypatch.setattr(edge_repairs, "LOOK_SECONDS", 0.0)
    sandbox.edge.velocity.restart()
    real, asked = loop.services.ledger.repairs_since, []

    def going_away(vmids, age, **options):
        asked.append(list(vmids))
        if len(asked) > 1:
            raise DatabaseError("platform database: gone")
        return real(vmids, age, **options)

    loop.services.ledger.repairs_since = going_away
    [run] = loop.minute()
    assert not run.success
    assert statuses(loop.services) == ["succeeded"]
    assert len(writes(sandbox)) == 1
    [message] = sandbox.edge.discord.inbox()
    text = message.payload["embeds"][0]["description"]
    assert "done on 1 server: 5000" in text
    assert "not tried: platform database: gone" in text


def test_written_first_a_bug_in_one_write_leaves_no_row_open_and_the_batch_goes_on(
    loop, sandbox, monkeypatch
):
    """An exception that nobody foresaw: that repair fails, the others are made and proved."""
    sandbox.edge.velocity.restart()
    velocity = loop.services.surfaces[Surface.VELOCITY]
    real = velocity.apply

    def apply(change):
        if change.wanted.name == "mc-5000":
            raise ValueError("a bug")
        real(change)

    monkeypatch.setattr(velocity, "apply", apply)
    [run] = loop.minute()
    assert not run.success
    names = {backend.name for backend in sandbox.edge.velocity.backends()}
    assert len(names) > 2
    assert statuses(loop.services, vmid=5000) == ["failed"]
    assert sorted(statuses(loop.services)) == ["failed"] + ["succeeded"] * len(names)
    [event] = loop.services.ledger.events(vmid=5000)
    assert "ValueError" in event["error"]["message"]


def test_written_first_after_a_failure_of_the_ledger_nothing_more_is_written(
    loop, sandbox, monkeypatch
):
    """The ledger fails once, after the first server: a group after that is not tried either."""
    monkeypatch.setattr(edge_repairs, "GROUP", 2)
    sandbox.edge.velocity.restart()
    real, asked = loop.services.ledger.open_all, []

    def fails_once(entries):
        asked.append([entry.vmid for entry in entries])
        if len(asked) == 2:
            raise DatabaseError("platform database: gone for a moment")
        return real(entries)

    monkeypatch.setattr(loop.services.ledger, "open_all", fails_once)
    [run] = loop.minute()
    assert not run.success
    assert [len(vmids) for vmids in asked] == [1, 2]
    assert len(writes(sandbox)) == 1
    assert statuses(loop.services) == ["succeeded"]


def test_written_first_a_redis_that_lost_its_counter_gets_a_token_above_the_ledgers(loop, sandbox):
    row = loop.services.ledger.open(entry(41))
    loop.services.ledger.close(row, Status.FAILED)
    forget_everything(loop.services)
    delete_srv(sandbox)
    [run] = loop.minute()
    assert run.success
    newest = loop.services.ledger.events()[0]
    assert (newest["status"], newest["fencingToken"]) == ("succeeded", 42)


def test_written_first_news_of_a_crash_is_not_lost_when_the_next_run_fails_too(
    loop, sandbox, monkeypatch
):
    """Its rows are closed before the first chunk fails: they are told with that failure."""
    loop.services.ledger.open(entry(1))
    loop.services.redis.set("zlh:fence", 1)
    delete_srv(sandbox)

    def fails(*_, **__):
        raise DatabaseError("platform database: gone")

    monkeypatch.setattr(loop.services.ledger, "repairs_since", fails)
    [run] = loop.minute()
    assert not run.success
    assert statuses(loop.services) == ["interrupted"]
    [message] = sandbox.edge.discord.inbox()
    text = message.payload["embeds"][0]["description"]
    assert "ended in the middle of 1 repair" in text
    assert "not tried: platform database: gone" in text


def test_written_first_a_ledger_that_takes_no_row_is_told_once(loop, sandbox, platform):
    delete_srv(sandbox)
    with platform.engine.begin() as connection:
        connection.exec_driver_sql(
            'CREATE TRIGGER no_rows BEFORE INSERT ON "RepairEvent" '
            "BEGIN SELECT RAISE(ABORT, 'the disk is full'); END"
        )
    for _ in range(3):
        loop.minute()
    assert writes(sandbox) == []
    [message] = sandbox.edge.discord.inbox()
    assert "the disk is full" in str(message.payload)


@pytest.mark.parametrize("lost", [False, True])
def test_written_first_a_bug_beside_the_edge_leaves_no_row_open_and_loses_nothing(
    beside, sandbox, monkeypatch, caplog, lost
):
    """What the edge did before is told; so is that nobody knows what became of the other repair."""
    delete_srv_of(sandbox, 5001)

    def broken(*_args, **_values):
        if lost:
            monkeypatch.setattr(Ledger, "left_open", gone)
        raise ValueError("a bug")

    def gone(*_args):
        raise DatabaseError("the database is gone")

    assert beside.loop.observe().success
    a_minute_passes(beside.loop.services)
    assert beside.loop.observe().success
    [request] = beside.loop.judge()
    asked = [r["action"] for r in request.run_config["ops"]["level1_repair"]["config"]["repairs"]]
    assert asked == ["dns_republish", beside.action.value]
    owner, name = beside.first_write
    monkeypatch.setattr(owner, name, broken)
    beside.loop.repair(request.run_config)
    monkeypatch.undo()
    assert beside.event() == (("running", None) if lost else ("failed", "repair_failed"))
    assert sandbox.edge.cloudflare.named("_minecraft._tcp.mc-5001.example.gg")
    told = str(sandbox.edge.discord.inbox()[-1].payload)
    assert "Repaired server 5001" in told
    assert "ValueError" in told
    assert "a bug" in caplog.text
