"""The figures of a day: a name and a number each, and back."""

from datetime import datetime, timedelta, timezone

from zlh_dagster.core.history import day_of, figures_of

EIGHT = datetime(2030, 1, 2, 8, tzinfo=timezone.utc)
COUNTS = {"ticks": 10, "drifts": 3, "on:agents": 10, "seen:agents": 9, "on:containers": 4}


def event(status, seconds=None, vmid=5000):
    finished = None if seconds is None else EIGHT + timedelta(seconds=seconds)
    return {"vmid": vmid, "status": status, "createdAt": EIGHT, "finishedAt": finished}


def test_a_day_without_anything_has_no_figures():
    assert figures_of({}, []) == {}


def test_counts_and_repairs_by_outcome_and_the_longest():
    events = [
        event("succeeded", 2),
        event("succeeded", 7.5),
        event("failed", 60),
        event("refused", 0),
    ]
    assert figures_of(COUNTS, events) == {
        **COUNTS,
        "repairs:succeeded": 2,
        "repairs:failed": 1,
        "repairs:refused": 1,
        "longest_repair_seconds": 7.5,
    }


def test_a_repair_under_way_is_counted_when_it_has_ended():
    """Figures only grow: what is counted cannot become something else."""
    assert figures_of({}, [event("running")]) == {}
    assert figures_of({}, [event("interrupted", 5)]) == {"repairs:interrupted": 1}


def test_the_day_comes_back_from_its_figures():
    day = day_of(figures_of(COUNTS, [event("succeeded", 7.5)]))
    assert (day.ticks, day.drifts) == (10, 3)
    assert day.seen == {"agents": 0.9, "containers": 0.0}
    assert day.statuses == {"succeeded": 1}
    assert day.longest == (7.5, "")
    assert day_of({}).longest is None
