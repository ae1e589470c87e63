"""Since when queue jobs are dead, tick by tick."""

import json
from datetime import datetime, timedelta, timezone

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from zlh_dagster.core.fleet import JobState, operations_frame
from zlh_dagster.core.model import rows_of
from zlh_dagster.core.watch import job_is_dead
from zlh_dagster.resources.dead_jobs import KEY, DeadJobs
from zlh_dagster.resources.redis import RedisUnavailable, connect

START = datetime(2030, 1, 1, tzinfo=timezone.utc)
NOW, LONG_AGO = "2030-01-01T00:00:00+00:00", "2029-01-01T00:00:00+00:00"


@pytest.fixture
def redis(redis_url):
    with connect(redis_url) as client:
        yield client


@pytest.fixture
def jobs(redis):
    return DeadJobs(redis)


def frame(*rows):
    return operations_frame(
        [{"id": name, "jobId": job_id, "job": state} for name, job_id, state in rows]
    )


def at(seconds):
    return START + timedelta(seconds=seconds)


def read(jobs, state, seconds, *, job_id="7", count=True):
    """One read of one operation: how often its job was dead, and whether that is enough."""
    ask = jobs.count if count else jobs.look
    [row] = rows_of(ask(frame(("op", job_id, state)), now=at(seconds)))
    return int(row["deadReads"]), job_is_dead(row, at(seconds))


def test_a_job_is_dead_at_two_reads_a_minute_apart(jobs):
    assert read(jobs, "gone", 0) == (1, False)
    assert read(jobs, "gone", 60) == (2, True)


def test_two_reads_in_quick_succession_are_not_enough(jobs):
    read(jobs, "gone", 0)
    assert read(jobs, "gone", 59) == (2, False)
    assert read(jobs, "gone", 60) == (3, True)


def test_one_read_is_never_enough_however_long_ago(jobs):
    read(jobs, "gone", 0)
    assert read(jobs, "gone", 120, count=False) == (1, False)
    assert read(jobs, "gone", 86_400, count=False) == (0, False)


def test_a_sign_of_life_begins_the_count_anew(jobs):
    read(jobs, "stalled", 0)
    assert read(jobs, "active", 30) == (0, False)
    assert read(jobs, "stalled", 90) == (1, False)
    assert read(jobs, "stalled", 150) == (2, True)


def test_another_way_of_being_dead_goes_on_counting(jobs):
    read(jobs, "stalled", 0)
    assert read(jobs, "failed", 60) == (2, True)


def test_another_job_of_the_operation_begins_the_count_anew(jobs):
    read(jobs, "gone", 0, job_id="7")
    assert read(jobs, "gone", 60, job_id="8") == (1, False)
    assert read(jobs, "none", 120, job_id=None) == (1, False)
    assert read(jobs, "none", 180, job_id=None) == (2, True)


def test_looking_does_not_count(jobs, redis):
    assert read(jobs, "gone", 0, count=False) == (0, False)
    assert redis.hgetall(KEY) == {}
    read(jobs, "gone", 0)
    for seconds in (60, 110):
        assert read(jobs, "gone", seconds, count=False) == (1, False)
    assert read(jobs, "gone", 120) == (2, True)
    assert read(jobs, "gone", 140, count=False) == (2, True)


def test_a_look_at_another_job_knows_nothing_of_the_first(jobs):
    read(jobs, "gone", 0)
    read(jobs, "gone", 60)
    assert read(jobs, "gone", 61, job_id="8", count=False) == (0, False)
    assert read(jobs, "active", 61, count=False) == (0, False)


def test_operations_are_counted_by_themselves_and_forgotten_when_closed(jobs, redis):
    jobs.count(frame(("a", "1", "gone"), ("b", "2", "active"), ("c", "3", "failed")), now=START)
    assert set(redis.hgetall(KEY)) == {"a", "c"}
    made = jobs.count(frame(("b", "2", "gone"), ("c", "3", "failed")), now=at(60))
    assert dict(zip(made["id"], made["deadReads"], strict=True)) == {"b": 1, "c": 2}
    assert set(redis.hgetall(KEY)) == {"b", "c"}
    assert jobs.count(frame(), now=at(120)).empty
    assert redis.hgetall(KEY) == {}


