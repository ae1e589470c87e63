"""Counts of each hour, for the digest."""

from datetime import datetime, timedelta, timezone
from itertools import count

import pandas as pd
import pytest

from zlh_dagster.core.compare import empty_drift
from zlh_dagster.core.judge import Tick
from zlh_dagster.core.model import Surface, records_frame
from zlh_dagster.core.policy import SOURCE_OF
from zlh_dagster.core.snapshot import Outcome, Snapshot
from zlh_dagster.resources.figures import KEPT_SECONDS, Figures
from zlh_dagster.resources.redis import RedisUnavailable, connect

EIGHT = datetime(2030, 1, 2, 8, tzinfo=timezone.utc)
_NAMES = (f"tick {n}" for n in count())
SEEN, UNSEEN, OFF = Outcome.OBSERVED, Outcome.UNOBSERVED, Outcome.OFF


@pytest.fixture
def redis(redis_url):
    with connect(redis_url) as client:
        yield client


@pytest.fixture
def figures(redis):
    return Figures(redis)


def tick(**outcomes):
    """Another tick each time."""
    name = next(_NAMES)

    def snap(source):
        outcome = outcomes.get(source, OFF)
        return Snapshot(source, name, EIGHT, outcome, records_frame([]))

    return Tick(
        payloads=snap("persisted_payloads"),
        desired=snap("desired_edge"),
        surfaces={surface: snap(SOURCE_OF[surface]) for surface in Surface},
        containers=snap("containers"),
        agents=snap("agents"),
        operations=snap("operations"),
    )


def drift(*names, kind="missing"):
    if not names:
        return empty_drift()
    return pd.DataFrame(
        [{"surface": "cloudflare", "type": "A", "name": name, "kind": kind} for name in names]
    )


def day(figures, end=EIGHT + timedelta(hours=1)):
    return figures.since(end - timedelta(days=1), end)


def test_an_hour_in_which_nothing_was_counted_has_no_counts(figures):
    assert day(figures) == {}


def test_ticks_are_counted_with_what_was_on_and_what_was_seen(figures):
    figures.count(tick(cloudflare_records=SEEN, containers=UNSEEN), drift(), now=EIGHT)
    figures.count(tick(cloudflare_records=UNSEEN, containers=SEEN), drift(), now=EIGHT)
    figures.count(tick(cloudflare_records=SEEN), drift(), now=EIGHT)
    assert day(figures) == {
        "ticks": 3,
        "drifts": 0,
        "on:cloudflare_records": 3,
        "seen:cloudflare_records": 2,
        "on:containers": 2,
        "seen:containers": 1,
    }


def test_a_tick_that_is_judged_twice_is_counted_once(figures):
    judged_twice = tick(cloudflare_records=SEEN)
    figures.count(judged_twice, drift("a"), now=EIGHT)
    once = day(figures)
    figures.count(judged_twice, drift("a"), now=EIGHT)
    assert day(figures) == once
    figures.count(tick(cloudflare_records=SEEN), drift("a"), now=EIGHT)
    assert day(figures)["ticks"] == 2


def test_a_drift_counts_once_while_it_lasts_and_again_when_it_comes_back(figures):
    history = [("a", "b"), ("a", "b"), ("a",), ("a", "b", "c"), (), ("a",)]
    for names in history:
        figures.count(tick(), drift(*names), now=EIGHT)
    assert day(figures)["drifts"] == 2 + 0 + 0 + 2 + 0 + 1


def test_another_kind_of_drift_of_one_name_is_another_drift(figures):
    figures.count(tick(), drift("a"), now=EIGHT)
    figures.count(tick(), drift("a", kind="wrong"), now=EIGHT)
    assert day(figures)["drifts"] == 2


def test_what_lasts_over_the_hour_is_not_counted_in_the_next_one_again(figures):
    figures.count(tick(), drift("a"), now=EIGHT)
    figures.count(tick(), drift("a"), now=EIGHT + timedelta(hours=1))
    later = EIGHT + timedelta(hours=1)
    assert figures.since(later, later)["drifts"] == 0
    assert figures.since(EIGHT, EIGHT)["drifts"] == 1


@pytest.mark.parametrize(
    ("minutes", "counted"),
    [(-61, 0), (-60, 1), (-1, 1), (0, 1), (59, 1), (24 * 60, 1), (25 * 60, 0)],
)
def test_the_hours_of_a_span_are_counted_the_first_and_the_last_whole(figures, minutes, counted):
    """From half past to the full hour: both of those hours belong to the span."""
    start = EIGHT.replace(minute=0)
    figures.count(tick(), drift(), now=start + timedelta(minutes=minutes))
    span = figures.since(start - timedelta(minutes=30), start + timedelta(days=1))
    assert span.get("ticks", 0) == counted


def test_hours_are_those_of_utc(figures):
    figures.count(tick(), drift(), now=EIGHT.astimezone(timezone(timedelta(hours=5, minutes=30))))
    assert figures.since(EIGHT, EIGHT)["ticks"] == 1


def test_counts_are_kept_for_weeks_and_then_go_by_themselves(figures, redis):
    figures.count(tick(), drift("a"), now=EIGHT)
    [key] = redis.keys("zlh:hour:*")
    assert KEPT_SECONDS - 5 <= redis.ttl(key) <= KEPT_SECONDS


def test_without_redis_nothing_is_counted_and_the_error_says_so():
    with connect("unix:///nonexistent/redis.sock") as client:
        lost = Figures(client)
        with pytest.raises(RedisUnavailable):
            lost.count(tick(), drift(), now=EIGHT)
        with pytest.raises(RedisUnavailable):
            lost.since(EIGHT, EIGHT)
