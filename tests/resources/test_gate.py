"""The gate before every repair: pauses, breakers and approvals outlive the process."""

import json

import pytest
import sqlalchemy as sa

from zlh_dagster.core.breaker import QUIET_SECONDS, State
from zlh_dagster.core.holds import EVERYTHING, Pause
from zlh_dagster.core.model import Surface
from zlh_dagster.resources import database
from zlh_dagster.resources import gate as gate_module
from zlh_dagster.resources.database import DatabaseError
from zlh_dagster.resources.gate import (
    APPROVAL_SECONDS,
    APPROVALS,
    BREAKERS,
    LIMIT_SECONDS,
    LIMITS,
    LONGEST_OPEN_SECONDS,
    RESETS,
    Gate,
)
from zlh_dagster.resources.pauses import KEY, Pauses
from zlh_dagster.resources.redis import RedisUnavailable, connect
from zlh_dagster.resources.table import RedisTable
from zlh_dagster.schema.upgrade import upgrade

START = 1_900_000_000.0
CF, TN = Surface.CLOUDFLARE, Surface.TECHNITIUM
MASS = "mass_drift:cloudflare"


class Clock:
    def __init__(self):
        self.now = START

    def time(self):
        return self.now


@pytest.fixture
def clock(monkeypatch):
    made = Clock()
    monkeypatch.setattr(gate_module, "time", made)
    return made


@pytest.fixture
def redis(redis_url):
    with connect(redis_url) as client:
        yield client


@pytest.fixture
def engine(tmp_path):
    """A database with our own tables."""
    made = database.connect(f"sqlite:///{tmp_path / 'own.db'}", create=True)
    upgrade(made)
    yield made
    made.dispose()


@pytest.fixture
def make(clock, engine):
    """A gate over a connection to Redis."""

    def make(client):
        return Gate(client, pauses=Pauses(client, engine), failures_to_open=3, open_seconds=900)

    return make


@pytest.fixture
def gate(redis, make):
    return make(redis)


def state(gate, name="cloudflare"):
    return gate.breakers()[name].state(gate_module.time.time())


def code(refusal):
    return None if refusal is None else refusal.code


def test_an_empty_gate_holds_nothing(gate):
    holds = gate.holds()
    assert (holds.pauses, holds.breakers, holds.approved) == ({}, {}, frozenset())
    assert holds.now == START


# --- breakers of surfaces ------------------------------------------------------------------------


def test_failures_in_a_row_open_a_surface_and_no_other(gate):
    for count in (1, 2):
        assert gate.failed(CF, f"failure {count}").state(START) is State.CLOSED
    assert gate.failed(CF, "failure 3").state(START) is State.OPEN
    holds = gate.holds()
    assert code(holds.surface(CF)) == "surface_breaker_open"
    assert "failure 3" in holds.surface(CF).message
    assert holds.surface(TN) is None


def test_a_success_between_failures_begins_the_count_anew(gate):
    gate.failed(CF, "x")
    gate.failed(CF, "x")
    gate.succeeded([CF, CF, TN])
    assert gate.breakers() == {}
    assert gate.failed(CF, "x").failures == 1


def test_a_breaker_outlives_the_process(gate, make, redis_url):
    for _ in range(3):
        gate.failed(CF, "x")
    with connect(redis_url) as other:
        again = make(other)
        assert code(again.holds().surface(CF)) == "surface_breaker_open"


def test_after_its_time_one_trial_closes_it_or_opens_it_again(gate, clock):
    for _ in range(3):
        gate.failed(CF, "x")
    clock.now += 900
    assert gate.holds().on_trial(CF)
    assert gate.holds().surface(CF) is None
    gate.failed(CF, "again")
    assert state(gate) is State.OPEN
    clock.now += 900
    gate.succeeded([CF])
    assert gate.breakers() == {}


@pytest.mark.parametrize(
    ("seconds", "opens_for"),
    [
        (None, 900),
        (10.0, 900),
        (1200.0, 1200),
        (86_400.0, LONGEST_OPEN_SECONDS),
        (-5.0, 900),
    ],
)
def test_it_stays_open_as_long_as_the_provider_asks_within_limits(gate, seconds, opens_for):
    breaker = gate.failed(CF, "429", at_once=True, seconds=seconds)
    assert breaker.until == START + opens_for


