"""Breakers: closed, open, half-open, and back."""

import json

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from zlh_dagster.core.breaker import (
    CLOSED,
    QUIET_SECONDS,
    Breaker,
    State,
    server_breaker,
    surface_breaker,
)

LIMITS = {"threshold": 5, "seconds": 900.0}


def after(failures, *, start=CLOSED, now=1000.0):
    breaker = start
    for _ in range(failures):
        breaker = breaker.failed(now=now, reason="HTTP 500", **LIMITS)
    return breaker


@pytest.mark.parametrize(
    ("failures", "state"),
    [(0, State.CLOSED), (1, State.CLOSED), (4, State.CLOSED), (5, State.OPEN), (6, State.OPEN)],
)
def test_only_enough_failures_in_a_row_open_it(failures, state):
    breaker = after(failures)
    assert breaker.state(1000.0) is state
    assert breaker.failures == failures


@pytest.mark.parametrize(
    ("now", "state"),
    [
        (1000.0, State.OPEN),
        (1899.9, State.OPEN),
        (1900.0, State.HALF_OPEN),
        (1900.0 + QUIET_SECONDS - 1, State.HALF_OPEN),
        (1900.0 + QUIET_SECONDS, State.CLOSED),
    ],
)
def test_it_is_half_open_when_its_time_is_over_and_closed_when_nothing_comes(now, state):
    assert after(5).state(now) is state


@pytest.mark.parametrize(
    ("later", "failures"), [(0.0, 5), (QUIET_SECONDS - 1, 5), (QUIET_SECONDS, 1)]
)
def test_failures_far_apart_are_not_in_a_row(later, failures):
    """Five in five weeks say nothing about now."""
    assert after(1, start=after(4), now=1000.0 + later).failures == failures


def test_an_old_opening_is_forgotten_with_its_count():
    breaker = after(1, start=after(5), now=1900.0 + QUIET_SECONDS)
    assert (breaker.failures, breaker.opened_at) == (1, None)


def test_one_failure_on_trial_opens_it_again_for_its_whole_time():
    trial = after(1, start=after(5), now=2000.0)
    assert trial.state(2899.0) is State.OPEN
    assert (trial.opened_at, trial.until) == (2000.0, 2900.0)


def test_a_rate_limit_opens_it_at_the_first_failure():
    breaker = CLOSED.failed(now=0.0, reason="429", threshold=5, seconds=300.0, at_once=True)
    assert breaker.state(299.0) is State.OPEN
    assert breaker.failures == 1


def test_the_last_reason_is_the_one_that_is_told():
    breaker = after(4).failed(now=1000.0, reason="connection refused", **LIMITS)
    assert breaker.reason == "connection refused"


def test_success_is_the_closed_breaker_and_counting_begins_anew():
    assert after(4, start=CLOSED).state(1000.0) is State.CLOSED
    assert Breaker() == CLOSED


numbers = st.floats(min_value=0, max_value=4e9)
breakers = st.builds(
    Breaker,
    failures=st.integers(min_value=0, max_value=99),
    opened_at=st.none() | numbers,
    until=st.none() | numbers,
    reason=st.text(max_size=20),
    failed_at=st.none() | numbers,
)


@settings(max_examples=100, deadline=None)
@given(breakers)
def test_a_breaker_comes_back_as_it_was(breaker):
    assert Breaker.from_json(json.loads(json.dumps(breaker.to_json()))) == breaker


@pytest.mark.parametrize(
    "value", [{"failures": "x"}, {"opened_at": []}, {"until": "soon"}, {"failed_at": "x"}]
)
def test_what_cannot_be_read_is_an_error(value):
    with pytest.raises((TypeError, ValueError)):
        Breaker.from_json(value)


@settings(max_examples=200, deadline=None)
@given(
    breaker=breakers,
    now=numbers,
    threshold=st.integers(min_value=1, max_value=10),
    seconds=st.floats(min_value=1, max_value=3600),
    at_once=st.booleans(),
)
def test_a_failure_never_closes_and_opens_exactly_when_it_should(
    breaker, now, threshold, seconds, at_once
):
    before = breaker.state(now)
    failed = breaker.failed(
        now=now, reason="r", threshold=threshold, seconds=seconds, at_once=at_once
    )
    opens = at_once or failed.failures >= threshold or before is State.HALF_OPEN
    assert failed.failures == (1 if breaker.quiet(now) else breaker.failures + 1)
    assert (failed.state(now) is State.OPEN) is (opens or before is State.OPEN)


def test_names_tell_surfaces_and_servers_apart():
    assert surface_breaker("cloudflare") == "cloudflare"
    assert server_breaker(5000) == "server:5000"
