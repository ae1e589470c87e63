"""Law 2: the lease is held, and checked with time to spare, before every single write."""

from dataclasses import replace

import pytest

from tests.harness import edge_state, statuses, titles, writes
from zlh_dagster.core.model import Surface
from zlh_dagster.resources.edge import WRITE_SECONDS
from zlh_dagster.resources.lease import KEY, Lease, acquire
from zlh_dagster.resources.services import Services


def break_records(sandbox, *names: str) -> None:
    for name in names:
        for record in sandbox.edge.cloudflare.named(name):
            sandbox.edge.cloudflare.remove(record.id)


def test_no_write_without_the_lease_when_another_holds_it(loop, sandbox):
    break_records(sandbox, "mc-5000.example.gg")
    with acquire(loop.services.redis, run_id="the-other-run", seconds=30):
        [run] = loop.minute()
        assert run.success
        assert run.output_for_node("take_lease", "standby").endswith("run the-other-run")
        assert writes(sandbox) == []
        assert statuses(loop.services) == []
    loop.minute()
    assert statuses(loop.services) == ["succeeded"]


def test_no_write_without_the_lease_when_redis_is_gone(platform, sandbox, instance, tmp_path):
    """Observation goes on, the operator hears of it once, and repairs go on when Redis is back."""
    from tests.harness import Loop

    lost = Loop(platform.services(ZLH_REDIS_URL=f"unix://{tmp_path}/nobody.sock"), instance)
    break_records(sandbox, "mc-5000.example.gg")
    before = edge_state(sandbox)
    for _ in range(3):
        assert lost.observe().success
        for request in lost.judge():
            lost.repair(request.run_config)
    assert edge_state(sandbox) == before
    assert writes(sandbox) == []
    assert len(titles(sandbox)) == 1
    assert "level1" in titles(sandbox)[0] or "Redis" in titles(sandbox)[0]

    back = Loop(platform.services(), instance, cursor=lost.cursor)
    back.minute()
    assert statuses(back.services) == ["succeeded"]


class LosesTheLease:
    """A surface in front of the real one; the lease is gone once the first write was made."""

    def __init__(self, real, redis) -> None:
        self._real, self._redis = real, redis

    def __getattr__(self, name):
        return getattr(self._real, name)

    def apply(self, change) -> None:
        self._real.apply(change)
        self._redis.set(KEY, "somebody else")


def test_losing_the_lease_cancels_the_rest_of_the_batch(loop, sandbox):
    names = [f"_minecraft._tcp.mc-{vmid}.example.gg" for vmid in (5000, 5001, 5002)]
    break_records(sandbox, *names)
    services: Services = loop.services
    real = services.surfaces[Surface.CLOUDFLARE]
    services.surfaces[Surface.CLOUDFLARE] = LosesTheLease(real, services.redis)
    [run] = loop.minute()
    assert not run.success
    assert len(writes(sandbox)) == 1, "two more were asked for, but the lease was gone"
    assert statuses(services) == ["succeeded"], "rows are opened only while the lease is held"
    assert sandbox.edge.discord.inbox()[-1].level == "critical"


def test_a_lease_that_ends_too_soon_is_not_enough(loop):
    """The time left must cover the whole of the next write."""
    from zlh_dagster.resources.lease import LeaseLost

    with acquire(loop.services.redis, run_id="r", seconds=5) as lease:
        lease.require(3)
        with pytest.raises(LeaseLost, match="next write may take"):
            lease.require(30)


def test_no_write_without_the_lease_between_two_changes_of_one_server(loop, sandbox):
    """Both records of one server are gone; the lease is lost after the first was put back."""
    break_records(sandbox, "mc-5000.example.gg", "_minecraft._tcp.mc-5000.example.gg")
    services: Services = loop.services
    real = services.surfaces[Surface.CLOUDFLARE]
    services.surfaces[Surface.CLOUDFLARE] = LosesTheLease(real, services.redis)
    [run] = loop.minute()
    assert not run.success
    assert len(writes(sandbox)) == 1
    [event] = services.ledger.events()
    assert event["status"] == "failed"
    assert "the lease was lost" in event["error"]["message"]
    assert [len(change["records"]) for change in event["after"]].count(1) == 1


@pytest.mark.parametrize(("spare", "count"), [(-0.5, 0), (0.5, 1)])
def test_no_write_without_the_lease_for_as_long_as_a_write_may_take(
    loop, sandbox, monkeypatch, spare, count
):
    """Less time than one write may take is too little; a little more is enough."""
    break_records(sandbox, "mc-5000.example.gg")
    monkeypatch.setattr(Lease, "remaining", lambda self: WRITE_SECONDS + spare)
    [run] = loop.minute()
    assert run.success is bool(count)
    assert len(writes(sandbox)) == count
    assert statuses(loop.services) == ["succeeded"] * count


@pytest.mark.parametrize("spare", [-0.5, 0.5])
def test_no_write_without_the_lease_beside_the_edge_either(beside, monkeypatch, spare):
    config = beside.asked()
    monkeypatch.setattr(Lease, "remaining", lambda self: beside.seconds + spare)
    run = beside.loop.repair(config)
    assert run.success is (spare > 0)
    assert beside.untouched() is (spare < 0)


def test_losing_the_lease_between_row_and_write_leaves_it_unwritten(beside, monkeypatch):
    """Somebody else has taken over, and has written to the ledger, by the time of the write."""
    config = beside.asked()
    ledger, redis = beside.loop.services.ledger, beside.loop.services.redis
    real = ledger.open

    def opened(entry):
        event_id = real(entry)
        redis.set(KEY, "somebody else")
        real(replace(entry, run_id="another", fencing_token=entry.fencing_token + 1, vmid=5999))
        return event_id

    monkeypatch.setattr(ledger, "open", opened)
    beside.loop.repair(config)
    assert beside.untouched()
