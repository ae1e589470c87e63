"""Law 8: the ledger row is there before the write and closed after it."""

from tests.harness import statuses, writes
from zlh_dagster.core.model import Surface
from zlh_dagster.resources import repairer
from zlh_dagster.resources.database import DatabaseError
from zlh_dagster.resources.ledger import Entry

SRV = "_minecraft._tcp.mc-5000.example.gg"


def delete_srv(sandbox):
    sandbox.edge.cloudflare.remove(sandbox.edge.cloudflare.named(SRV)[0].id)


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

    def overtaken(*arguments):
        loop.services.ledger.open(entry(10_000, "the newer run"))
        return real(*arguments)

    loop.services.ledger.repairs_since = overtaken
    assert not loop.repair(request.run_config).success
    assert writes(sandbox) == []
    assert statuses(loop.services) == ["running"]


def test_a_database_that_goes_away_between_two_chunks_loses_no_repair(
    loop, sandbox, platform, monkeypatch
):
    """What was repaired before is proved, recorded and told; the rest is told as not tried."""
    monkeypatch.setattr(repairer, "CHUNK", 2)
    sandbox.edge.velocity.restart()
    real, asked = loop.services.ledger.repairs_since, []

    def going_away(vmids, age):
        asked.append(list(vmids))
        if len(asked) > 1:
            raise DatabaseError("platform database: gone")
        return real(vmids, age)

    loop.services.ledger.repairs_since = going_away
    [run] = loop.minute()
    assert not run.success
    assert statuses(loop.services) == ["succeeded"] * 2
    assert len(writes(sandbox)) == 2
    [message] = sandbox.edge.discord.inbox()
    text = message.payload["embeds"][0]["description"]
    assert "done on 2 servers" in text
    assert "not tried: platform database: gone" in text
