"""The supervisor: what ends by itself comes back, and what children are told."""

import os
import signal
import sys
import threading
import time
from contextlib import contextmanager
from queue import SimpleQueue

import pytest

from tests.stack.stack import until
from zlh_dagster.cli.children import PATIENCE, Child
from zlh_dagster.cli.home import environment_of
from zlh_dagster.cli.up import _watch
from zlh_dagster.resources.settings import load_settings

SLEEPS = [sys.executable, "-c", "import time; time.sleep(60)"]


@pytest.fixture
def child(tmp_path):
    made = Child("sleeper", SLEEPS, dict(os.environ), tmp_path)
    made.start()
    yield made
    made.stop()


@contextmanager
def watched(children, say, set_back=lambda: None):
    done, hanging = threading.Event(), SimpleQueue()
    options = {"set_back": set_back, "hanging": hanging}
    watching = threading.Thread(target=_watch, args=(children, done.is_set, say), kwargs=options)
    watching.start()
    try:
        yield hanging
    finally:
        done.set()
        watching.join()


def test_a_clock_that_is_set_back_is_seen_once_and_one_that_is_set_forward_never(monkeypatch):
    real, ahead, seen = time.time, [0.0], []
    monkeypatch.setattr(time, "time", lambda: real() + ahead[0])
    with watched([], print, set_back=lambda: seen.append(1)):
        time.sleep(0.5)
        ahead[0] = 3600.0
        time.sleep(0.5)
        assert seen == []
        ahead[0] = 0.0
        until(lambda: seen, seconds=10, what="the clock")
        time.sleep(0.5)
    assert seen == [1]


def test_a_child_that_ends_by_itself_is_started_again(child):
    """Each time, and it is said once each time."""
    said = []
    with watched([child], said.append):
        for _ in range(2):
            first = child.process.pid
            os.kill(first, signal.SIGKILL)
            until(
                lambda: child.alive() and child.process.pid != first,  # noqa: B023 - called here
                seconds=20,
                what="the child",
            )
    assert len(said) == 2
    assert all("starting it again" in text for text in said)


def test_a_child_that_hangs_is_started_again(child):
    said = []
    with watched([child], said.append) as hanging:
        first = child.process.pid
        os.kill(first, signal.SIGSTOP)
        hanging.put([child])
        until(
            lambda: child.alive() and child.process.pid != first,
            seconds=PATIENCE + 20,
            what="the child",
        )
    assert said == [f"starting again what may hang: {child.name}"]


def test_children_get_every_setting_and_a_directory_without_anybodys_env_file(
    tmp_path, monkeypatch
):
    """Dagster's own commands let the `.env` of their directory overrule the environment."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / ".env").write_text(
        "ZLH_REPAIR_MODE=live\nZLH_DATABASE_URL=sqlite:///mine.db\nDAGSTER_HOME=state\n"
        "ZLH_AGENT_NETWORKS=10.0.0.0/8,192.168.0.0/16\n"
    )
    monkeypatch.setenv("ZLH_REPAIR_MODE", "dry-run")
    settings = load_settings(env_file=".env")
    environment = environment_of(settings)
    assert environment["ZLH_REPAIR_MODE"] == "dry-run"
    assert environment["ZLH_DATABASE_URL"] == f"sqlite:///{tmp_path}/mine.db"
    assert environment["DAGSTER_HOME"] == str(tmp_path / "state")
    # The same settings come out of it in any directory.
    given = settings.environment()
    for name, value in given.items():
        monkeypatch.setenv(name, value)
    monkeypatch.chdir("/")
    again = load_settings(env_file=None)
    assert again.environment() == given
    assert again.zlh_agent_networks == settings.zlh_agent_networks
