"""Who starts a run, who says whether it lives, and who ends it."""

import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import dagster as dg
import pytest
from dagster._core.launcher import DefaultRunLauncher, LaunchRunContext, WorkerStatus
from dagster_celery.tags import DAGSTER_CELERY_TASK_ID_TAG

from tests.runs.test_locks import HOLDS
from zlh_dagster.resources.settings import SettingsError
from zlh_dagster.runs.broker import celery_config, takes_runs
from zlh_dagster.runs.launcher import WarmRunLauncher
from zlh_dagster.runs.locks import WORKER, Locks

ROOT = Path(__file__).parents[2]


class Cold(DefaultRunLauncher):
    """Remembers what it was asked to start and to end."""

    def __init__(self) -> None:
        super().__init__()
        self.launched: list[str] = []
        self.ended: list[str] = []

    def launch_run(self, context: LaunchRunContext) -> None:
        self.launched.append(context.dagster_run.run_id)

    def terminate(self, run_id: str) -> bool:
        self.ended.append(run_id)
        return True


@pytest.fixture
def launcher(platform, instance):
    made = WarmRunLauncher(platform.settings())
    made._cold = Cold()
    made.register_instance(instance)
    return made


def a_run(instance: dg.DagsterInstance, status: str = "STARTED", **tags: str) -> dg.DagsterRun:
    @dg.job
    def nothing() -> None:
        pass

    return instance.create_run_for_job(
        nothing, status=dg.DagsterRunStatus(status), tags={"dagster/max_runtime": "60", **tags}
    )


def launch(launcher: WarmRunLauncher, run: dg.DagsterRun) -> None:
    launcher.launch_run(LaunchRunContext(dagster_run=run, workspace=None))


def queued(platform: Any) -> int:
    prefix = celery_config(platform.settings())["broker_transport_options"]["global_keyprefix"]
    client = platform.services().redis
    return sum(client.llen(key) for key in client.keys(f"{prefix}dagster*"))


@pytest.mark.parametrize(
    ("setting", "kind"), [(None, WarmRunLauncher), ("default", DefaultRunLauncher)]
)
def test_the_setting_chooses_when_the_instance_needs_a_launcher(
    platform, monkeypatch, setting, kind
):
    """With the dagster.yaml that comes with the project, in which nothing of it stands."""
    for name, value in platform.environment(ZLH_RUN_LAUNCHER=setting).items():
        monkeypatch.setenv(name, value)
    platform.home.mkdir()
    (platform.home / "dagster.yaml").write_text((ROOT / "dagster.yaml").read_text())
    with dg.DagsterInstance.get() as instance:
        assert type(instance.run_launcher) is kind
        assert platform.redis_url not in str(instance.get_ref())


def test_an_unknown_launcher_is_refused(platform):
    with pytest.raises(SettingsError, match="ZLH_RUN_LAUNCHER"):
        platform.settings(ZLH_RUN_LAUNCHER="k8s")


def test_a_run_goes_to_the_worker_and_nothing_but_its_id_goes_through_redis(
    platform, instance, launcher
):
    run = a_run(instance, "STARTING")
    with Locks(platform.home).hold(WORKER):
        launch(launcher, run)
    assert queued(platform) == 1
    assert launcher._cold.launched == []
    assert DAGSTER_CELERY_TASK_ID_TAG in instance.get_run_by_id(run.run_id).tags
    [key] = platform.services().redis.keys("*:dagster")
    [message] = platform.services().redis.lrange(key, 0, -1)
    assert run.run_id in message
    assert "DAGSTER_HOME" not in message
    assert "dagster.yaml" not in message
    assert "run_launcher" not in message


def test_without_a_worker_a_run_is_started_cold(platform, instance, launcher):
    run = a_run(instance, "STARTING")
    launch(launcher, run)
    assert launcher._cold.launched == [run.run_id]
    assert queued(platform) == 0
    [said] = [e for e in instance.all_logs(run.run_id) if "no worker runs" in e.message]
    assert "process of its own" in said.message


def test_beside_a_worker_that_takes_nothing_the_next_run_is_started_cold(
    platform, instance, launcher
):
    lost, run = a_run(instance, "STARTING"), a_run(instance, "STARTING")
    with Locks(platform.home).hold(WORKER):
        launch(launcher, lost)
        assert not takes_runs(platform.settings())
        launch(launcher, run)
    assert launcher._cold.launched == [run.run_id]
    assert queued(platform) == 1
    [said] = [e for e in instance.all_logs(run.run_id) if "takes no runs" in e.message]
    assert "process of its own" in said.message
    platform.services().redis.flushall()
    assert takes_runs(platform.settings())


def test_without_redis_a_run_is_started_cold(platform, instance):
    settings = platform.settings(ZLH_REDIS_URL="unix:///nonexistent/redis.sock")
    launcher = WarmRunLauncher(settings)
    launcher._cold = Cold()
    launcher.register_instance(instance)
    run = a_run(instance, "STARTING")
    with Locks(platform.home).hold(WORKER):
        launch(launcher, run)
    assert launcher._cold.launched == [run.run_id]


def test_a_run_lives_as_long_as_its_lock_is_held(platform, instance, launcher):
    run = a_run(instance, **{DAGSTER_CELERY_TASK_ID_TAG: "t"})
    with Locks(platform.home).hold(run.run_id):
        assert launcher.check_run_worker_health(run).status == WorkerStatus.RUNNING
    assert launcher.check_run_worker_health(run).status == WorkerStatus.FAILED


def test_a_run_from_a_shell_is_never_taken_for_dead(instance, launcher):
    assert launcher.check_run_worker_health(a_run(instance)).status == WorkerStatus.RUNNING
    assert not launcher.supports_resume_run


def test_a_run_that_was_started_cold_is_ended_cold(instance, launcher):
    run = a_run(instance)
    assert launcher.terminate(run.run_id)
    assert launcher._cold.ended == [run.run_id]
    assert not launcher.terminate(a_run(instance, "SUCCESS").run_id)


@pytest.mark.parametrize("stubborn", [False, True])
def test_a_run_is_ended_in_the_worker(platform, instance, launcher, monkeypatch, stubborn):
    """By SIGTERM, and by force when it does not listen."""
    if stubborn:
        monkeypatch.setattr("zlh_dagster.runs.launcher.TERMINATE_SECONDS", 0.5)
    run = a_run(instance, **{DAGSTER_CELERY_TASK_ID_TAG: "t"})
    # Said in both cases: where SIGINT is ignored, as in a shell's background, a run within this
    # process leaves SIGTERM ignored too, and whoever it starts inherits that.
    listens = (
        f"import signal; signal.signal(signal.SIGTERM, signal.SIG_{'IGN' if stubborn else 'DFL'})"
    )
    program = f"{listens}\n" + HOLDS.replace('"a"', repr(run.run_id))
    process = subprocess.Popen(
        [sys.executable, "-c", program, platform.home], stdout=subprocess.PIPE
    )
    with process:
        assert process.stdout is not None
        process.stdout.readline()
        assert launcher.terminate(run.run_id)
        assert process.wait(10) == -(signal.SIGKILL if stubborn else signal.SIGTERM)
    assert instance.get_run_by_id(run.run_id).status == dg.DagsterRunStatus.CANCELING
    assert not launcher.terminate(run.run_id)
