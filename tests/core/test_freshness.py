"""A snapshot older than two ticks, or of mixed ticks, causes no repair."""

from datetime import datetime, timedelta, timezone

import pytest

from zlh_dagster.core.model import records_frame
from zlh_dagster.core.snapshot import NotNow, Outcome, Snapshot, require_one_fresh_tick

NOW = datetime(2030, 1, 1, tzinfo=timezone.utc)


def snap(source: str, age: float, tick: str = "t1") -> Snapshot:
    taken_at = NOW - timedelta(seconds=age)
    return Snapshot(source, tick, taken_at, Outcome.OBSERVED, records_frame([]))


@pytest.mark.parametrize("age", [0, 1, 60, 119, 120, -30, -120])
def test_one_tick_within_two_minutes_passes(age):
    require_one_fresh_tick([snap("a", age), snap("b", 0)], now=NOW)


@pytest.mark.parametrize("age", [120.1, 180, 86_400])
def test_one_old_snapshot_stops_the_whole_tick(age):
    with pytest.raises(NotNow, match=r"^b was read \d+ s ago, more than two ticks"):
        require_one_fresh_tick([snap("a", 0), snap("b", age)], now=NOW)


def test_a_snapshot_of_the_future_means_that_a_clock_was_set():
    with pytest.raises(NotNow, match="in the future"):
        require_one_fresh_tick([snap("a", -121)], now=NOW)


def test_mixed_ticks_are_named_and_stop_everything():
    with pytest.raises(NotNow, match=r"2 ticks \(t1, t2\)"):
        require_one_fresh_tick([snap("a", 0, "t1"), snap("b", 0, "t2")], now=NOW)


def test_no_snapshot_at_all_is_no_tick():
    with pytest.raises(NotNow):
        require_one_fresh_tick([], now=NOW)


def test_zones_of_time_do_not_matter():
    east = timezone(timedelta(hours=9))
    taken_at = (NOW - timedelta(seconds=30)).astimezone(east)
    snapshot = Snapshot("a", "t1", taken_at, Outcome.OBSERVED, records_frame([]))
    require_one_fresh_tick([snapshot], now=NOW)
