"""Locks in a database end with the connection that holds them, however it ends."""

import os
import subprocess
import sys
import time

import pytest
import sqlalchemy as sa

from tests.resources.databases import empty_database, postgresql
from zlh_dagster.runs import locks as run_locks
from zlh_dagster.runs import shared_locks
from zlh_dagster.runs.locks import WORKER, Held
from zlh_dagster.runs.shared_locks import SharedLocks

HOLDS = """
import sys, time
from zlh_dagster.runs.shared_locks import SharedLocks
with SharedLocks(sys.argv[1], "d").hold(sys.argv[2]):
    print("held", flush=True)
    time.sleep(60)
"""


@pytest.fixture(scope="module")
def url():
    with postgresql() as server, empty_database(server) as made:
        yield made


@pytest.fixture
def elsewhere(url):
    """Another process that holds a lock of one's choice."""
    started = []

    def hold(name, *prefix):
        command = [*prefix, sys.executable, "-c", HOLDS, url, name]
        process = subprocess.Popen(command, stdout=subprocess.PIPE)
        started.append(process)
        assert process.stdout.readline() == b"held\n"
        return process

    yield hold
    for process in started:
        process.kill()
        process.wait()
        process.stdout.close()


def gone(locks, name):
    """PostgreSQL gives a lock back when it notices that the connection was closed: soon."""
    give_up = time.monotonic() + 10
    while locks.held(name):
        assert time.monotonic() < give_up
        time.sleep(0.05)


def test_a_lock_is_free_held_and_free_again(url):
    locks = SharedLocks(url, "d")
    assert not locks.held("a")
    with locks.hold("a"):
        assert locks.held("a")
        assert locks.holder("a") == os.getpid()
        assert not locks.held("b")
    gone(locks, "a")
    assert locks.holder("a") is None


def test_only_one_holds_a_run_and_any_number_the_workers(url, elsewhere):
    locks = SharedLocks(url, "d")
    holder = elsewhere("run")
    assert locks.holder("run") == holder.pid
    with pytest.raises(Held), locks.hold("run", patience=0.2):
        pass
    elsewhere(WORKER)
    with locks.hold(WORKER, patience=0):
        assert locks.held(WORKER)
    assert locks.held(WORKER)


def test_a_killed_holder_holds_nothing(url, elsewhere):
    locks = SharedLocks(url, "d")
    holder = elsewhere("run")
    holder.kill()
    holder.wait()
    with locks.hold("run", patience=10):
        assert locks.holder("run") == os.getpid()


def test_another_deployment_in_the_same_database_has_its_own(url):
    with SharedLocks(url, "one").hold("a"):
        assert not SharedLocks(url, "other").held("a")


def test_a_process_of_another_machine_is_not_named(url, monkeypatch):
    locks = SharedLocks(url, "d")
    with locks.hold("a"):
        monkeypatch.setattr(run_locks.socket, "gethostname", lambda: "another-machine")
        assert locks.held("a")
        assert locks.holder("a") is None


def test_a_process_of_a_container_with_the_same_host_name_is_not_named(url, elsewhere):
    """Its number is that of another process here: nobody may signal that one."""
    apart = ("unshare", "--pid", "--fork", "--kill-child")
    if subprocess.run([*apart, "true"], check=False, capture_output=True).returncode:
        pytest.skip("no PID namespace can be made here")
    locks = SharedLocks(url, "d")
    elsewhere("contained", *apart)
    assert locks.held("contained")
    assert locks.holder("contained") is None


def test_a_long_host_name_is_still_its_own(url, monkeypatch):
    monkeypatch.setattr(run_locks.socket, "gethostname", lambda: "h" * 64)
    locks = SharedLocks(url, "d")
    with locks.hold("a"):
        assert locks.holder("a") == os.getpid()


def test_a_lock_that_is_kept_outlives_the_connection_that_held_it(url, monkeypatch):
    """A database that starts anew gives all locks back; a worker that lives is a worker still."""
    monkeypatch.setattr(shared_locks, "_LOOK_SECONDS", 0.1)
    locks = SharedLocks(url, "d")
    admin = sa.create_engine(url, isolation_level="AUTOCOMMIT")
    ended = sa.text(
        "SELECT count(pg_terminate_backend(pid)) FROM pg_stat_activity"
        " WHERE pid <> pg_backend_pid() AND application_name LIKE 'zlh %'"
    )
    with locks.keep(WORKER):
        with admin.connect() as connection:
            assert connection.scalar(ended) == 1
        give_up = time.monotonic() + 10
        while not locks.held(WORKER):
            assert time.monotonic() < give_up
            time.sleep(0.05)
        assert locks.holder(WORKER) == os.getpid()
    gone(locks, WORKER)
    admin.dispose()


def test_what_somebody_else_holds_cannot_be_kept(url, elsewhere):
    elsewhere("run")
    with pytest.raises(Held), SharedLocks(url, "d").keep("run"):
        pass
