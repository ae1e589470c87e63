"""Where a job stands, from the keys that BullMQ keeps; tests/bullmq asks BullMQ itself."""

import pytest
import redis

from tests.resources.servers import serving, silent
from zlh_dagster.core.fleet import JobState
from zlh_dagster.resources import bullmq
from zlh_dagster.resources import redis as redis_module
from zlh_dagster.resources.bullmq import Queues, read_jobs
from zlh_dagster.resources.http import Incomplete
from zlh_dagster.resources.redis import RedisUnavailable, connect

QUEUE = "provisioning"
BASE = f"bull:{QUEUE}"


@pytest.fixture
def client(redis_url):
    """A Redis with one queue that BullMQ has opened."""
    with connect(redis_url) as one:
        one.hset(f"{BASE}:meta", "opts.maxLenEvents", "10000")
        yield one


def put(client, job: str, place: str | None = None, *, lock: bool = False, data: bool = True):
    if data:
        client.hset(f"{BASE}:{job}", mapping={"name": "create", "data": "{}"})
    if lock:
        client.set(f"{BASE}:{job}:lock", "token", px=30_000)
    if place in ("wait", "paused", "active"):
        client.lpush(f"{BASE}:{place}", job)
    elif place is not None:
        client.zadd(f"{BASE}:{place}", {job: 1})


def read(client, *jobs: str) -> list[str]:
    found = read_jobs(client, prefix="bull", jobs=[(QUEUE, job) for job in jobs]).states
    assert set(found) == {(QUEUE, job) for job in jobs}
    return [found[QUEUE, job].value for job in jobs]


@pytest.mark.parametrize(
    ("place", "lock", "state"),
    [
        ("wait", False, "waiting"),
        ("paused", False, "waiting"),
        ("active", True, "active"),
        ("active", False, "stalled"),
        ("delayed", False, "delayed"),
        ("prioritized", False, "prioritized"),
        ("waiting-children", False, "waiting-children"),
        ("completed", False, "completed"),
        ("failed", False, "failed"),
        (None, False, "unlisted"),
        (None, True, "unlisted"),
    ],
)
def test_its_list_tells_a_jobs_state_and_its_lock_whether_a_worker_has_it(
    client, place, lock, state
):
    put(client, "1", place, lock=lock)
    put(client, "2", "wait")
    assert read(client, "1", "2") == [state, "waiting"]


@pytest.mark.parametrize("place", [None, "wait", "active", "failed"])
def test_a_job_whose_data_is_gone_is_gone_wherever_it_is_still_listed(client, place):
    put(client, "1", place, data=False)
    assert read(client, "1") == ["gone"]


def test_the_first_of_a_long_list_and_the_last_are_found(client):
    for n in range(1000):
        put(client, str(n), "wait")
    assert read(client, "0", "999", "500", "1000") == ["waiting"] * 3 + ["gone"]


def test_a_score_of_zero_is_a_place_and_so_is_the_head_of_a_list(client):
    put(client, "1", None)
    client.zadd(f"{BASE}:delayed", {"1": 0})
    assert read(client, "1") == ["delayed"]


def test_jobs_of_two_queues_are_not_mixed_up(client):
    client.set("bull:operation:id", 1)
    put(client, "1", "wait")
    jobs = [(QUEUE, "1"), ("operation", "1"), (QUEUE, "1")]
    assert read_jobs(client, prefix="bull", jobs=jobs).states == {
        (QUEUE, "1"): JobState.WAITING,
        ("operation", "1"): JobState.GONE,
    }


@pytest.mark.parametrize("prefix", ["zlh", "{bull}", "a:b", "*"])
def test_the_prefix_is_taken_as_it_is(client, prefix):
    client.hset(f"{prefix}:{QUEUE}:meta", "a", 1)
    client.hset(f"{prefix}:{QUEUE}:1", "a", 1)
    client.lpush(f"{prefix}:{QUEUE}:wait", "1")
    jobs = [(QUEUE, "1")]
    assert read_jobs(client, prefix=prefix, jobs=jobs).states == {jobs[0]: JobState.WAITING}