def test_failures_age_out_and_so_does_a_breaker_that_nobody_tries(gate, clock):
    gate.failed(CF, "x")
    for _ in range(3):
        gate.failed(TN, "x")
    clock.now += QUIET_SECONDS
    assert set(gate.breakers()) == {"technitium"}
    clock.now += 900
    assert gate.breakers() == {}
    assert gate.failed(CF, "x").failures == 1


@pytest.mark.parametrize("text", ["{broken", '{"failures": "x"}', '{"until": []}', "[]"])
def test_a_breaker_that_cannot_be_read_is_closed_and_hides_no_other(gate, redis, text):
    for _ in range(3):
        gate.failed(TN, "x")
    redis.hset(BREAKERS, "cloudflare", text)
    assert set(gate.breakers()) == {"technitium"}
    assert gate.holds().surface(CF) is None
    assert state(gate, "technitium") is State.OPEN
    assert gate.failed(CF, "x").failures == 1


# --- rate limits ---------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("seconds", "wait"),
    [
        (None, LIMIT_SECONDS),
        (0.0, LIMIT_SECONDS),
        (30.0, 30.0),
        (0.2, 1.0),
        (1e9, LONGEST_OPEN_SECONDS),
    ],
)
def test_a_limited_surface_is_not_even_read_until_its_time(gate, clock, seconds, wait):
    gate.limit(CF, "HTTP 429", seconds=seconds)
    assert state(gate) is State.OPEN
    assert gate.limited(TN) is None
    clock.now = START + wait - 0.1
    assert gate.limited(CF).startswith("HTTP 429; not asked again before ")
    clock.now = START + wait + 0.1
    assert gate.limited(CF) is None


def test_a_limit_that_is_over_is_forgotten(gate, clock, redis):
    gate.limit(CF, "HTTP 429", seconds=30)
    clock.now += 31
    assert gate.limited(CF) is None
    assert redis.hgetall(LIMITS) == {}


def test_a_clock_set_back_does_not_blind_a_surface_for_ever(gate, clock):
    gate.limit(CF, "HTTP 429", seconds=30)
    clock.now -= 86_400
    assert gate.limited(CF) is None


@pytest.mark.parametrize("value", [{}, {"until": "soon"}, {"until": None}, {"until": []}])
def test_a_limit_that_cannot_be_read_blinds_nothing(gate, redis, value):
    redis.hset(LIMITS, "cloudflare", json.dumps(value))
    assert gate.limited(CF) is None


# --- breakers of servers -------------------------------------------------------------------------


def test_a_servers_breaker_is_open_for_an_hour_from_its_first_cause(gate, clock):
    gate.open_server(5000, "3 repairs within an hour")
    clock.now += 1800
    gate.open_server(5000, "again")
    clock.now += 1799
    assert code(gate.holds().server(5000)) == "breaker_open"
    assert "3 repairs" in gate.holds().server(5000).message
    assert gate.holds().server(5001) is None
    clock.now += 1
    assert gate.holds().server(5000) is None
    gate.open_server(5000, "and again")
    assert code(gate.holds().server(5000)) == "breaker_open"


def test_a_servers_breaker_is_forgotten_with_its_hour(gate, clock):
    """It has no trial: from then on the budget alone decides."""
    gate.open_server(5000, "3 repairs within an hour")
    clock.now += gate_module.SERVER_OPEN_SECONDS - 1
    assert set(gate.breakers()) == {"server:5000"}
    clock.now += 1
    assert gate.breakers() == {}


def test_a_reset_closes_a_breaker_and_forgives_what_was_spent(gate):
    gate.open_server(5000, "x")
    assert gate.reset("server:5000")
    assert gate.holds().server(5000) is None
    assert gate.counted_since([5000, 5001]) == {5000: START}


def test_a_reset_of_a_surface_lets_it_be_read_again(gate):
    gate.limit(CF, "HTTP 429", seconds=300)
    assert gate.reset("cloudflare")
    assert gate.limited(CF) is None
    assert gate.holds().surface(CF) is None
    assert gate.counted_since([5000]) == {}


def test_a_reset_of_nothing_says_so(gate):
    assert not gate.reset("velocity")
    assert not gate.reset("server:5000")


@pytest.mark.parametrize("value", [{}, {"at": "x"}, {"at": []}])
def test_a_reset_that_cannot_be_read_forgives_nothing(gate, redis, value):
    redis.hset(RESETS, "server:5000", json.dumps(value))
    assert gate.counted_since([5000]).get(5000, 0.0) == 0.0


