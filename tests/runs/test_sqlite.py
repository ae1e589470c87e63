"""Dagster's own files, over connections that stay open."""

import gc
import os
import queue
import sqlite3
import threading
from pathlib import Path

import dagster as dg
import pytest
import sqlalchemy as sa
from dagster._core.storage.event_log import SqliteEventLogStorage
from dagster._core.storage.event_log.sqlite.sqlite_event_log import INDEX_SHARD_NAME
from dagster._core.storage.sqlite_storage import DagsterSqliteStorage

from tests.runs.jobs import a_job
from zlh_dagster.jobs.run_files import UNFINISHED, RunFiles
from zlh_dagster.runs.sqlite import PooledSqliteStorage, empty_shard

ROOT = Path(__file__).parents[2]


@dg.asset
def an_asset() -> dg.MaterializeResult:
    return dg.MaterializeResult(metadata={"n": 1})


@pytest.fixture
def home(platform, monkeypatch):
    for name, value in platform.environment().items():
        monkeypatch.setenv(name, value)
    platform.home.mkdir()
    (platform.home / "dagster.yaml").write_text((ROOT / "dagster.yaml").read_text())
    return platform.home


def test_what_one_process_writes_another_reads_with_either_class(home):
    """Going back to Dagster's own class, or coming from it, loses nothing."""
    with dg.DagsterInstance.get() as ours:
        assert "Pooled" in type(ours.event_log_storage).__name__
        first = a_job.execute_in_process(instance=ours)
        dg.materialize([an_asset], instance=ours)
        assert ours.get_latest_materialization_event(dg.AssetKey("an_asset")) is not None
    (home / "dagster.yaml").write_text("telemetry: {enabled: false}")
    with dg.DagsterInstance.get() as plain:
        assert "Pooled" not in type(plain.event_log_storage).__name__
        assert len(plain.all_logs(first.run_id)) > 5
        second = a_job.execute_in_process(instance=plain)
    (home / "dagster.yaml").write_text((ROOT / "dagster.yaml").read_text())
    with dg.DagsterInstance.get() as ours:
        assert [run.run_id for run in ours.get_runs(dg.RunsFilter(job_name="a_job"))] == [
            second.run_id,
            first.run_id,
        ]
        assert len(ours.all_logs(second.run_id)) == len(ours.all_logs(first.run_id))


def test_a_reader_sees_at_once_what_was_written_elsewhere(home):
    """No connection holds on to an old view of the file."""
    with dg.DagsterInstance.get() as one, dg.DagsterInstance.get() as other:
        assert other.get_runs() == []
        run = one.create_run_for_job(a_job)
        assert [r.run_id for r in other.get_runs()] == [run.run_id]
        one.add_run_tags(run.run_id, {"a": "1"})
        assert other.get_run_by_id(run.run_id).tags["a"] == "1"
        other.delete_run(run.run_id)
        assert one.get_runs() == []


