"""The singleton lease on a real Redis."""

import json
import threading
import time

import pytest
import redis

from zlh_dagster.resources import lease as lease_module
from zlh_dagster.resources.lease import (
    FENCE_KEY,
    KEY,
    LeaseHeld,
    LeaseKeeper,
    LeaseLost,
    acquire,
    holder,
)
from zlh_dagster.resources.redis import RedisUnavailable, connect

LONG = 30
SHORT = 1.0


@pytest.fixture
def client(redis_url):
    with connect(redis_url) as one:
        yield one


@pytest.fixture
def small_margin(monkeypatch):
    """Lets a lease be short: a second of each is otherwise never counted on."""
    monkeypatch.setattr(lease_module, "_MARGIN", 0.1)


@pytest.fixture
def other(redis_url):
    with connect(redis_url) as one:
        yield one


def test_a_free_lease_is_taken_and_given_back(client):
    with acquire(client, run_id="run-1", seconds=LONG) as lease:
        assert 0 < lease.remaining() <= LONG - 1
        lease.require(12)
        assert 0 < client.pttl(KEY) <= LONG * 1000
    assert client.get(KEY) is None
    assert holder(client) is None


def test_a_held_lease_is_refused_at_once_and_names_its_holder(client, other):
    with acquire(client, run_id="run-1", seconds=LONG):
        started = time.monotonic()
        with pytest.raises(LeaseHeld, match=r"pid \d+, run run-1") as held:
            acquire(other, run_id="run-2", seconds=LONG)
        assert time.monotonic() - started < 0.5
        assert holder(other).run_id == "run-1"
        assert abs(holder(other).since - time.time()) < 5
        assert str(held.value) == holder(other).describe()
    acquire(other, run_id="run-2", seconds=LONG).release()


def test_a_refused_attempt_changes_nothing(client, other):
    with acquire(client, run_id="run-1", seconds=LONG) as lease:
        value, fence = client.get(KEY), client.get(FENCE_KEY)
        with pytest.raises(LeaseHeld):
            acquire(other, run_id="run-2", seconds=5)
        assert (client.get(KEY), client.get(FENCE_KEY)) == (value, fence)
        assert client.pttl(KEY) > 20_000
        lease.require(12)