@pytest.mark.parametrize(
    "job", ["*", "a b", "ü💥", "", "1\r\nDEL x", "%s {0} $1", "-1", "../1", "a" * 10_000]
)
def test_an_identifier_is_data_whatever_it_looks_like(client, job):
    put(client, "1", "wait")
    assert read(client, job) == ["gone"]
    put(client, job, "active", lock=True)
    assert read(client, job, "1") == ["active", "waiting"]


@pytest.mark.parametrize(
    ("place", "queued"),
    [
        ("wait", 1),
        ("paused", 1),
        ("active", 1),
        ("delayed", 1),
        ("prioritized", 1),
        ("waiting-children", 1),
        ("completed", 0),
        ("failed", 0),
        (None, 0),
    ],
)
def test_a_queues_jobs_are_counted_while_they_are_not_done(client, place, queued):
    put(client, "1", place)
    assert read_jobs(client, prefix="bull", jobs=[], queues=[QUEUE]).queued == {QUEUE: queued}
    put(client, "2", "wait")
    read = read_jobs(client, prefix="bull", jobs=[(QUEUE, "2")], queues=[QUEUE])
    assert read == Queues({(QUEUE, "2"): JobState.WAITING}, {QUEUE: queued + 1})


def test_in_several_transactions_a_queue_counts_as_full_as_it_was(client, monkeypatch):
    monkeypatch.setattr(bullmq, "CHUNK", 1)
    for n in range(3):
        put(client, str(n), "wait")
    jobs = [(QUEUE, "0"), (QUEUE, "1")]
    assert read_jobs(client, prefix="bull", jobs=jobs).queued == {QUEUE: 3}


def test_an_answer_in_bytes_or_in_text_is_the_same(client, redis_server):
    put(client, "1", "wait")
    with redis.Redis.from_url(redis_server) as raw:
        assert read(raw, "1", "2") == ["waiting", "gone"]


def test_nothing_asked_is_nothing_read(client):
    assert read_jobs(client, prefix="nowhere", jobs=[]) == Queues({}, {})


def test_everything_is_read_in_one_transaction_and_nothing_is_written(client, redis_server):
    put(client, "1", "active")
    before = {key: client.dump(key) for key in client.keys("*")}
    with connect(redis_server) as watcher, watcher.monitor() as monitor:
        read(client, "1", "2", "3")
        client.echo("over")
        commands = []
        while "over" not in (line := monitor.next_command()["command"]):
            commands.append(line.split(" ")[0])
    assert commands.count("MULTI") == commands.count("EXEC") == 1
    assert set(commands) <= {"MULTI", "EXEC", "EXISTS", "HLEN", "LPOS", "ZSCORE", "LLEN", "ZCARD"}
    assert {key: client.dump(key) for key in client.keys("*")} == before


def test_very_many_jobs_are_read_in_several_transactions(client, redis_server, monkeypatch):
    monkeypatch.setattr(bullmq, "CHUNK", 10)
    for n in range(25):
        put(client, str(n), "wait")
    with connect(redis_server) as watcher, watcher.monitor() as monitor:
        assert read(client, *map(str, range(25))) == ["waiting"] * 25
        client.echo("over")
        begun = 0
        while "over" not in (line := monitor.next_command()["command"]):
            begun += line == "MULTI"
    assert begun == 3


# --- unknown is not missing ----------------------------------------------------------------------


def test_a_queue_that_redis_does_not_know_makes_nothing_dead(client):
    put(client, "1", "wait")
    for prefix, queue in (("wrong", QUEUE), ("bull", "operation"), ("", QUEUE)):
        with pytest.raises(Incomplete, match=r"no queue .* ZLH_BULLMQ_PREFIX is wrong, or this"):
            read_jobs(client, prefix=prefix, jobs=[(queue, "1")])


def test_a_queue_of_the_platform_that_is_not_there_spoils_the_reading(client):
    """It is Redis that is wrong, or lost its data, and not one row."""
    put(client, "1", "wait")
    with pytest.raises(Incomplete, match="'operation'"):
        read_jobs(client, prefix="bull", jobs=[(QUEUE, "1"), ("operation", "2")])


