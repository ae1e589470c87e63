"""Law 12: one repair run in the whole deployment, two deployments on one Redis included."""

import threading
from dataclasses import replace
from datetime import datetime, timedelta, timezone

import pytest

from tests.harness import Loop, edge_state, statuses, titles, writes
from zlh_dagster.core.model import Surface
from zlh_dagster.resources.leader import KEY
from zlh_dagster.resources.redis import connect
from zlh_dagster.sensors import drift

OVER = "Over: Redis does not answer: nothing is repaired"
SRV = "_minecraft._tcp.mc-5000.example.gg"


@pytest.fixture
def other(platform, tmp_path, instance):
    """A second deployment with a home of its own, on the same Redis and database."""
    import dagster as dg

    with dg.DagsterInstance.ephemeral() as second:
        yield Loop(platform.services(DAGSTER_HOME=str(tmp_path / "second")), second)


@pytest.fixture
def broken(sandbox):
    [record] = sandbox.edge.cloudflare.named(SRV)
    sandbox.edge.cloudflare.remove(record.id)


def test_one_at_a_time_the_second_deployment_stands_by_and_says_so(loop, other, sandbox, broken):
    before = edge_state(sandbox)
    loop.judge()
    assert other.minute() == []
    assert "standby" in other.skips[-1]
    assert str(loop.services.settings.home) in other.skips[-1]
    assert edge_state(sandbox) == before
    now = datetime.now(timezone.utc)
    assert loop.services.figures.since(now - timedelta(hours=1), now) == {}, "the leader counts"
    [run] = loop.minute()
    assert run.success
    assert len(writes(sandbox)) == 1
    assert titles(sandbox) == ["Repaired server 5000"]


def test_one_at_a_time_the_standby_takes_over_when_the_first_is_gone(loop, other, sandbox, broken):
    """The lead lasts one lease time without its holder, well within two."""
    loop.judge()
    seconds = loop.services.settings.zlh_lease_seconds
    assert 0 < loop.services.redis.pttl(KEY) <= seconds * 1000
    loop.services.redis.delete(KEY)
    [run] = other.minute()
    assert run.success
    assert loop.minute() == []
    assert "standby" in loop.skips[-1]


def test_one_at_a_time_without_redis_the_standby_leaves_telling_to_the_leader(
    loop, other, sandbox, broken
):
    """For two lease times; then the leader may be gone as well."""
    loop.judge()
    assert other.minute() == []
    without_redis(loop, other)
    for one in (loop, other):
        one.minute()
    assert other.skips[-1].endswith("standby, and Redis does not answer")
    assert titles(sandbox) == ["level1 repair failed"]
    kept = drift.Cursor.parse(other.cursor)
    assert kept.stood_by is not None
    long_ago = kept.stood_by - 2 * other.services.settings.zlh_lease_seconds
    other.cursor = replace(kept, stood_by=long_ago).dump()
    other.minute()
    assert titles(sandbox) == ["level1 repair failed"] * 2


def without_redis(*loops):
    for one in loops:
        one.services.close()
        one.services.__dict__["redis"] = connect("unix:///nonexistent/redis.sock")


def with_redis(*loops):
    for one in loops:
        one.services.close()


def later(loop):
    """As if it had last seen a leader long ago."""
    kept = drift.Cursor.parse(loop.cursor)
    loop.cursor = replace(kept, stood_by=kept.stood_by - 3600).dump()


def test_one_at_a_time_the_new_leader_tells_that_redis_answers_again(loop, other, sandbox):
    """Redis came back empty, or late, and the other was the first to look."""
    loop.judge()
    other.minute()
    without_redis(loop, other)
    loop.minute()
    other.minute()
    lost = titles(sandbox)
    assert lost == ["level1 repair failed"]
    with_redis(loop, other)
    loop.services.redis.delete(KEY)
    for _ in range(3):
        other.minute()
        loop.minute()
    assert "standby" in loop.skips[-1]
    assert titles(sandbox) == [*lost, OVER]
    assert loop.services.incidents.all_open() == {}
    loop.services.redis.delete(KEY)
    loop.minute()
    loop.minute()
    assert len(titles(sandbox)) == 2, "it is over once"


def test_one_at_a_time_each_loss_of_redis_is_told_also_by_who_stands_by(loop, other, sandbox):
    """Both tell a long one; in the next one the leader is gone as well."""
    loop.judge()
    other.minute()
    without_redis(loop, other)
    later(other)
    loop.minute()
    other.minute()
    with_redis(loop, other)
    for _ in range(3):
        loop.minute()
        other.minute()
    first = titles(sandbox)
    assert first == [*["level1 repair failed"] * 2, OVER]
    without_redis(other)
    later(other)
    for _ in range(3):
        other.minute()
    assert titles(sandbox) == [*first, "level1 repair failed"]
    with_redis(other)
    other.services.redis.delete(KEY)
    other.minute()
    other.minute()
    assert titles(sandbox) == [*first, "level1 repair failed", OVER]


def test_one_at_a_time_a_leader_that_ends_cleanly_is_replaced_at_once(loop, other, sandbox, broken):
    loop.judge()
    loop.services.leadership.release()
    other.services.leadership.release()
    [run] = other.minute()
    assert run.success


def test_one_at_a_time_an_incident_is_told_by_the_leader_only(loop, other, sandbox):
    sandbox.edge.containers.change_agent(5000, mode="refused")
    for _ in range(3):
        loop.minute()
        other.minute()
    assert titles(sandbox) == ["Server 5000: agent offline"]


def test_one_at_a_time_two_runs_at_once_make_one_write(loop, other, sandbox, broken, monkeypatch):
    """Both were asked for by hand: one works, the other says who holds the lease."""
    writing, go_on = threading.Event(), threading.Event()
    cloudflare = loop.services.surfaces[Surface.CLOUDFLARE]
    real = cloudflare.apply

    def apply(change):
        writing.set()
        assert go_on.wait(30)
        real(change)

    monkeypatch.setattr(cloudflare, "apply", apply)
    results = []
    first = threading.Thread(
        target=lambda: results.append(loop.by_hand((5000, "dns_republish"))), daemon=True
    )
    first.start()
    try:
        assert writing.wait(30), "the first run did not come to its write"
        second = other.by_hand((5000, "dns_republish"))
    finally:
        go_on.set()
        first.join()
    [worked] = results
    assert worked.success
    assert second.success
    assert second.output_for_node("take_lease", "standby").endswith(f"run {worked.run_id}")
    assert len(writes(sandbox)) == 1
    assert statuses(loop.services) == ["succeeded"]
