"""What is started at once, and what waits in the queue."""

import threading
from types import SimpleNamespace

import dagster as dg
import pytest
from dagster._core.launcher import LaunchRunContext
from dagster._core.remote_origin import (
    GrpcServerCodeLocationOrigin,
    RemoteJobOrigin,
    RemoteRepositoryOrigin,
)
from dagster._core.run_coordinator import SubmitRunContext
from dagster._daemon.run_coordinator.queued_run_coordinator_daemon import (
    QueuedRunCoordinatorDaemon,
)
from sqlalchemy.exc import OperationalError

from zlh_dagster.definitions import defs
from zlh_dagster.jobs.level1_repair import LEVEL1_REPAIR
from zlh_dagster.runs.coordinator import HANDING_OVER, PromptRunCoordinator
from zlh_dagster.runs.launcher import WarmRunLauncher
from zlh_dagster.runs.locks import Locks

EXCLUSIVE = {"zlh/exclusive": "edge"}
SHARD = {"zlh/shards": "agents"}
BY_SCHEDULE = {"dagster/schedule_name": "every_minute"}
CODE_SERVER = GrpcServerCodeLocationOrigin(host="127.0.0.1", port=1)
STARTED, QUEUED = dg.DagsterRunStatus.STARTING, dg.DagsterRunStatus.QUEUED


@dg.op(pool="edge")
def write() -> None:
    """Holds the pool of those that write."""


@dg.job(tags={"dagster/max_runtime": "60"})
def writes() -> None:
    write()


@dg.job(tags={"dagster/max_runtime": "60"})
def reads() -> None:
    pass


@pytest.fixture
def launched(monkeypatch):
    """Runs that were handed to the launcher, in their order."""
    runs: list[str] = []

    def launch_run(self: WarmRunLauncher, context: LaunchRunContext) -> None:
        runs.append(context.dagster_run.run_id)

    monkeypatch.setattr(WarmRunLauncher, "launch_run", launch_run)
    return runs


@pytest.fixture
def instance(platform, monkeypatch, shipped_yaml, launched):
    """Dagster's storage and queue as the dagster.yaml that comes with the project makes them."""
    for name, value in platform.environment().items():
        monkeypatch.setenv(name, value)
    platform.home.mkdir(exist_ok=True)
    (platform.home / "dagster.yaml").write_text(shipped_yaml)
    with dg.DagsterInstance.get() as made:
        assert type(made.run_coordinator) is PromptRunCoordinator
        yield made


def a_run(instance, status="NOT_STARTED", *, job=reads, tags=None, asked_by=BY_SCHEDULE):
    origin = RemoteJobOrigin(RemoteRepositoryOrigin(CODE_SERVER, "tests"), job.name)
    return instance.create_run_for_job(
        job,
        status=dg.DagsterRunStatus(status),
        tags={**asked_by, **(tags or {})},
        remote_job_origin=origin,
        job_code_origin=dg.reconstructable(job).get_python_origin(),
    )


def submitted(instance, **asked):
    """How a new run stands after it was submitted."""
    run = a_run(instance, **asked)
    told = instance.run_coordinator.submit_run(SubmitRunContext(run, workspace=None))
    found = instance.get_run_by_id(run.run_id)
    assert told.status is found.status
    return found


def test_a_run_that_nothing_holds_back_is_started_at_once(platform, instance, launched):
    run = submitted(instance, tags=EXCLUSIVE)
    assert run.status is STARTED
    assert launched == [run.run_id]
    assert not Locks(platform.home).held(HANDING_OVER)


def test_the_queue_goes_first(instance, launched):
    a_run(instance, "QUEUED")
    assert submitted(instance).status is QUEUED
    assert launched == []


@pytest.mark.parametrize(("number", "status"), [(3, STARTED), (4, QUEUED)])
@pytest.mark.parametrize("state", ["STARTING", "STARTED", "CANCELING"])
def test_no_more_runs_at_a_time_than_dagster_yaml_says(instance, number, status, state):
    for _ in range(number):
        a_run(instance, state)
    assert submitted(instance).status is status


@pytest.mark.parametrize(
    ("running", "new", "status"),
    [
        ([EXCLUSIVE], EXCLUSIVE, QUEUED),
        ([EXCLUSIVE], SHARD, STARTED),
        ([SHARD], SHARD, STARTED),
        ([SHARD, SHARD], SHARD, QUEUED),
        ([SHARD, SHARD], EXCLUSIVE, STARTED),
    ],
)
def test_the_limits_of_tags_hold(instance, running, new, status):
    for tags in running:
        a_run(instance, "STARTED", tags=tags)
    assert submitted(instance, tags=new).status is status


def test_runs_that_are_over_hold_nothing_back(instance):
    for state in ("SUCCESS", "FAILURE", "CANCELED"):
        a_run(instance, state, tags=EXCLUSIVE)
    assert submitted(instance, tags=EXCLUSIVE).status is STARTED


def test_a_run_whose_pool_is_taken_waits(instance, launched):
    """Somebody started one from the UI, without the tag."""
    other = a_run(instance, "STARTED", job=writes)
    instance.event_log_storage.set_concurrency_slots("edge", 1)
    instance.event_log_storage.claim_concurrency_slot("edge", other.run_id, "write")
    assert submitted(instance, job=writes).status is QUEUED
    assert submitted(instance, job=reads).status is QUEUED, "the queue goes first"
    assert launched == []


def test_a_run_whose_pool_is_free_does_not_wait(instance, launched):
    run = submitted(instance, job=writes)
    assert run.run_op_concurrency is not None
    assert run.status is STARTED
    assert submitted(instance, job=writes).status is QUEUED, "the first is about to take the pool"
    assert launched == [run.run_id]