def test_a_redis_that_lost_it_makes_a_repair_later_and_never_earlier(jobs, redis):
    read(jobs, "gone", 0)
    redis.flushall()
    assert read(jobs, "gone", 60) == (1, False)
    assert read(jobs, "gone", 120) == (2, True)


@pytest.mark.parametrize(
    "text",
    [
        "{broken",
        "[]",
        "{}",
        json.dumps({"job": "7", "since": "long ago", "reads": 9, "at": NOW}),
        json.dumps({"job": "7", "since": None, "reads": 9, "at": NOW}),
        json.dumps({"job": "7", "since": 5, "reads": 9, "at": NOW}),
        json.dumps({"job": "7", "since": LONG_AGO, "reads": "9", "at": NOW}),
        json.dumps({"job": "7", "since": LONG_AGO, "at": NOW}),
        json.dumps({"job": "7", "since": LONG_AGO, "reads": 9}),
        json.dumps({"job": "7", "since": LONG_AGO, "reads": 9, "at": 5}),
        json.dumps({"job": "7", "since": LONG_AGO, "reads": 9, "at": LONG_AGO}),
    ],
)
def test_what_cannot_be_read_proves_nothing(jobs, redis, text):
    redis.hset(KEY, "op", text)
    _, dead = read(jobs, "gone", 0)
    assert not dead


def test_a_clock_set_back_proves_nothing(jobs):
    read(jobs, "gone", 3600)
    assert read(jobs, "gone", 0) == (1, False)
    assert read(jobs, "gone", 60) == (2, True)


@pytest.mark.parametrize("pause", [121, 3600])
def test_a_clock_set_forward_proves_nothing_nor_does_a_pause_without_reads(jobs, pause):
    read(jobs, "gone", 0)
    assert read(jobs, "gone", pause) == (1, False)
    assert read(jobs, "gone", pause + 60) == (2, True)


def test_a_clock_set_forward_between_tick_and_repair_proves_nothing(jobs):
    read(jobs, "gone", 0)
    read(jobs, "gone", 20)
    assert read(jobs, "gone", 3600, count=False) == (0, False)


def test_reads_of_two_clocks_that_differ_a_little_are_counted_together(jobs):
    read(jobs, "gone", 0)
    assert read(jobs, "gone", -3) == (2, False)
    assert read(jobs, "gone", 60) == (3, True)


def test_a_frames_own_index_does_not_matter(jobs):
    given = frame(("a", "1", "active"), ("b", "2", "gone"))
    made = jobs.count(given[given["id"] == "b"], now=START)
    assert list(made["deadReads"]) == [1]


steps = st.lists(
    st.tuples(
        st.sampled_from(["gone", "stalled", "active", "waiting"]),
        st.integers(min_value=1, max_value=100),
        st.booleans(),
    ),
    max_size=12,
)


@settings(max_examples=50, deadline=None)
@given(steps)
def test_no_job_is_dead_that_lived_within_the_last_minute(redis_server, history):
    with connect(redis_server) as client:
        client.delete(KEY)
        jobs, seconds, dead_at = DeadJobs(client), 0, []
        for state, pause, count in history:
            seconds += pause
            _, dead = read(jobs, state, seconds, count=count)
            if not JobState(state).dead and count:
                dead_at = []
            elif JobState(state).dead and count:
                dead_at.append(seconds)
            if dead:
                assert JobState(state).dead
                assert len(dead_at) >= 2
                assert seconds - dead_at[0] >= 60


def test_without_redis_nothing_is_dead_and_the_error_says_so():
    with connect("unix:///nonexistent/redis.sock") as client:
        lost = DeadJobs(client)
        for ask in (lost.count, lost.look):
            with pytest.raises(RedisUnavailable, match="dead jobs are not known"):
                ask(frame(("a", "1", "gone")), now=START)
