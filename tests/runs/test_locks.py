"""Locks end with the process that holds them, however it ends."""

import os
import subprocess
import sys

import pytest

from zlh_dagster.runs.locks import Held, Locks

HOLDS = """
import sys, time
from pathlib import Path
from zlh_dagster.runs.locks import Locks
with Locks(Path(sys.argv[1])).hold("a"):
    print("held", flush=True)
    time.sleep(60)
"""


@pytest.fixture
def holder(tmp_path):
    """Another process that holds the lock `a`."""
    process = subprocess.Popen([sys.executable, "-c", HOLDS, tmp_path], stdout=subprocess.PIPE)
    assert process.stdout is not None
    assert process.stdout.readline() == b"held\n"
    yield process
    process.kill()
    process.wait()
    process.stdout.close()


def test_a_lock_is_free_held_and_free_again(tmp_path):
    locks = Locks(tmp_path)
    assert not locks.held("a")
    with locks.hold("a"):
        assert locks.held("a")
        assert locks.holder("a") == os.getpid()
        assert not locks.held("b")
    assert not locks.held("a")
    assert locks.holder("a") is None
    assert list((tmp_path / "locks").iterdir()) == []


def test_only_one_holds_it(tmp_path, holder):
    locks = Locks(tmp_path)
    assert locks.holder("a") == holder.pid
    with pytest.raises(Held), locks.hold("a"):
        pass
    assert locks.held("a")


def test_a_killed_holder_holds_nothing(tmp_path, holder):
    locks = Locks(tmp_path)
    holder.kill()
    holder.wait()
    assert not locks.held("a")
    assert locks.holder("a") is None
    with locks.hold("a"):
        assert locks.holder("a") == os.getpid()


def test_what_the_dead_leave_behind_is_swept_and_nothing_else(tmp_path, holder):
    locks = Locks(tmp_path)
    (tmp_path / "locks" / "dead.lock").write_text("1 somewhere")
    locks.sweep()
    assert [path.name for path in (tmp_path / "locks").iterdir()] == ["a.lock"]


def test_a_process_of_another_machine_is_not_named(tmp_path):
    locks = Locks(tmp_path)
    with locks.hold("a"):
        (tmp_path / "locks" / "a.lock").write_text("1 another-machine")
        assert locks.held("a")
        assert locks.holder("a") is None
