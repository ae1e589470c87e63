"""What is read of a job is what BullMQ itself says, and dead is what its stalled checker finds."""

import re
import time
from collections.abc import Callable, Iterable

import pytest

from tests.bullmq.conftest import HERE
from zlh_dagster.core.fleet import JobState
from zlh_dagster.resources.bullmq import read_jobs
from zlh_dagster.resources.http import Incomplete
from zlh_dagster.resources.redis import connect

QUEUE = "provisioning"
HOUR_MS = 3_600_000
LOCK_MS = 1_500
SHORT_LOCK = {"lockDuration": LOCK_MS}
SAID = {
    JobState.STALLED: "active",
    JobState.GONE: "unknown",
    JobState.UNLISTED: "unknown",
}
"""What BullMQ says where it has no word of its own; every other state has the same name there."""


@pytest.fixture
def client(redis_url):
    with connect(redis_url) as one:
        yield one


@pytest.fixture
def read(client, bull):
    """Reads jobs, and compares each with what BullMQ says of it."""

    def states(*jobs: str, queue: str = QUEUE) -> list[JobState]:
        found = read_jobs(client, prefix="bull", jobs=[(queue, job) for job in jobs]).states
        for (_, job), state in found.items():
            said = bull("state", queue, job)
            assert said["state"] == SAID.get(state, state.value)
            assert said["active"] is (state in (JobState.ACTIVE, JobState.STALLED))
        return list(found.values())

    return states


def until(wanted: Callable[[], bool], *, seconds: float = 15.0) -> None:
    give_up = time.monotonic() + seconds
    while not wanted():
        assert time.monotonic() < give_up, "it did not come about in time"
        time.sleep(0.05)


def reach(client, states: Iterable[JobState], *jobs: str) -> None:
    """Waits until the jobs are read in these states, asking nobody else."""
    asked, wanted = [(QUEUE, job) for job in jobs], list(states)
    until(lambda: list(read_jobs(client, prefix="bull", jobs=asked).states.values()) == wanted)


def test_a_waiting_a_delayed_and_a_prioritized_job_are_alive(bull, read):
    bull("add", QUEUE, "w")
    bull("add", QUEUE, "d", options={"delay": HOUR_MS})
    bull("add", QUEUE, "p", options={"priority": 5})
    assert read("w", "d", "p") == [JobState.WAITING, JobState.DELAYED, JobState.PRIORITIZED]
    assert not any(state.dead for state in read("w", "d", "p"))


def test_a_job_that_bullmq_numbers_itself_is_found(bull, read):
    job = bull("add", QUEUE)
    assert job.isdigit()
    assert read(job) == [JobState.WAITING]


def test_a_job_that_waits_for_its_children_is_alive(bull, read):
    bull("flow", QUEUE, "parent", child="children")
    assert read("parent") == [JobState.WAITING_CHILDREN]
    assert not read("parent")[0].dead


def test_jobs_of_a_paused_queue_are_alive_added_before_or_after(bull, read, client):
    bull("add", QUEUE, "before")
    bull("pause", QUEUE)
    bull("add", QUEUE, "after")
    bull("add", QUEUE, "d", options={"delay": HOUR_MS})
    bull("add", QUEUE, "p", options={"priority": 5})
    alive = [JobState.WAITING, JobState.WAITING, JobState.DELAYED, JobState.PRIORITIZED]
    assert read("before", "after", "d", "p") == alive
    bull("resume", QUEUE)
    assert read("before", "after", "d", "p") == alive


def test_jobs_of_a_queue_that_bullmq_5_paused_are_alive_under_bullmq_6_too(bull, client, read):
    """BullMQ 5 renames the list of waiting jobs; BullMQ 6 does not, but finds them there."""
    bull("add", QUEUE, "w")
    client.rename(f"bull:{QUEUE}:wait", f"bull:{QUEUE}:paused")
    client.hset(f"bull:{QUEUE}:meta", "paused", 1)
    assert read("w") == [JobState.WAITING]


def test_a_job_that_ended_is_dead_and_one_that_will_be_tried_again_is_not(
    bull, start, client, read
):
    bull("add", QUEUE, "j-done", end="finish")
    bull("add", QUEUE, "j-failed", end="fail")
    backoff = {"attempts": 2, "backoff": {"type": "fixed", "delay": HOUR_MS}}
    bull("add", QUEUE, "j-again", end="fail", options=backoff)
    bull("add", QUEUE, "j-swept", end="finish", options={"removeOnComplete": True})
    start()("work", QUEUE)
    ended = [JobState.COMPLETED, JobState.FAILED, JobState.DELAYED, JobState.GONE]
    reach(client, ended, "j-done", "j-failed", "j-again", "j-swept")
    assert read("j-done", "j-failed", "j-again", "j-swept") == ended
    assert [state.dead for state in ended] == [True, True, False, True]


def test_a_removed_job_and_one_that_never_was_are_gone(bull, read):
    bull("add", QUEUE, "removed")
    assert bull("remove", QUEUE, "removed") == 1
    assert read("removed", "never") == [JobState.GONE, JobState.GONE]


def test_a_job_on_which_a_worker_works_stays_active_beyond_its_lock(bull, start, client, read):
    bull("add", QUEUE, "held", end="hold")
    start()("work", QUEUE, options=SHORT_LOCK)
    reach(client, [JobState.ACTIVE], "held")
    ends = time.monotonic() + 2 * LOCK_MS / 1000
    while time.monotonic() < ends:
        assert read("held") == [JobState.ACTIVE]
        time.sleep(0.1)


