"""The warm worker and its Redis die in every way, and the loop goes on by itself."""

import os
import shutil
import signal
import sqlite3
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.harness import edge_state
from tests.stack.stack import ROOT, Stack, alive, children_of, until
from zlh_dagster.resources.redis import connect
from zlh_dagster.runs.locks import WORKER, Locks

pytestmark = pytest.mark.slow

SRV = "_minecraft._tcp.mc-5000.example.gg"
GOES_ON = 120.0
"""Seconds within which the loop goes on, whatever died."""


@pytest.fixture(scope="module")
def stack() -> Iterator[Stack]:
    with tempfile.TemporaryDirectory(prefix="zlh-") as directory:
        made = Stack(Path(directory), ZLH_LEASE_SECONDS="30")
        home = Path(directory) / "home"
        home.mkdir()
        shipped = (ROOT / "dagster.yaml").read_text()
        quicker = shipped.replace("start_timeout_seconds: 45", "start_timeout_seconds: 20")
        assert quicker != shipped
        (home / "dagster.yaml").write_text(quicker)
        try:
            made.up("--no-web")
            until(lambda: locks(made).held(WORKER), seconds=60, what="the worker")
            yield made
        finally:
            made.close()


def locks(stack: Stack) -> Locks:
    return Locks(Path(stack.environment["DAGSTER_HOME"]))


def pid_of(stack: Stack, name: str) -> int:
    pid = until(lambda: locks(stack).holder(name), seconds=60, what=name)
    assert pid is not None
    return pid


def runs(stack: Stack, job: str) -> list[tuple[str, str, bool]]:
    """Identifier, status and whether a worker had it, of each run of a job, the newest first."""
    path = Path(stack.environment["DAGSTER_HOME"]) / "history" / "runs.db"
    query = """
        SELECT run_id, status, EXISTS (
            SELECT 1 FROM run_tags t
            WHERE t.run_id = runs.run_id AND t.key = 'dagster-celery/task_id'
        ) FROM runs WHERE pipeline_name = ? ORDER BY id DESC"""
    with sqlite3.connect(path) as connection:
        found = connection.execute(query, (job,)).fetchall()
    connection.close()
    return [(run_id, status, bool(warm)) for run_id, status, warm in found]


def under_way(stack: Stack, job: str) -> str:
    """The run of a job that the worker executes now, waited for."""

    def look() -> str | None:
        newest = [run_id for run_id, _, _ in runs(stack, job)[:3]]
        return next((run_id for run_id in newest if locks(stack).held(run_id)), None)

    run_id = until(look, seconds=GOES_ON, what=f"a run of {job}")
    assert run_id is not None
    return run_id


def ends(stack: Stack, job: str, run_id: str) -> str:
    """How a run ends."""

    def look() -> str | None:
        status = {run: status for run, status, _ in runs(stack, job)}[run_id]
        return status if status in ("SUCCESS", "FAILURE", "CANCELED") else None

    status = until(look, seconds=60, what=f"the end of {job}")
    assert status is not None
    return status


def next_tick(stack: Stack) -> bool:
    """Waits for a tick that begins from now on to succeed; whether the worker had it."""
    known = {run_id for run_id, _, _ in runs(stack, "observe")}
    stack.ask_for_a_tick()
    done = until(
        lambda: [r for r in runs(stack, "observe") if r[0] not in known and r[1] == "SUCCESS"],
        seconds=GOES_ON,
        what="the next tick",
    )
    return done[-1][2]


