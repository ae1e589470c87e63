"""What keeps repairs back: pauses with and without an end, in every scope, and open breakers."""

import json

import pytest

from zlh_dagster.core.breaker import Breaker
from zlh_dagster.core.holds import (
    EVERYTHING,
    NOTHING_HELD,
    Holds,
    Pause,
    breaker_finding,
    clock,
    resume_command,
)
from zlh_dagster.core.model import Surface
from zlh_dagster.core.rules import Severity

NOW = 1_900_000_000.0
CF, TN = Surface.CLOUDFLARE, Surface.TECHNITIUM
OPEN = Breaker(failures=5, opened_at=NOW - 60, until=NOW + 840, reason="HTTP 500")
TRIAL = Breaker(failures=5, opened_at=NOW - 960, until=NOW, reason="HTTP 500")
COUNTING = Breaker(failures=4, reason="HTTP 500")


def pause(scope=EVERYTHING, until=None):
    return Pause(scope, "moving house", NOW - 60, until)


def holds(*pauses, **breakers):
    return Holds(NOW, {p.scope: p for p in pauses}, breakers)


def code(refusal):
    return None if refusal is None else refusal.code


@pytest.mark.parametrize(
    ("until", "on"), [(None, True), (NOW + 1, True), (NOW, False), (NOW - 1, False)]
)
def test_a_pause_lasts_until_its_end_or_for_ever(until, on):
    given = pause(until=until)
    assert given.on(NOW) is on
    assert code(holds(given).server(5000)) == ("paused" if on else None)
    assert len(list(holds(given).findings())) == int(on)


@pytest.mark.parametrize(
    ("scope", "server", "other", "none", "cloudflare", "technitium"),
    [
        (EVERYTHING, True, True, True, False, False),
        ("server:5000", True, False, False, False, False),
        ("surface:cloudflare", False, False, False, True, False),
        ("rubbish", False, False, False, False, False),
    ],
)
def test_a_pause_holds_its_scope_and_nothing_else(
    scope, server, other, none, cloudflare, technitium
):
    held = holds(pause(scope))
    assert [code(held.server(vmid)) == "paused" for vmid in (5000, 5001, None)] == [
        server,
        other,
        none,
    ]
    assert [code(held.surface(s)) == "paused" for s in (CF, TN)] == [cloudflare, technitium]


def test_a_pause_of_everything_names_itself_and_its_end():
    refusal = holds(pause(until=NOW + 3600)).server(5000)
    assert refusal.message == (
        f"repairs are paused until {clock(NOW + 3600)}: moving house; zlh resume ends it"
    )


@pytest.mark.parametrize(
    ("breaker", "refused", "trial"),
    [(OPEN, True, False), (TRIAL, False, True), (COUNTING, False, False), (None, False, False)],
)
def test_an_open_breaker_refuses_and_a_half_open_one_lets_a_trial_through(breaker, refused, trial):
    held = Holds(NOW, {}, {} if breaker is None else {"cloudflare": breaker})
    assert code(held.surface(CF)) == ("surface_breaker_open" if refused else None)
    assert held.on_trial(CF) is trial
    assert held.surface(TN) is None
    assert not held.on_trial(TN)
    assert held.server(5000) is None


@pytest.mark.parametrize(("breaker", "refused"), [(OPEN, True), (TRIAL, False), (COUNTING, False)])
def test_a_servers_breaker_holds_that_server(breaker, refused):
    held = Holds(NOW, {}, {"server:5000": breaker})
    assert code(held.server(5000)) == ("breaker_open" if refused else None)
    assert held.server(5001) is held.server(None) is None


def test_nothing_held_holds_nothing():
    assert NOTHING_HELD.server(5000) is None
    assert all(NOTHING_HELD.surface(surface) is None for surface in Surface)
    assert list(NOTHING_HELD.findings()) == []


def test_each_pause_and_open_breaker_is_told_with_what_ends_it():
    held = Holds(
        NOW,
        {scope: pause(scope) for scope in (EVERYTHING, "server:5000", "surface:cloudflare")},
        {"cloudflare": OPEN, "technitium": TRIAL, "server:5001": OPEN, "velocity": COUNTING},
    )
    told = {finding.incident: finding for finding in held.findings()}
    assert set(told) == {
        "paused:everything",
        "paused:server:5000",
        "paused:surface:cloudflare",
        "breaker:cloudflare",
        "breaker:server:5001",
    }
    assert told["paused:everything"].severity is Severity.INFO
    assert told["paused:server:5000"].text.endswith("zlh resume --vmid 5000")
    assert told["paused:surface:cloudflare"].text.endswith("zlh resume --surface cloudflare")
    assert told["breaker:cloudflare"].severity is Severity.CRITICAL
    assert "after 5 failures in a row: HTTP 500" in told["breaker:cloudflare"].text
    assert told["breaker:server:5001"].text.endswith("zlh breakers reset server:5001")


def test_the_finding_of_a_breaker_is_the_same_at_every_tick():
    again = Breaker(failures=6, opened_at=NOW, until=NOW + 900, reason="other")
    assert breaker_finding("cloudflare", OPEN).incident == "breaker:cloudflare"
    assert breaker_finding("cloudflare", again).title == breaker_finding("cloudflare", OPEN).title


@pytest.mark.parametrize(
    ("scope", "command"),
    [
        (EVERYTHING, "zlh resume"),
        ("server:5000", "zlh resume --vmid 5000"),
        ("surface:velocity", "zlh resume --surface velocity"),
    ],
)
def test_the_command_that_ends_a_pause(scope, command):
    assert resume_command(scope) == command


@pytest.mark.parametrize("until", [None, NOW + 1.5])
def test_a_pause_comes_back_as_it_was(until):
    given = pause("server:5000", until)
    assert Pause.from_json("server:5000", json.loads(json.dumps(given.to_json()))) == given


@pytest.mark.parametrize(
    "value",
    [{}, {"until": "x"}, {"since": None}, {"since": []}, {"until": {}}, {"until": float("nan")}],
)
def test_a_pause_that_cannot_be_read_is_a_pause_all_the_same(value):
    """The kill switch fails to the safe side."""
    assert Pause.from_json(EVERYTHING, value).on(NOW)


@pytest.mark.parametrize("until", [1e12, 1e300, float("inf"), float("nan")])
def test_a_pause_beyond_the_calendar_stops_no_tick(until):
    """`zlh pause --for 9999999d` is meant as 'for ever'; every tick describes it."""
    held = holds(pause(until=until))
    assert code(held.server(5000)) == "paused"
    [finding] = held.findings()
    assert "moving house" in finding.title
