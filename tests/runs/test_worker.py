"""What the worker does with one message, without its processes."""

import signal
import threading

import dagster as dg
import pytest
from dagster._core.definitions.reconstruct import ReconstructableJob

from zlh_dagster.runs import worker
from zlh_dagster.runs.broker import TASK_EXECUTE_RUN
from zlh_dagster.runs.locks import Locks


@dg.op
def work(context: dg.OpExecutionContext) -> None:
    context.log.info("worked")


@dg.job(executor_def=dg.in_process_executor)
def a_job() -> None:
    work()


class Failed:
    """A storage in which a run is failed; tells when it was looked at."""

    def __init__(self):
        self.looked = threading.Semaphore(0)

    def get_run_by_id(self, run_id):
        self.looked.release()
        return self

    is_failure_or_canceled = True
    status = dg.DagsterRunStatus.FAILURE


@pytest.mark.parametrize(("looks", "sent"), [(1, []), (2, [signal.SIGTERM])])
def test_a_run_that_fails_of_itself_has_the_time_until_the_next_look(monkeypatch, looks, sent):
    """It is found failed while it still tells so; found so twice, others have given it up."""
    storage, signals = Failed(), []
    monkeypatch.setattr(worker, "_instance", lambda: storage)
    monkeypatch.setattr(worker, "LOOK_SECONDS", 0.5)
    monkeypatch.setattr(worker.os, "kill", lambda pid, number: signals.append(number))
    with worker._ended_on_request("a-run"):
        for _ in range(looks):
            assert storage.looked.acquire(timeout=30)
    assert signals == sent


@pytest.fixture
def locks(platform):
    return Locks(platform.home)


@pytest.fixture
def execute(platform, locks, instance, monkeypatch):
    """The task, over a storage in memory."""
    monkeypatch.setattr(worker, "_instance", lambda: instance)
    return worker.worker_app(platform.settings(), locks).tasks[TASK_EXECUTE_RUN]


def a_run(instance: dg.DagsterInstance, status: str = "STARTING") -> dg.DagsterRun:
    origin = ReconstructableJob.for_file(__file__, "a_job").get_python_origin()
    return instance.create_run_for_job(
        a_job, status=dg.DagsterRunStatus(status), job_code_origin=origin
    )


def test_a_run_is_executed_once_though_its_message_comes_again(execute, instance, locks):
    """Celery may deliver twice; Dagster refuses a run that is over."""
    run = a_run(instance)
    for _ in range(2):
        execute(run_id=run.run_id)
    assert instance.get_run_by_id(run.run_id).status == dg.DagsterRunStatus.SUCCESS
    steps = [e for e in instance.all_logs(run.run_id) if e.dagster_event_type]
    assert len([e for e in steps if e.dagster_event_type.value == "STEP_START"]) == 1
    assert not locks.held(run.run_id)


@pytest.mark.parametrize("status", ["STARTED", "FAILURE", "CANCELED"])
def test_a_run_that_was_given_up_or_has_begun_is_not_executed(
    execute, instance, monkeypatch, status
):
    monkeypatch.setattr(type(instance), "run_monitoring_enabled", True)
    run = a_run(instance, status)
    execute(run_id=run.run_id)
    assert instance.get_run_by_id(run.run_id).status == dg.DagsterRunStatus(status)
    assert "STEP_START" not in str([e.dagster_event_type for e in instance.all_logs(run.run_id)])


def test_a_run_that_somebody_executes_is_left_to_him(execute, instance, locks, caplog):
    run = a_run(instance)
    with locks.hold(run.run_id):
        execute(run_id=run.run_id)
    assert "under way already" in caplog.text
    assert instance.get_run_by_id(run.run_id).status == dg.DagsterRunStatus.STARTING


def test_signals_are_as_they_were_after_a_run(execute, instance):
    """Dagster leaves others behind, with which an idle process could not be ended any more."""
    kept = [signal.getsignal(number) for number in (signal.SIGTERM, signal.SIGINT)]
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    try:
        execute(run_id=a_run(instance).run_id)
        assert signal.getsignal(signal.SIGTERM) is kept[0]
        assert signal.getsignal(signal.SIGINT) is signal.SIG_IGN
    finally:
        for number, handler in zip((signal.SIGTERM, signal.SIGINT), kept, strict=True):
            signal.signal(number, handler)


def test_warming_up_opens_nothing_and_says_nothing(capfd, platform):
    worker.warm_up()
    assert capfd.readouterr() == ("", "")
    assert platform.sandbox.edge.journal.entries() == []