def test_several_threads_and_processes_write_at_once(home):
    """As the daemon's do: none waits for another for ever, and nothing is lost."""

    def write(instance: dg.DagsterInstance) -> None:
        for _ in range(10):
            run = instance.create_run_for_job(a_job)
            instance.report_engine_event("said", run)

    with dg.DagsterInstance.get() as one, dg.DagsterInstance.get() as other:
        threads = [threading.Thread(target=write, args=(i,)) for i in (one, one, other, other)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join(60)
        assert len(one.get_runs()) == 40
        assert all(len(one.all_logs(run.run_id)) == 1 for run in other.get_runs())


def test_open_files_do_not_grow_with_the_runs(home):
    with dg.DagsterInstance.get() as instance:
        a_job.execute_in_process(instance=instance)
        before = open_files()
        for _ in range(12):
            a_job.execute_in_process(instance=instance)
        assert open_files() <= before + 3
    after = open_files()
    assert after < before


def test_who_watches_a_run_hears_of_each_event_while_it_goes_on(home):
    """As the web UI does, in another process than the one that writes."""
    with dg.DagsterInstance.get() as writer, dg.DagsterInstance.get() as watcher:
        run = writer.create_run_for_job(a_job)
        writer.report_engine_event("the first", run)
        heard: queue.Queue[str] = queue.Queue()
        told = lambda entry, cursor: heard.put(entry.message)  # noqa: E731
        watcher.watch_event_logs(run.run_id, None, told)
        for text in ("the second", "the third"):
            writer.report_engine_event(text, run)
            said = heard.get(timeout=10)
            while said != text:
                said = heard.get(timeout=10)
        writer.report_run_failed(run)
        while "failed" not in heard.get(timeout=10):
            pass


def test_the_file_of_a_run_that_is_over_is_whole_and_closed(home):
    with dg.DagsterInstance.get() as instance:
        run = a_job.execute_in_process(instance=instance)
        assert shards(home, run.run_id) == [f"{run.run_id}.db"]


def test_only_the_run_that_was_written_last_is_open(home):
    with dg.DagsterInstance.get() as instance:
        runs = [instance.create_run_for_job(a_job) for _ in range(3)]
        for run in [*runs, runs[0]]:
            instance.report_engine_event("said", run)
        left = {run.run_id for run in runs if len(shards(home, run.run_id)) > 1}
        assert left == {runs[0].run_id}
        assert [len(instance.all_logs(run.run_id)) for run in runs] == [2, 1, 1]
    assert [shards(home, run.run_id) for run in runs] == [[f"{run.run_id}.db"] for run in runs]


def open_files() -> int:
    return len(os.listdir("/proc/self/fd"))


def shards(home, run_id):
    return sorted(p.name for p in (home / "history" / "runs").glob(f"{run_id}*"))


def test_dagsters_migrations_are_read_once_and_not_for_each_run(home, monkeypatch):
    read = []
    original = SqliteEventLogStorage._initdb
    monkeypatch.setattr(
        SqliteEventLogStorage, "_initdb", lambda *a, **b: read.append(a) or original(*a, **b)
    )
    empty_shard.cache_clear()
    with dg.DagsterInstance.get() as one, dg.DagsterInstance.get() as other:
        counts = []
        for _ in range(3):
            run = a_job.execute_in_process(instance=one)
            assert len(other.all_logs(run.run_id)) > 5
            assert f"{run.run_id}.db" in shards(home, run.run_id)
            assert f"{run.run_id}.db{UNFINISHED}" not in shards(home, run.run_id)
            counts.append(len(read))
    assert counts[0] == counts[1] == counts[2]


def test_who_opens_what_another_process_has_made_reads_no_migrations(home, monkeypatch):
    with dg.DagsterInstance.get() as one, dg.DagsterInstance.get() as other:
        run = a_job.execute_in_process(instance=one)
        monkeypatch.setattr("zlh_dagster.runs.sqlite.empty_shard", lambda: pytest.fail("made"))
        monkeypatch.setattr(SqliteEventLogStorage, "_initdb", lambda *_: pytest.fail("read"))
        other.event_log_storage._initialized_dbs.add(INDEX_SHARD_NAME)
        assert len(other.all_logs(run.run_id)) > 5


def test_a_file_that_another_process_made_meanwhile_is_left_as_it_is(home, monkeypatch):
    """Whoever comes second finds it made, whatever he saw before."""
    with dg.DagsterInstance.get() as one, dg.DagsterInstance.get() as other:
        run = one.create_run_for_job(a_job)
        one.report_engine_event("the first", run)
        monkeypatch.setattr("zlh_dagster.runs.sqlite.os.path.exists", lambda path: False)
        other.report_engine_event("the second", run)
        assert [entry.message for entry in one.all_logs(run.run_id)] == ["the first", "the second"]


def test_a_file_system_without_links_makes_files_as_dagster_does(home, monkeypatch):
    def refused(*_):
        raise PermissionError("no links here")

    monkeypatch.setattr("zlh_dagster.runs.sqlite.os.link", refused)
    with dg.DagsterInstance.get() as instance:
        run = instance.create_run_for_job(a_job)
        instance.report_engine_event("said", run)
        assert [entry.message for entry in instance.all_logs(run.run_id)] == ["said"]
        assert not [name for name in shards(home, run.run_id) if name.endswith(UNFINISHED)]


def test_a_run_that_is_deleted_while_it_goes_on_can_still_end(home):
    with dg.DagsterInstance.get() as instance, dg.DagsterInstance.get() as other:
        run = instance.create_run_for_job(a_job)
        instance.report_engine_event("said", run)
        RunFiles(other.event_log_storage).delete(run.run_id)
        instance.report_engine_event("into the deleted file", run)
        instance.report_run_failed(run)
        assert instance.get_run_by_id(run.run_id).status is dg.DagsterRunStatus.FAILURE
        assert shards(home, run.run_id) == [f"{run.run_id}.db"]


def test_no_commit_waits_for_the_disk(home):
    with dg.DagsterInstance.get() as instance:
        run = instance.create_run_for_job(a_job)
        events = instance.event_log_storage
        for connect in (lambda: events.run_connection(run.run_id), events.index_connection):
            with connect() as connection:
                # 1 is NORMAL: at checkpoints only.
                assert connection.execute(sa.text("PRAGMA synchronous")).scalar() == 1


def test_a_failed_run_is_closed_as_well(home):
    with dg.DagsterInstance.get() as instance:
        run = instance.create_run_for_job(a_job)
        instance.report_engine_event("said", run)
        assert len(shards(home, run.run_id)) > 1
        instance.report_run_failed(run)
        assert shards(home, run.run_id) == [f"{run.run_id}.db"]


def test_nothing_of_what_was_only_read_stays_open(home):
    with dg.DagsterInstance.get() as writer, dg.DagsterInstance.get() as reader:
        runs = [writer.create_run_for_job(a_job) for _ in range(12)]
        for run in runs:
            writer.report_engine_event("said", run)
        counts = []
        gc.collect()
        gc.disable()
        try:
            for _ in range(4):
                reader.report_engine_event("read on", runs[0])
                for run in runs[1:]:
                    assert reader.all_logs(run.run_id)
                counts.append(open_files())
            assert len(set(counts)) == 1
        finally:
            gc.enable()


@pytest.mark.parametrize("left", ["nothing in it", "half made", "half written", "an old revision"])
def test_a_file_that_another_process_did_not_finish_is_made_whole(home, left):
    """As after a process that was killed at any moment."""
    run_id = "6f1f0a52-0000-4000-8000-000000000000"
    path = home / "history" / "runs" / f"{run_id}.db"
    with dg.DagsterInstance.get() as instance:
        if left == "nothing in it":
            path.touch()
        elif left == "half made":
            path.with_name(path.name + UNFINISHED).write_bytes(b"SQLite")
        else:
            path.write_bytes(empty_shard())
            with sqlite3.connect(path) as connection:
                connection.execute("DELETE FROM alembic_version")
                if left == "an old revision":
                    connection.execute("INSERT INTO alembic_version VALUES ('567bc23fd1ac')")
        run = instance.create_run_for_job(a_job, run_id=run_id)
        instance.report_engine_event("said", run)
        assert [entry.message for entry in instance.all_logs(run_id)] == ["said"]
        files = RunFiles(instance.event_log_storage)
        assert run_id in files.runs()
        files.delete(run_id)
        assert shards(home, run_id) == []


def test_a_run_that_wrote_nothing_takes_little_room():
    """A page for each of Dagster's tables and indexes is 115 KB with SQLite's usual ones."""
    assert len(empty_shard()) < 40_000


def test_a_table_that_comes_later_is_seen_and_is_then_known(home, monkeypatch):
    with dg.DagsterInstance.get() as instance:
        storage = instance.event_log_storage
        assert not storage.has_table("later")
        with storage.index_connection() as connection:
            connection.execute(sa.text("CREATE TABLE later (id INTEGER)"))
        assert storage.has_table("later")
        assert storage.has_table("asset_keys")
        monkeypatch.setattr(
            SqliteEventLogStorage, "has_table", lambda *_: pytest.fail("asked again")
        )
        assert storage.has_table("later")


def test_a_directory_is_all_that_it_is_configured_with(tmp_path):
    storage = PooledSqliteStorage.from_local(str(tmp_path))
    assert isinstance(storage, DagsterSqliteStorage)
    storage.dispose()
    assert {path.name for path in tmp_path.iterdir()} == {"history", "schedules"}