def test_of_many_who_ask_at_once_one_gets_it(redis_url):
    gate, got, refused = threading.Barrier(8), [], []

    def ask(n: int) -> None:
        with connect(redis_url) as one:
            gate.wait()
            try:
                got.append(acquire(one, run_id=f"run-{n}", seconds=LONG))
                time.sleep(0.2)
                got[-1].release()
            except LeaseHeld:
                refused.append(n)

    threads = [threading.Thread(target=ask, args=(n,)) for n in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert (len(got), len(refused)) == (1, 7)


def test_only_its_own_lease_is_given_back(client):
    """Run out meanwhile and taken by somebody else: that one keeps it."""
    lease = acquire(client, run_id="run-1", seconds=LONG)
    client.set(KEY, "another holder", px=LONG * 1000)
    lease.release()
    assert client.get(KEY) == "another holder"


def test_a_lease_whose_holder_died_ends_by_itself(client, other):
    """No renewal, no release, as after a kill."""
    value = json.dumps({"holder": "h", "run_id": "dead", "since": 0, "token": "t"})
    client.set(KEY, value, px=300)
    with pytest.raises(LeaseHeld, match="run dead"):
        acquire(other, run_id="run-2", seconds=LONG)
    time.sleep(0.35)
    acquire(other, run_id="run-2", seconds=LONG).release()


def test_renewals_keep_it_beyond_one_lease(client, other, small_margin):
    lease = acquire(client, run_id="run-1", seconds=SHORT)
    ends = time.monotonic() + 2 * SHORT
    with lease:
        while time.monotonic() < ends:
            assert lease.remaining() > 0
            with pytest.raises(LeaseHeld):
                acquire(other, run_id="run-2", seconds=SHORT)
            time.sleep(0.1)
        lease.require(0.1)


def test_a_lease_that_was_taken_away_is_noticed_before_the_next_write(client):
    with acquire(client, run_id="run-1", seconds=LONG) as lease:
        lease.require(12)
        client.set(KEY, "another holder")
        with pytest.raises(LeaseLost, match="somebody else took it"):
            lease.require(0)
        assert lease.remaining() == 0
        client.delete(KEY)
        with pytest.raises(LeaseLost):
            lease.require(0)
    assert client.get(KEY) is None, "and it is never taken back"


def test_a_lease_that_redis_forgot_is_lost(client):
    with acquire(client, run_id="run-1", seconds=LONG) as lease:
        client.flushall()
        with pytest.raises(LeaseLost):
            lease.require(0)


def test_a_lease_taken_away_is_noticed_by_the_renewal_too(client, small_margin):
    with acquire(client, run_id="run-1", seconds=SHORT) as lease:
        client.set(KEY, "another holder")
        give_up = time.monotonic() + 2
        while lease.remaining() > 0 and time.monotonic() < give_up:
            time.sleep(0.02)
        assert lease.remaining() == 0


def test_too_little_time_for_the_next_write_is_a_refusal_and_no_loss(client):
    with acquire(client, run_id="run-1", seconds=5) as lease:
        with pytest.raises(LeaseLost, match=r"has 4\.0 s left, the next write may take 12 s"):
            lease.require(12)
        lease.require(1)


def test_after_release_nothing_may_be_written(client):
    lease = acquire(client, run_id="run-1", seconds=LONG)
    lease.release()
    with pytest.raises(LeaseLost):
        lease.require(0)


def test_no_thread_stays_behind(client):
    acquire(client, run_id="run-1", seconds=LONG).release()
    assert not [t for t in threading.enumerate() if t.name == "lease-renewal"]


# --- Redis fails meanwhile -----------------------------------------------------------------------


class Failing:
    """A client whose next answers are lost: before the command is done, or after."""

    def __init__(self, client, *, lost: int = 0, unsent: int = 0) -> None:
        self._client, self.lost, self.unsent = client, lost, unsent

    def eval(self, *arguments):
        if self.unsent:
            self.unsent -= 1
            raise redis.ConnectionError("refused")
        answer = self._client.eval(*arguments)
        if self.lost:
            self.lost -= 1
            raise redis.TimeoutError("the answer did not come")
        return answer

    def get(self, *arguments):
        return self._client.get(*arguments)


def test_a_lost_answer_to_the_first_try_is_not_taken_for_somebody_elses_lease(client):
    """The key was set, the answer never came: asking again finds its own value and goes on."""
    lease = acquire(Failing(client, lost=1), run_id="run-1", seconds=LONG)
    assert holder(client).run_id == "run-1"
    assert lease.fence == int(client.get(FENCE_KEY))
    lease.release()
    assert client.get(KEY) is None


def test_a_call_that_never_arrived_is_tried_once_more(client):
    acquire(Failing(client, unsent=1), run_id="run-1", seconds=LONG).release()
    with pytest.raises(RedisUnavailable):
        acquire(Failing(client, unsent=2), run_id="run-1", seconds=LONG)


def test_when_redis_cannot_confirm_it_nothing_more_is_written(client):
    failing = Failing(client)
    lease = acquire(failing, run_id="run-1", seconds=LONG)
    failing.unsent = 10_000
    with pytest.raises(LeaseLost, match="could not confirm"):
        lease.require(0)
    failing.unsent = 0
    with pytest.raises(LeaseLost):
        lease.require(0)
    lease.release()
    assert client.get(KEY) is None


def test_failed_renewals_end_the_lease_before_redis_does(client, small_margin):
    """The holder must stop first: it believes in less time than Redis gives the key."""
    failing = Failing(client)
    lease = acquire(failing, run_id="run-1", seconds=SHORT)
    failing.unsent = 10_000
    give_up = time.monotonic() + 3
    while lease.remaining() > 0 and time.monotonic() < give_up:
        time.sleep(0.01)
    assert client.pttl(KEY) > 0
    failing.unsent = 0
    lease.release()


def test_one_failed_renewal_costs_nothing(client, small_margin):
    failing = Failing(client)
    with acquire(failing, run_id="run-1", seconds=SHORT) as lease:
        failing.unsent = 1
        give_up = time.monotonic() + 2
        while failing.unsent and time.monotonic() < give_up:
            time.sleep(0.02)
        time.sleep(SHORT)
        lease.require(0.1)


def test_giving_back_never_raises(client):
    failing = Failing(client)
    lease = acquire(failing, run_id="run-1", seconds=LONG)
    failing.unsent = 10_000
    lease.release()
    assert client.get(KEY) is not None, "it ends by itself"


# --- fencing -------------------------------------------------------------------------------------


def fence_of(client, **options) -> int:
    with acquire(client, run_id="r", seconds=LONG, **options) as lease:
        return lease.fence


def test_every_lease_has_a_higher_fencing_token(client):
    assert fence_of(client) < fence_of(client) < fence_of(client)


def test_the_ledger_knows_a_floor_for_a_redis_that_lost_its_counter(client):
    before = [fence_of(client) for _ in range(5)][-1]
    client.flushall()
    after = fence_of(client, fence_floor=before)
    assert after == before + 1
    assert fence_of(client) == after + 1, "and counting goes on from there"


def test_a_floor_below_the_counter_changes_nothing(client):
    first = fence_of(client, fence_floor=1_000_000)
    assert first == 1_000_001
    assert fence_of(client, fence_floor=5) == 1_000_002


@pytest.mark.parametrize("garbage", ["words", "1.5", str(2**63 - 1)])
def test_a_counter_that_cannot_be_counted_goes_on_after_the_ledger(client, garbage):
    client.set(FENCE_KEY, garbage)
    assert fence_of(client, fence_floor=40) == 41
    assert fence_of(client, fence_floor=41) == 42
    client.delete(FENCE_KEY)
    client.rpush(FENCE_KEY, "a list")
    assert fence_of(client, fence_floor=42) == 43


def test_a_large_token_stays_whole(client):
    """Lua counts in doubles, which are whole up to 2**53."""
    assert fence_of(client, fence_floor=2**40) == 2**40 + 1
    assert client.get(FENCE_KEY) == str(2**40 + 1)


# --- who holds it --------------------------------------------------------------------------------


@pytest.mark.parametrize("value", ["", "text", "[]", "null", "{}", '{"holder": 1}'])
def test_a_holder_that_cannot_be_read_is_still_a_holder(client, value):
    client.set(KEY, value)
    assert holder(client).name == "unknown"
    with pytest.raises(LeaseHeld, match="unknown"):
        acquire(client, run_id="r", seconds=LONG)


def _text(client):
    client.set(KEY, "somebody wrote here")


def _list(client):
    client.rpush(KEY, "somebody", "wrote", "here")


@pytest.mark.parametrize("overwrite", [_text, _list])
def test_a_lease_without_an_end_gets_one_so_that_repairs_go_on(client, overwrite):
    overwrite(client)
    with pytest.raises(LeaseHeld, match="unknown"):
        acquire(client, run_id="r", seconds=0.3)
    assert 0 < client.pttl(KEY) <= 300
    time.sleep(0.35)
    acquire(client, run_id="r", seconds=LONG).release()


def test_the_end_of_somebody_elses_lease_stays_where_it_is(client):
    client.set(KEY, "somebody else", px=60_000)
    with pytest.raises(LeaseHeld):
        acquire(client, run_id="r", seconds=1)
    assert client.pttl(KEY) > 50_000


def test_values_of_two_runs_differ_though_all_else_agrees(client, monkeypatch):
    monkeypatch.setattr(lease_module.time, "time", lambda: 0.0)
    values = set()
    for _ in range(2):
        with acquire(client, run_id="same", seconds=LONG):
            values.add(client.get(KEY))
    assert len(values) == 2


def test_a_keeper_holds_one_lease_until_the_run_is_over(client):
    keeper = LeaseKeeper()
    with pytest.raises(LeaseLost, match="no lease was taken"):
        _ = keeper.lease
    keeper.release()
    lease = acquire(client, run_id="r", seconds=LONG)
    keeper.keep(lease)
    assert keeper.lease is lease
    keeper.release()
    assert client.get(KEY) is None
    with pytest.raises(LeaseLost):
        _ = keeper.lease