# --- pauses --------------------------------------------------------------------------------------


@pytest.mark.parametrize("scope", [EVERYTHING, "server:5000", "surface:cloudflare"])
def test_a_pause_holds_until_it_is_ended(gate, clock, scope):
    made = Pause(scope, "moving house", START)
    gate.pause(made)
    clock.now += 1e8
    assert gate.pauses() == gate.holds().pauses == {scope: made}
    assert gate.resume(scope)
    assert gate.pauses() == {}
    assert not gate.resume(scope)


def test_a_pause_with_an_end_ends_by_itself(gate, clock):
    gate.pause(Pause(EVERYTHING, "x", START, until=START + 60))
    clock.now += 59
    assert code(gate.holds().server(None)) == "paused"
    clock.now += 1
    assert gate.holds().pauses == {}
    assert gate.holds().server(None) is None
    assert not gate.resume(EVERYTHING), "there was none any more"


def test_of_a_pause_known_twice_the_longer_one_is_shown_as_it_will_hold(gate, clock):
    gate.pause(Pause(EVERYTHING, "short", START, until=START + 60))
    gate.keep(Pause(EVERYTHING, "without end", START))
    assert gate.known_pauses()[EVERYTHING].reason == "without end"
    gate.pause(Pause(EVERYTHING, "without end", START))
    gate.keep(Pause(EVERYTHING, "short", START, until=START + 60))
    assert gate.known_pauses()[EVERYTHING].reason == "without end"


def test_a_new_pause_replaces_the_one_of_its_scope_only(gate):
    gate.pause(Pause(EVERYTHING, "short", START, until=START + 60))
    gate.pause(Pause("server:5000", "y", START))
    gate.pause(Pause(EVERYTHING, "long", START))
    assert {p.scope: p.reason for p in gate.pauses().values()} == {
        EVERYTHING: "long",
        "server:5000": "y",
    }


@pytest.mark.parametrize("text", ["{broken", "[]", '{"until": "x"}', "{}"])
def test_a_pause_that_cannot_be_read_pauses_all_the_same(gate, redis, text):
    redis.hset(KEY, EVERYTHING, text)
    assert code(gate.holds().server(5000)) == "paused"
    assert gate.resume(EVERYTHING)


def test_looking_at_pauses_never_ends_one_that_was_just_begun(gate, clock, redis, monkeypatch):
    """The operator pauses in the very moment in which an older pause is found to be over."""
    gate.pause(Pause(EVERYTHING, "old", START, until=START + 60))
    clock.now += 61
    read = Pause.from_json

    def and_meanwhile(scope, value):
        monkeypatch.setattr(Pause, "from_json", staticmethod(read))
        gate.pause(Pause(EVERYTHING, "new", clock.now))
        return read(scope, value)

    monkeypatch.setattr(Pause, "from_json", staticmethod(and_meanwhile))
    gate.pauses()
    assert code(gate.holds().server(5000)) == "paused"


def test_a_redis_that_lost_its_data_gets_the_pauses_back_once(gate, redis):
    made = Pause("server:5000", "moving house", START, until=START + 60)
    gate.pause(made)
    gate.pause(Pause(EVERYTHING, "short", START))
    gate.pause(Pause(EVERYTHING, "long", START))
    gate.pause(Pause("surface:cloudflare", "over", START))
    gate.resume("surface:cloudflare")
    assert gate.recall() == []
    redis.flushall()
    assert gate.pauses() == {}
    assert sorted(gate.recall()) == [EVERYTHING, "server:5000"]
    assert gate.pauses() == {EVERYTHING: Pause(EVERYTHING, "long", START), "server:5000": made}
    assert gate.recall() == []


def test_a_pause_begun_after_the_loss_is_not_replaced_by_an_old_one(gate, redis):
    gate.pause(Pause(EVERYTHING, "old", START))
    redis.flushall()
    gate.pause(Pause("server:5000", "y", START))
    gate.recall()
    assert set(gate.pauses()) == {EVERYTHING, "server:5000"}
    newer = Pause(EVERYTHING, "newer", START + 5)
    redis.hset(KEY, EVERYTHING, json.dumps(newer.to_json()))
    gate.recall()
    assert gate.pauses()[EVERYTHING].reason == "newer"