def test_a_job_whose_worker_was_killed_is_active_until_its_lock_ends_and_dead_then(
    bull, start, client, read
):
    bull("add", QUEUE, "lost", end="hold")
    worker = start()
    worker("work", QUEUE, options=SHORT_LOCK)
    reach(client, [JobState.ACTIVE], "lost")
    worker.kill()
    reach(client, [JobState.STALLED], "lost")
    assert read("lost") == [JobState.STALLED]
    assert JobState.STALLED.dead


# --- dead is what BullMQ's own checker finds -----------------------------------------------------


@pytest.fixture
def held_and_lost(bull, start, client):
    """Jobs of two workers, of which one was killed, and jobs on which nobody works."""
    bull("add", QUEUE, "lost-1", end="hold")
    bull("add", QUEUE, "lost-2", end="hold")
    killed = start()
    killed("work", QUEUE, options=SHORT_LOCK)
    reach(client, [JobState.ACTIVE] * 2, "lost-1", "lost-2")
    killed.kill()
    reach(client, [JobState.STALLED] * 2, "lost-1", "lost-2")
    bull("add", QUEUE, "held", end="hold")
    start()("work", QUEUE, options={**SHORT_LOCK, "concurrency": 1})
    reach(client, [JobState.ACTIVE], "held")
    bull("add", QUEUE, "later", options={"delay": HOUR_MS})
    return ["lost-1", "lost-2", "held", "later"]


def test_what_is_not_done_is_counted_as_bullmq_counts_it(bull, client):
    """An operation without a job has none only where nobody else's job is left in the queue."""
    for job, options in (("a", {}), ("b", {"delay": 60_000}), ("c", {"priority": 5})):
        bull("add", QUEUE, job, options=options)
    counts = bull("counts", QUEUE)
    undone = sum(counts.values()) - counts["completed"] - counts["failed"]
    assert undone == 3
    assert read_jobs(client, prefix="bull", jobs=[], queues=[QUEUE]).queued == {QUEUE: undone}


def dead(client, jobs: list[str]) -> set[str]:
    found = read_jobs(client, prefix="bull", jobs=[(QUEUE, job) for job in jobs]).states
    return {job for (_, job), state in found.items() if state.dead}


def test_the_stalled_checker_moves_back_exactly_what_is_read_as_dead(
    held_and_lost, start, client, read
):
    assert dead(client, held_and_lost) == {"lost-1", "lost-2"}
    start()("check", QUEUE, options={"stalledInterval": 200})
    back = [JobState.WAITING, JobState.WAITING, JobState.ACTIVE, JobState.DELAYED]
    reach(client, back, *held_and_lost)
    assert read(*held_and_lost) == back
    assert dead(client, held_and_lost) == set(), "it may be taken again: two reads are needed"
    time.sleep(1)
    assert read(*held_and_lost) == back


def test_a_job_that_stalled_too_often_fails_when_it_is_taken_again(
    held_and_lost, start, client, read
):
    assert dead(client, held_and_lost) == {"lost-1", "lost-2"}
    worker = start()
    worker("work", QUEUE, options=SHORT_LOCK)
    checks = {"stalledInterval": 200, "maxStalledCount": 0}
    start()("check", QUEUE, options=checks)
    failed = [JobState.FAILED, JobState.FAILED, JobState.ACTIVE, JobState.DELAYED]
    reach(client, failed, *held_and_lost)
    assert read(*held_and_lost) == failed
    assert dead(client, held_and_lost) == {"lost-1", "lost-2"}


def test_reading_over_and_over_does_not_disturb_the_work(bull, start, client):
    jobs = [f"job-{n}" for n in range(50)]
    for job in jobs:
        bull("add", QUEUE, job, end="finish")
    start()("work", QUEUE)
    seen = set()

    def all_done() -> bool:
        found = read_jobs(client, prefix="bull", jobs=[(QUEUE, job) for job in jobs]).states
        seen.update(found.values())
        return set(found.values()) == {JobState.COMPLETED}

    until(all_done)
    assert seen <= {JobState.WAITING, JobState.ACTIVE, JobState.COMPLETED}, "never between two"


# --- unknown is not missing ----------------------------------------------------------------------


def test_a_queue_that_was_opened_is_known_though_it_never_had_a_job(bull, read):
    bull("open", QUEUE)
    assert read("never") == [JobState.GONE]


def test_a_queue_that_was_obliterated_and_a_wrong_prefix_make_nothing_dead(bull, client):
    bull("add", QUEUE, "w")
    for prefix, queue in (("other", QUEUE), ("bull", "operation")):
        with pytest.raises(Incomplete, match="no queue"):
            read_jobs(client, prefix=prefix, jobs=[(queue, "w")])
    bull("obliterate", QUEUE)
    with pytest.raises(Incomplete, match="no queue"):
        read_jobs(client, prefix="bull", jobs=[(QUEUE, "w")])


def test_the_lock_pins_by_hash_and_names_no_address_of_a_registry():
    text = (HERE / "package-lock.json").read_text()
    assert not re.search(r'"resolved"|\bregistry\b', text)
    packages = re.findall(r'^    "node_modules/', text, re.MULTILINE)
    assert len(packages) == text.count('"integrity": "sha512-') > 20
