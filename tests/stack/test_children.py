"""The supervisor: what ends by itself comes back, and what children are told."""

import os
import signal
import sys
import threading
import time

import pytest

from zlh_dagster.cli.children import Child
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


def test_a_child_that_ends_by_itself_is_started_again(child):
    """Each time, and it is said once each time."""
    done, said = threading.Event(), []
    watching = threading.Thread(target=_watch, args=([child], done.is_set, said.append))
    watching.start()
    try:
        for _ in range(2):
            first = child.process.pid
            os.kill(first, signal.SIGKILL)
            give_up = time.monotonic() + 20
            while not child.alive() or child.process.pid == first:
                assert time.monotonic() < give_up, said
                time.sleep(0.05)
    finally:
        done.set()
        watching.join()
    assert len(said) == 2
    assert all("starting it again" in text for text in said)


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