def test_a_redis_that_came_back_with_older_data_gets_the_newer_pause(gate, redis):
    """From a file that was written before, or a replica that lagged behind."""
    gate.pause(Pause("server:5000", "x", START))
    gate.recall()
    older = redis.hgetall(KEY)
    gate.pause(Pause(EVERYTHING, "the kill switch", START))
    redis.delete(KEY)
    redis.hset(KEY, mapping=older)
    assert gate.recall() == [EVERYTHING]
    assert code(gate.holds().server(5000)) == "paused"


@pytest.mark.parametrize("since", [START + 60, START - 3600])
def test_a_pause_that_the_database_took_alone_replaces_a_shorter_one_in_redis(gate, since):
    """Its entry would stand in the way; the clock may have been set back between the two."""
    gate.pause(Pause(EVERYTHING, "an hour", START, until=START + 3600))
    gate.keep(Pause(EVERYTHING, "the kill switch", since))
    assert gate.recall() == [EVERYTHING]
    assert gate.pauses()[EVERYTHING].reason == "the kill switch"
    assert gate.recall() == []


def test_a_pause_that_nothing_could_keep_says_so(gate, engine):
    with engine.begin() as connection:
        connection.execute(sa.text('DROP TABLE "RepairPause"'))
    with pytest.raises(DatabaseError, match=r"^not paused: .*zlh db upgrade"):
        gate.keep(Pause(EVERYTHING, "x", START))
    assert gate.pauses() == {}


def test_a_pause_that_is_ended_while_it_is_recalled_does_not_come_back(gate, redis, monkeypatch):
    gate.pause(Pause(EVERYTHING, "x", START))
    redis.delete(KEY)
    real = RedisTable.put_new

    def and_ended(self, name, value):
        gate.resume(EVERYTHING)
        return real(self, name, value)

    monkeypatch.setattr(RedisTable, "put_new", and_ended)
    assert gate.recall() == []
    assert gate.pauses() == {}


def test_a_pause_holds_though_the_database_cannot_keep_it(gate, engine):
    with engine.begin() as connection:
        connection.execute(sa.text('DROP TABLE "RepairPause"'))
    with pytest.raises(DatabaseError, match="zlh db upgrade"):
        gate.pause(Pause(EVERYTHING, "x", START))
    assert code(gate.holds().server(5000)) == "paused"
    with pytest.raises(DatabaseError, match="still paused"):
        gate.resume(EVERYTHING)
    assert code(gate.holds().server(5000)) == "paused"


# --- approvals -----------------------------------------------------------------------------------


def test_an_approval_waits_for_its_tick_and_is_used_up(gate):
    gate.approve(MASS)
    assert gate.holds().approved == {MASS}
    gate.spend([MASS, "mass_drift:technitium"])
    assert gate.holds().approved == frozenset()


@pytest.mark.parametrize(
    ("seconds", "counts"),
    [(0, True), (APPROVAL_SECONDS, True), (APPROVAL_SECONDS + 1, False), (-60, False)],
)
def test_an_old_approval_and_one_from_the_future_approve_nothing(gate, clock, seconds, counts):
    gate.approve(MASS)
    clock.now += seconds
    assert gate.holds().approved == ({MASS} if counts else frozenset())


@pytest.mark.parametrize("text", ["{broken", "{}", '{"at": "now"}', '{"at": []}', '{"at": null}'])
def test_an_approval_that_cannot_be_read_approves_nothing(gate, redis, text):
    redis.hset(APPROVALS, MASS, text)
    assert gate.holds().approved == frozenset()


# --- Redis gone ----------------------------------------------------------------------------------


def test_without_redis_nothing_is_let_through(make):
    with connect("unix:///nonexistent/redis.sock") as client:
        lost = make(client)
        for ask in (
            lost.holds,
            lost.breakers,
            lost.pauses,
            lambda: lost.failed(CF, "x"),
            lambda: lost.limit(CF, "x", seconds=1),
            lambda: lost.limited(CF),
            lambda: lost.succeeded([CF]),
            lambda: lost.open_server(5000, "x"),
            lambda: lost.reset("cloudflare"),
            lambda: lost.counted_since([5000]),
            lambda: lost.pause(Pause(EVERYTHING, "x", START)),
            lambda: lost.resume(EVERYTHING),
            lambda: lost.approve(MASS),
            lambda: lost.spend([MASS]),
        ):
            with pytest.raises(RedisUnavailable, match="are not known"):
                ask()
