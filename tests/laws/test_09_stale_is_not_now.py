"""Law 9: a snapshot older than two ticks, or of mixed ticks, causes no repair."""

import time
from datetime import datetime, timedelta, timezone

import dagster as dg
import pytest
import sqlalchemy as sa
from dagster._core.storage.runs.schema import RunsTable

from tests.harness import writes
from zlh_dagster.core.model import Surface
from zlh_dagster.resources import observe as observing
from zlh_dagster.resources.observe import SOURCE_OF

SRV = "_minecraft._tcp.mc-5000.example.gg"


@pytest.fixture
def broken(sandbox):
    sandbox.edge.cloudflare.remove(sandbox.edge.cloudflare.named(SRV)[0].id)


def at(monkeypatch, **ago: float) -> None:
    then = datetime.now(timezone.utc) - timedelta(**ago)
    monkeypatch.setattr(observing, "_now", lambda: then)


def test_stale_is_not_now_an_old_tick_causes_no_repair(loop, sandbox, broken, monkeypatch):
    at(monkeypatch, seconds=121)
    assert loop.minute() == []
    assert "more than two ticks" in loop.skips[-1]
    assert writes(sandbox) == []
    at(monkeypatch, seconds=100)
    assert len(loop.minute()) == 1
    assert len(writes(sandbox)) == 1


def test_a_tick_from_the_future_causes_no_repair(loop, sandbox, broken, monkeypatch):
    at(monkeypatch, hours=-1)
    assert loop.minute() == []
    assert "clock" in loop.skips[-1]
    assert writes(sandbox) == []


def test_stale_is_not_now_mixed_ticks_cause_no_repair(loop, sandbox, broken):
    """A listing of one tick never meets the payloads of another."""
    store = loop.services.snapshots
    first = loop.observe().run_id
    second = loop.observe().run_id
    source = SOURCE_OF[Surface.CLOUDFLARE]
    with (
        store._fs.open(store.path(source, first), "rb") as old,
        store._fs.open(store.path(source, second), "wb") as new,
    ):
        new.write(old.read())
    assert loop.judge() == []
    assert "snapshots of 2 ticks" in loop.skips[-1]
    assert writes(sandbox) == []


def test_an_incomplete_tick_causes_no_repair(loop, sandbox, broken):
    store = loop.services.snapshots
    tick = loop.observe().run_id
    store._fs.rm(store.path(SOURCE_OF[Surface.VELOCITY], tick))
    assert loop.judge() == []
    assert "no snapshot of velocity_backends" in loop.skips[-1]
    assert writes(sandbox) == []


def test_a_tick_is_judged_once(loop, sandbox, broken):
    loop.minute()
    assert loop.judge() == []
    assert "judged already" in loop.skips[-1]
    assert len(writes(sandbox)) == 1


def test_a_tick_from_before_the_last_repair_asks_for_nothing(loop, sandbox, broken):
    """What it saw may be what the repair has just mended; the next tick decides."""
    loop.observe()
    loop.by_hand((5000, "dns_republish"))
    assert loop.judge() == []
    assert "before the last repair" in loop.skips[-1]
    assert len(writes(sandbox)) == 1


def decided(config, *, seconds_ago):
    """The config of a batch as if it had been decided that long ago."""
    batch = {**config["ops"]["level1_repair"]["config"], "decided_at": time.time() - seconds_ago}
    return {"ops": {"level1_repair": {"config": batch}}}


def test_stale_is_not_now_a_batch_that_waited_is_not_carried_out(loop, sandbox, broken):
    assert loop.observe().success
    [request] = loop.judge()
    loop.repair(decided(request.run_config, seconds_ago=121))
    assert writes(sandbox) == []
    [event] = loop.services.ledger.events()
    assert (event["status"], event["error"]["code"]) == ("refused", "stale_decision")
    loop.repair(decided(request.run_config, seconds_ago=100))
    assert len(writes(sandbox)) == 1


def test_stale_is_not_now_beside_the_edge_either(beside):
    config = beside.asked()
    beside.loop.repair(decided(config, seconds_ago=121))
    assert beside.untouched()
    assert beside.event() == ("refused", "stale_decision")
    beside.loop.repair(decided(config, seconds_ago=100))
    assert not beside.untouched()


def in_the_future(instance):
    """The last repair run ended an hour from now: the clock was set back since."""
    [record] = instance.get_run_records(dg.RunsFilter(job_name="level1_repair"), limit=1)
    ends = sa.update(RunsTable).where(RunsTable.c.run_id == record.dagster_run.run_id)
    with instance.run_storage.connect() as connection:
        connection.execute(ends.values(end_time=time.time() + 3600))


def test_after_a_clock_was_set_back_a_tick_that_came_after_the_repair_counts(
    loop, sandbox, broken, instance
):
    """By the clock the repair ends in an hour; the loop does not stand still for so long."""
    loop.by_hand((5000, "dns_republish"))
    in_the_future(instance)
    sandbox.edge.cloudflare.remove(sandbox.edge.cloudflare.named(SRV)[0].id)
    assert loop.observe().success
    assert len(loop.judge()) == 1


def test_after_a_clock_was_set_back_a_tick_from_before_the_repair_asks_for_nothing(
    loop, sandbox, broken, instance
):
    assert loop.observe().success
    loop.by_hand((5000, "dns_republish"))
    in_the_future(instance)
    assert loop.judge() == []
    assert "before the last repair" in loop.skips[-1]