def test_while_another_process_hands_over_a_run_is_queued(platform, instance, launched):
    with Locks(platform.home).hold(HANDING_OVER):
        assert submitted(instance).status is QUEUED
    assert launched == []


def test_where_no_lock_can_be_had_a_run_is_queued(platform, instance, launched):
    """As on a full disk."""
    (platform.home / "locks").write_text("")
    assert submitted(instance).status is QUEUED
    assert launched == []


def test_where_the_database_of_the_locks_does_not_answer_a_run_is_queued(
    instance, launched, monkeypatch
):
    def hold(self, name):
        raise OperationalError("SELECT", {}, OSError("connection refused"))

    monkeypatch.setattr(Locks, "hold", hold)
    assert submitted(instance).status is QUEUED
    assert launched == []


def test_of_two_that_come_together_one_waits(instance, launched):
    runs = [a_run(instance, tags=EXCLUSIVE) for _ in range(4)]
    submit = instance.run_coordinator.submit_run
    threads = [
        threading.Thread(target=submit, args=(SubmitRunContext(run, workspace=None),))
        for run in runs
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    found = [instance.get_run_by_id(run.run_id).status for run in runs]
    assert sorted(found, key=str) == [QUEUED, QUEUED, QUEUED, STARTED]
    assert len(launched) == 1


def failing_launcher(monkeypatch, before=lambda run: None):
    """A launcher that raises, after something else was done."""

    def refuse(self: WarmRunLauncher, context: LaunchRunContext) -> None:
        before(context.dagster_run)
        raise OSError("no process can be started")

    monkeypatch.setattr(WarmRunLauncher, "launch_run", refuse)


def test_a_run_that_cannot_be_started_has_failed_once_and_is_not_queued(instance, monkeypatch):
    failing_launcher(monkeypatch)
    run = a_run(instance)
    assert instance.submit_run(run.run_id, workspace=None).status is dg.DagsterRunStatus.FAILURE
    events = [
        entry.dagster_event for entry in instance.all_logs(run.run_id) if entry.is_dagster_event
    ]
    kinds = [event.event_type_value for event in events]
    assert kinds == ["PIPELINE_STARTING", "ENGINE_EVENT", "PIPELINE_FAILURE"]
    assert "no process can be started" in events[1].event_specific_data.error.message


def test_a_run_that_began_before_its_launcher_failed_goes_on(instance, monkeypatch):
    started = dg.DagsterEvent(event_type_value="PIPELINE_START", job_name=reads.name)
    failing_launcher(
        monkeypatch,
        before=lambda run: instance.report_dagster_event(started, run_id=run.run_id),
    )
    run = submitted(instance)
    assert run.status is dg.DagsterRunStatus.STARTED


def test_what_a_person_asks_for_waits_for_the_daemon(instance, launched):
    """Their shell or web server would start it, with other settings than the controller's."""
    assert submitted(instance, asked_by={}).status is QUEUED
    assert launched == []


@pytest.mark.parametrize("tag", ["dagster/schedule_name", "dagster/sensor_name"])
def test_what_schedules_and_sensors_ask_for_does_not_wait(instance, tag):
    assert submitted(instance, asked_by={tag: "its name"}).status is STARTED


def test_where_nothing_can_be_counted_a_run_is_queued(instance, launched, monkeypatch):
    """As without a database for a moment, of which each storage has errors of its own."""

    def fail(*args, **kwargs):
        raise RuntimeError("the storage does not answer")

    monkeypatch.setattr(type(instance), "get_run_records", fail)
    assert submitted(instance).status is QUEUED
    assert launched == []


def test_a_run_that_was_cancelled_meanwhile_is_neither_started_nor_queued(instance, launched):
    run = a_run(instance)
    instance.report_run_canceled(run)
    told = instance.run_coordinator.submit_run(SubmitRunContext(run, workspace=None))
    assert told.status is dg.DagsterRunStatus.CANCELED
    assert instance.get_run_by_id(run.run_id).status is dg.DagsterRunStatus.CANCELED
    assert launched == []


def test_a_run_that_is_submitted_twice_is_started_once(instance, launched):
    run = a_run(instance)
    for _ in range(2):
        instance.run_coordinator.submit_run(SubmitRunContext(run, workspace=None))
    assert launched == [run.run_id]


def test_a_run_that_was_submitted_before_is_left_alone(instance, launched):
    run = a_run(instance, "STARTED")
    instance.run_coordinator.submit_run(SubmitRunContext(run, workspace=None))
    assert launched == []


def test_dagsters_daemon_starts_what_waited(instance, launched):
    first = submitted(instance, tags=EXCLUSIVE)
    waiting = submitted(instance, tags=EXCLUSIVE)
    daemon = QueuedRunCoordinatorDaemon(interval_seconds=1)
    process = SimpleNamespace(instance=instance, create_request_context=lambda: None)
    list(daemon.run_iteration(process))
    assert launched == [first.run_id]
    instance.report_run_canceled(first)
    list(daemon.run_iteration(process))
    assert launched == [first.run_id, waiting.run_id]


def test_the_tag_of_those_that_write_is_the_one_that_is_limited(instance):
    """Otherwise two repair runs would be started at the same time."""
    limits = instance.get_concurrency_config().run_queue_config.tag_concurrency_limits
    assert {"key": "zlh/exclusive", "value": "edge", "limit": 1} in limits
    job = defs.resolve_job_def(LEVEL1_REPAIR)
    assert EXCLUSIVE.items() <= job.tags.items()