@pytest.mark.long
@pytest.mark.timeout(400)
def test_the_whole_worker_is_killed_between_a_write_and_its_proof(stack):
    """Its processes die with it, its run fails at once, the next tick repairs, once."""
    before = edge_state(stack.sandbox)
    stack.delete_over_api(SRV)
    stack.sandbox.edge.faults.switch_on("cloudflare", "hang", seconds=30, reads=False)
    stack.ask_for_a_tick()
    worker = pid_of(stack, WORKER)
    [row] = until(stack.ledger.events, seconds=GOES_ON, what="the ledger row")
    # At once: the write gives up by itself after some seconds.
    family = {worker, *children_of(worker)}
    os.kill(worker, signal.SIGKILL)
    killed = time.monotonic()
    run_id = row["runId"]
    assert len(family) > 2
    until(lambda: not alive(family), seconds=5, what="the end of every process")
    assert ends(stack, "level1_repair", run_id) == "FAILURE"
    stack.sandbox.edge.faults.clear()
    until(
        lambda: [e for e in stack.finished_events() if e["status"] == "succeeded"],
        seconds=GOES_ON + 30,  # the lease of the dead run ends first
        what="the repair",
    )
    assert time.monotonic() - killed < GOES_ON + 30
    assert edge_state(stack.sandbox) == before
    assert [e["status"] for e in reversed(stack.ledger.events())] == ["interrupted", "succeeded"]
    assert pid_of(stack, WORKER) != worker
    assert "worker ended by itself" in stack.log.read_text()


@pytest.mark.timeout(400)
def test_one_process_of_the_worker_is_killed_in_the_middle_of_a_tick(stack):
    worker = pid_of(stack, WORKER)
    stack.sandbox.edge.faults.switch_on("cloudflare", "hang", seconds=30, writes=False)
    stack.ask_for_a_tick()
    run_id = under_way(stack, "observe")
    # Now, for while it starts it has more children, or fewer.
    family = len(children_of(worker))
    os.kill(pid_of(stack, run_id), signal.SIGKILL)
    assert ends(stack, "observe", run_id) == "FAILURE"
    stack.sandbox.edge.faults.clear()
    until(lambda: len(children_of(worker)) == family, seconds=GOES_ON, what="another process")
    assert pid_of(stack, WORKER) == worker


@pytest.mark.long
@pytest.mark.timeout(400)
def test_a_run_that_redis_lost_is_given_up_and_the_next_one_is_executed(stack):
    """Everything in Redis is gone, without a restart that anybody could notice."""
    worker = pid_of(stack, WORKER)
    known = {run_id for run_id, _, _ in runs(stack, "observe")}
    os.kill(worker, signal.SIGSTOP)
    try:
        stack.ask_for_a_tick()
        lost, *_ = until(
            lambda: [r for r, _, warm in runs(stack, "observe") if warm and r not in known],
            seconds=30,
            what="a run in the queue",
        )
        with connect(f"unix://{stack.environment['DAGSTER_HOME']}/redis.sock") as client:
            client.flushall()
    finally:
        os.kill(worker, signal.SIGCONT)
    assert ends(stack, "observe", lost) == "FAILURE"
    assert next_tick(stack), "a warm one"
    assert pid_of(stack, WORKER) == worker


@pytest.mark.long
@pytest.mark.timeout(400)
def test_redis_hangs_and_then_comes_back_empty(stack):
    """Observation goes on without it; afterwards everything is as before."""
    worker = pid_of(stack, WORKER)
    assert stack.process is not None
    [redis] = [pid for pid in children_of(stack.process.pid) if "redis-server" in command(pid)]
    os.kill(redis, signal.SIGSTOP)
    try:
        assert not next_tick(stack), "a process of its own"
    finally:
        data = Path(stack.environment["DAGSTER_HOME"]) / "redis"
        shutil.rmtree(data / "appendonlydir", ignore_errors=True)
        (data / "appendonly.aof").unlink(missing_ok=True)
        os.kill(redis, signal.SIGKILL)
    until(lambda: next_tick(stack), seconds=GOES_ON, what="a warm tick: the worker has reconnected")
    assert pid_of(stack, WORKER) == worker
    assert "Warning" not in stack.log.read_text()


def command(pid: int) -> str:
    try:
        return Path(f"/proc/{pid}/cmdline").read_text()
    except OSError:
        return ""
