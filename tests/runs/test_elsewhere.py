"""A run that a worker on another machine executes: who gives it up must also end it.

The other machine is a process that takes itself for another host.
"""

import logging
import subprocess
import sys
import time

import dagster as dg
import pytest
from dagster._core.definitions.reconstruct import ReconstructableJob
from dagster._daemon.monitoring.run_monitoring import check_run_timeout
from dagster_celery.tags import DAGSTER_CELERY_TASK_ID_TAG

from tests.resources.databases import empty_database, postgresql
from zlh_dagster.runs.launcher import LOOK_SECONDS, TERMINATE_SECONDS
from zlh_dagster.runs.shared_locks import SharedLocks

pytestmark = pytest.mark.slow

STARTED, FAILED = dg.DagsterRunStatus.STARTED, dg.DagsterRunStatus.FAILURE
WORKER = """
import socket, sys
socket.gethostname = lambda: "elsewhere"
from zlh_dagster.resources.settings import load_settings
from zlh_dagster.runs import worker
from zlh_dagster.runs.alive import locks_of
from zlh_dagster.runs.broker import TASK_EXECUTE_RUN
settings = load_settings()
worker.worker_app(settings, locks_of(settings)).tasks[TASK_EXECUTE_RUN](run_id=sys.argv[1])
"""


@dg.op
def hang() -> None:
    time.sleep(120)


@dg.op
def hang_on() -> None:
    """Does not let itself be interrupted."""
    give_up = time.monotonic() + 120
    while time.monotonic() < give_up:
        try:
            time.sleep(1)
        except BaseException:  # noqa: BLE001 - as a call that never comes back
            continue


@dg.job(executor_def=dg.in_process_executor)
def hangs() -> None:
    hang()


@dg.job(executor_def=dg.in_process_executor)
def hangs_on() -> None:
    hang_on()


@pytest.fixture(scope="module")
def database():
    with postgresql() as server, empty_database(server) as url:
        yield url


@pytest.fixture
def shared(platform, database, monkeypatch, shipped_yaml, tmp_path):
    """Dagster's storage in PostgreSQL, as this machine and the other one have it."""
    settings = platform.environment(
        ZLH_DAGSTER_DATABASE_URL=database,
        ZLH_DEPLOYMENT="elsewhere",
        ZLH_SNAPSHOT_URL=str(tmp_path / "snapshots"),
    )
    for name, value in settings.items():
        monkeypatch.setenv(name, value)
    platform.home.mkdir()
    (platform.home / "dagster.yaml").write_text(shipped_yaml)
    with dg.DagsterInstance.get() as made:
        yield made


@pytest.fixture
def begin(shared):
    """Begins a run there; it is under way when this returns."""
    started = []

    def begun(job):
        origin = ReconstructableJob.for_file(__file__, job.name).get_python_origin()
        run = shared.create_run_for_job(
            job,
            status=dg.DagsterRunStatus.STARTING,
            job_code_origin=origin,
            tags={"dagster/max_runtime": "1", DAGSTER_CELERY_TASK_ID_TAG: "t"},
        )
        process = subprocess.Popen(
            [sys.executable, "-c", WORKER, run.run_id],
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )
        started.append(process)
        steps = dg.DagsterEventType.STEP_START
        give_up = time.monotonic() + 60
        while not shared.all_logs(run.run_id, of_type=steps):
            assert time.monotonic() < give_up
            assert process.poll() is None
            time.sleep(0.1)
        return run.run_id, process

    yield begun
    for process in started:
        process.kill()
        process.wait()


@pytest.mark.parametrize("job", [hangs, hangs_on], ids=lambda job: job.name)
def test_a_run_that_takes_too_long_is_over_when_it_is_failed(shared, database, begin, job):
    """Were it only failed, it would go on repairing, and keep a process of the worker."""
    run_id, process = begin(job)
    assert SharedLocks(database, "elsewhere").holder(run_id) is None
    time.sleep(1)
    check_run_timeout(
        shared, shared.get_run_record_by_id(run_id), logging.getLogger("monitoring"), 0.0
    )
    assert shared.get_run_by_id(run_id).status is FAILED
    assert not SharedLocks(database, "elsewhere").held(run_id)
    process.wait(5)


def test_a_run_that_was_given_up_ends(shared, begin):
    """As when its worker was out of the database's sight, and was taken for dead."""
    run_id, process = begin(hangs)
    shared.report_run_failed(shared.get_run_by_id(run_id))
    process.wait(TERMINATE_SECONDS + 3 * LOOK_SECONDS)
    assert shared.get_run_by_id(run_id).status is FAILED


def test_a_run_that_is_not_to_end_goes_on(shared, begin):
    run_id, process = begin(hangs)
    with pytest.raises(subprocess.TimeoutExpired):
        process.wait(2.5 * LOOK_SECONDS)
    assert shared.get_run_by_id(run_id).status is STARTED