@pytest.mark.parametrize("queue", ["oops", "", "a:b", "broken", "provisioning "])
def test_a_queue_that_is_no_queue_costs_only_its_own_jobs(client, queue):
    put(client, "1", "wait")
    client.set("bull:broken:wait", "text")
    client.set("bull:broken:id", 1)
    jobs = [(QUEUE, "1"), (queue, "1"), (QUEUE, "2")]
    found = read_jobs(client, prefix="bull", jobs=jobs)
    assert found.states == {
        (QUEUE, "1"): JobState.WAITING,
        (queue, "1"): JobState.UNKNOWN,
        (QUEUE, "2"): JobState.GONE,
    }
    assert found.queued == {QUEUE: 1}
    assert set(found.unclear) == {(queue, "1")}
    assert repr(queue) in found.unclear[queue, "1"]


def test_another_queue_that_is_there_is_read_as_ever(client):
    client.set("bull:other:id", 1)
    found = read_jobs(client, prefix="bull", jobs=[("other", "1")])
    assert found == Queues({("other", "1"): JobState.GONE}, {"other": 0}, {})


def test_a_redis_that_lost_everything_makes_nothing_dead(client):
    put(client, "1", "active", lock=True)
    client.flushall()
    with pytest.raises(Incomplete, match="lost its data"):
        read(client, "1")


@pytest.mark.parametrize("known", ["meta", "id"])
def test_either_key_of_a_queue_is_enough(client, known):
    client.flushall()
    client.set(f"{BASE}:{known}", 5)
    assert read(client, "1") == ["gone"]


@pytest.mark.parametrize("name", ["wait", "paused", "active", "delayed", "completed", "failed"])
def test_a_list_that_is_none_spoils_the_reading(client, name):
    put(client, "1", None)
    client.delete(f"{BASE}:{name}")
    client.set(f"{BASE}:{name}", "text")
    with pytest.raises(Incomplete, match="WRONGTYPE"):
        read(client, "1")


def test_a_job_that_is_no_hash_is_unknown_and_the_others_are_read(client):
    client.set(f"{BASE}:1", "text")
    put(client, "2", "active", lock=True)
    found = read_jobs(client, prefix="bull", jobs=[(QUEUE, "1"), (QUEUE, "2")])
    assert list(found.states.values()) == [JobState.UNKNOWN, JobState.ACTIVE]
    told = "job '1' of 'provisioning' cannot be read: WRONGTYPE"
    assert told in found.unclear[QUEUE, "1"]


@pytest.mark.parametrize("there", [True, False])
@pytest.mark.parametrize(
    "job", ["wait", "failed", "id", "meta", "events", "stalled-check", "repeat", "metrics:failed"]
)
def test_a_job_called_like_a_key_of_bullmqs_own_is_unknown_and_never_dead(client, job, there):
    """Were it taken for a job, an empty list would be one that is gone, and `meta` an unlisted."""
    if there and job in ("wait", "failed"):
        put(client, "1", job)
    found = read_jobs(client, prefix="bull", jobs=[(QUEUE, job), (QUEUE, "2")])
    assert found.states == {(QUEUE, job): JobState.UNKNOWN, (QUEUE, "2"): JobState.GONE}
    assert "own keys" in found.unclear[QUEUE, job]


def test_a_user_that_may_not_read_the_queues_is_told_so(client, redis_server):
    client.execute_command("ACL", "SETUSER", "reader", "on", ">pw", "~other:*", "+@all")
    try:
        with (
            redis.Redis.from_url(redis_server, username="reader", password="pw") as limited,
            pytest.raises(Incomplete, match=r"queues cannot be read: .*permissions"),
        ):
            read(limited, "1")
    finally:
        client.execute_command("ACL", "DELUSER", "reader")


@pytest.mark.parametrize("url", ["unix:///nonexistent/redis.sock", "redis://:hunter22@127.0.0.1:1"])
def test_nobody_there_is_redis_unavailable_and_names_no_password(url):
    with connect(url) as one, pytest.raises(RedisUnavailable, match="were not read") as failed:
        read(one, "1")
    assert "hunter22" not in str(failed.value)


def test_a_redis_that_hangs_is_given_up(monkeypatch):
    monkeypatch.setattr(redis_module, "COMMAND_TIMEOUT", 0.2)
    with (
        serving(silent) as port,
        connect(f"redis://127.0.0.1:{port}") as one,
        pytest.raises(RedisUnavailable, match="TimeoutError"),
    ):
        read(one, "1")
