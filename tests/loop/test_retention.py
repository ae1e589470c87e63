"""The job `retention`: what it deletes, what it keeps, that it stays within its time."""

import time
import uuid
from datetime import datetime, timedelta, timezone

import dagster as dg
import pytest
from dagster._core.definitions.assets.job.asset_job import IMPLICIT_ASSET_JOB_NAME
from dagster._core.definitions.run_request import InstigatorType
from dagster._core.scheduler.instigation import TickStatus
from dagster._core.storage.tags import REPOSITORY_LABEL_TAG

from tests.harness import Loop, titles
from tests.loop.stored import stored, ticks_on_disk
from tests.loop.test_dagster_shell import tell
from zlh_dagster.core.retention import EVENTFUL_TAG, NEW_DRIFT
from zlh_dagster.jobs import retention as retention_module
from zlh_dagster.jobs.retention import RETENTION, Done, _delete_runs, retain
from zlh_dagster.jobs.storage import RunStore
from zlh_dagster.resources.history import History
from zlh_dagster.sandbox.cloudflare_records import new_record

pytestmark = pytest.mark.usefixtures("through_dagster")
SRV = "_minecraft._tcp.mc-5000.example.gg"


@pytest.fixture(params=["sqlite", "postgresql"])
def store(request, tmp_path):
    with stored(request.param, tmp_path / "dagster") as made:
        yield made


@pytest.fixture
def sqlite(tmp_path):
    with stored("sqlite", tmp_path / "dagster") as made:
        yield made


@pytest.fixture
def loop(platform, store):
    return Loop(platform.services(), store.instance)


def later(**span: float) -> datetime:
    return datetime.now(timezone.utc) + timedelta(**span)


def begun(loop, job="observe", **tags):
    """A run that is under way."""
    return loop.instance.create_run_for_job(
        loop.definitions.resolve_job_def(job),
        run_config={"ops": {"level1_repair": {"config": {}}}} if job == "level1_repair" else None,
        status=dg.DagsterRunStatus.STARTED,
        tags=tags,
    )


def newest(loop) -> str:
    return loop.instance.get_run_ids(dg.RunsFilter(job_name="observe"), limit=1)[0]


def add_orphan(sandbox):
    """Drift that nobody mends: a record that no server asks for."""
    orphan = new_record("mc-9999.example.gg", "A", "203.0.113.10", ttl=60, proxied=False)
    sandbox.edge.cloudflare.put(orphan)


def test_what_happened_is_kept_and_what_did_not_goes(loop, store, sandbox):
    """Real ticks: quiet ones, a repair, a drift that stays, a failure, and runs under way."""
    loop.minute()
    assert loop.services.snapshots.ticks()
    kept, kept_ticks = set(), set()

    sandbox.edge.cloudflare.remove(sandbox.edge.cloudflare.named(SRV)[0].id)
    [repair] = loop.minute()
    kept |= {repair.run_id, newest(loop)}
    kept_ticks |= {newest(loop)}
    loop.minute()
    # The same once more: no new drift, but this tick has asked for a repair as well.
    sandbox.edge.cloudflare.remove(sandbox.edge.cloudflare.named(SRV)[0].id)
    [again] = loop.minute()
    assert EVENTFUL_TAG not in loop.instance.get_run_by_id(newest(loop)).tags
    kept |= {again.run_id, newest(loop)}
    kept_ticks |= {newest(loop)}

    add_orphan(sandbox)
    [told] = loop.minute()
    kept |= {told.run_id, newest(loop)}
    kept_ticks |= {newest(loop)}
    for _ in range(3):
        assert loop.minute() == []

    failed, running = begun(loop), begun(loop)
    store.instance.report_run_failed(failed, "the disk is full")
    repairing = begun(loop, "level1_repair")
    kept |= {failed.run_id, running.run_id, repairing.run_id}
    everything = store.runs_named_anywhere()
    assert len(everything) == 14

    assert retain(store.instance, loop.services, now=later(hours=23)).counts["runs"] == 0
    assert store.runs_named_anywhere() == everything

    done = retain(store.instance, loop.services, now=later(hours=25))
    assert done.problems == []
    assert done.counts["runs"] == len(everything - kept) == 5
    assert store.runs_named_anywhere() == kept
    assert ticks_on_disk(loop.services) == kept_ticks
    assert store.files_of_runs() <= kept
    events = {row[0] for row in store.rows("event_logs", "id")}
    assert {row[0] for row in store.rows("asset_event_tags", "event_id")} <= events
    assert [row[0] for row in store.rows("asset_check_executions", "run_id")].count("") <= 1
    assert [row[0] for row in store.rows("event_logs", "run_id")].count("") <= 1
    if store.files_of_runs():
        assert store.runless_rows() == 1

    again = retain(store.instance, loop.services, now=later(hours=25))
    deleting = ("runs", "runless_rows", "files", "snapshots", "daily_figures", "bytes_given_back")
    assert {name: again.counts.get(name, 0) for name in deleting} == dict.fromkeys(deleting, 0)

    # The loop goes on, and the plots with it.
    loop.minute()
    assert loop.instance.get_latest_materialization_event(dg.AssetKey("drift")) is not None

    retain(store.instance, loop.services, now=later(days=89))
    assert store.runs_named_anywhere() == kept
    assert ticks_on_disk(loop.services) == kept_ticks

    retain(store.instance, loop.services, now=later(days=91))
    assert store.runs_named_anywhere() == {running.run_id, repairing.run_id}
    assert ticks_on_disk(loop.services) == set()


def test_a_new_drift_is_kept_although_nothing_was_asked_for(loop, platform, sandbox, tmp_path):
    """As on a deployment that stands by: there is no repair run to keep the tick."""
    leads = platform.services(DAGSTER_HOME=str(tmp_path / "leads"))
    leads.leadership.take()
    assert loop.minute() == []
    quiet = newest(loop)
    add_orphan(sandbox)
    assert loop.minute() == []
    drifted = newest(loop)
    assert loop.minute() == []
    the_same = newest(loop)
    assert "standby" in loop.skips[-1]
    retain(loop.instance, loop.services, now=later(hours=25))
    left = {run.run_id for run in loop.instance.get_runs()}
    assert (quiet in left, drifted in left, the_same in left) == (False, True, False)
    assert loop.instance.get_run_by_id(drifted).tags[EVENTFUL_TAG] == NEW_DRIFT


@dg.asset(check_specs=[dg.AssetCheckSpec("seen", asset="small")])
def small():
    yield dg.MaterializeResult(
        metadata={"rows": 1}, check_results=[dg.AssetCheckResult(passed=True)]
    )


tiny_observe = dg.Definitions(
    assets=[small],
    jobs=[dg.define_asset_job("observe", executor_def=dg.in_process_executor)],
).resolve_job_def("observe")


@pytest.mark.parametrize(
    "store", ["sqlite", pytest.param("postgresql", marks=pytest.mark.long)], indirect=True
)
def test_fifty_ticks_leave_what_one_day_leaves(loop, store):
    """Small ticks stand for real ones: as many runs, tables and files."""
    instance, snapshots = store.instance, loop.services.settings.home / "snapshots"
    first = tiny_observe.execute_in_process(instance=instance).run_id
    found = dg.AssetMaterialization("drift")
    check = dg.AssetCheckEvaluation(
        asset_key=dg.AssetKey("drift"), check_name="in_step", passed=True
    )
    for number in range(50):
        tags = {EVENTFUL_TAG: "drift"} if number % 25 == 0 else {}
        run_id = store.repeat(first, tags=tags) if number else first
        (snapshots / run_id).mkdir(parents=True)
        (snapshots / run_id / "operations.parquet").touch()
        for event in (found, check):
            instance.report_runless_asset_event(event)
    instance.add_run_tags(first, {EVENTFUL_TAG: "drift"})
    assert len(store.runs_named_anywhere()) == len(ticks_on_disk(loop.services)) == 50
    assert [row.run_id for row in store.rows("event_logs", "run_id")].count("") == 100

    done = retain(instance, loop.services, now=later(hours=25), seconds=300)
    assert done.problems == []
    assert (done.counts["runs"], done.counts["runs_left_for_later"]) == (48, 0)
    assert len(store.runs_named_anywhere()) == len(ticks_on_disk(loop.services)) == 2
    # One row of each kind for each run that is kept, and the newest one that no run reported.
    assert len(store.rows("asset_check_executions", "id")) == 2 + 1
    assert len(store.rows("asset_event_tags", "id")) == 2
    assert len(store.rows("asset_keys", "id")) == 2
    assert len(store.run_rows("run_tags", "id")) == 2
    runless = [row.run_id for row in store.rows("event_logs", "run_id")].count("")
    assert runless <= 1
    if store.files_of_runs():
        assert store.runless_rows() == 1


def test_a_run_that_cannot_be_deleted_does_not_keep_the_others(loop, store, monkeypatch):
    runs = [tiny_observe.execute_in_process(instance=store.instance).run_id for _ in range(3)]
    delete = RunStore.delete_runs

    def refuse(self, run_ids):
        if runs[1] in run_ids:
            raise OSError("no")
        delete(self, run_ids)

    with monkeypatch.context() as patch:
        patch.setattr(RunStore, "delete_runs", refuse)
        done = retain(store.instance, loop.services, now=later(hours=25))
    assert done.problems == [f"run {runs[1]}: OSError: no"]
    assert store.runs_named_anywhere() == {runs[1]}
    assert retain(store.instance, loop.services, now=later(hours=25)).counts["runs"] == 1
    assert store.runs_named_anywhere() == set()


def test_deleting_stops_at_its_time_and_goes_on_an_hour_later(loop, store):
    for _ in range(3):
        tiny_observe.execute_in_process(instance=store.instance)
    done = retain(store.instance, loop.services, now=later(hours=25), seconds=0)
    assert (done.counts["runs"], done.counts["runs_left_for_later"]) == (0, 3)
    assert retain(store.instance, loop.services, now=later(hours=26)).counts["runs"] == 3


def test_runs_of_jobs_that_are_not_ours_are_not_touched(loop, store):
    @dg.job(name="theirs", executor_def=dg.in_process_executor)
    def theirs():
        pass

    run = theirs.execute_in_process(instance=store.instance)
    retain(store.instance, loop.services, now=later(days=365))
    assert store.runs_named_anywhere() == {run.run_id}


@pytest.mark.parametrize("name", [IMPLICIT_ASSET_JOB_NAME, "observe", "retention"])
def test_jobs_of_the_same_name_in_another_code_location_are_not_touched(loop, store, name):
    """Assets that are materialized by hand run in a job of the same name everywhere."""
    instance = store.instance
    first = tiny_observe.execute_in_process(instance=instance).run_id
    made = instance.get_run_by_id(first)
    ours, theirs = (
        made._replace(
            run_id=str(uuid.uuid4()), job_name=name, tags={REPOSITORY_LABEL_TAG: f"jobs@{location}"}
        )
        for location in ("zlh", "billing")
    )
    for run in (ours, theirs):
        instance.run_storage.add_run(run)
    done = retain(instance, loop.services, now=later(days=365), location="jobs@zlh")
    assert done.problems == []
    assert store.runs_named_anywhere() == {theirs.run_id}
    assert [run.run_id for run in instance.get_runs()] == [theirs.run_id]


def test_a_storage_that_deletes_nothing_is_told_and_not_tried_for_longer_than_it_may():
    class Broken:
        def delete_runs(self, run_ids):
            time.sleep(0.1)
            raise OSError("gone")

    done = Done()
    deadline = time.monotonic() + 0.15
    assert _delete_runs(Broken(), done, [f"r{n}" for n in range(120)], deadline=deadline) == 0
    assert done.problems == ["run r0: OSError: gone"]
    assert done.counts["runs_left_for_later"] == 119


def test_many_runs_go_with_few_connections(loop, store, monkeypatch):
    """A connection to PostgreSQL for each run would take longer than the runs take to come."""
    runs = [tiny_observe.execute_in_process(instance=store.instance).run_id]
    runs += [store.repeat(runs[0], tags={}) for _ in range(119)]
    opened = []
    for storage, name in (("event_log_storage", "index_connection"), ("run_storage", "connect")):
        kind = type(getattr(store.instance, storage))
        connect = getattr(kind, name)

        def counted(self, *args, connect=connect, name=name):
            opened.append(name)
            return connect(self, *args)

        monkeypatch.setattr(kind, name, counted)
    rest = RunStore(store.instance)
    done = Done()
    assert _delete_runs(rest, done, runs, deadline=float("inf")) == 120
    assert done.problems == []
    assert (opened.count("index_connection"), opened.count("connect")) == (3, 3)
    monkeypatch.undo()
    assert store.runs_named_anywhere() == set()


def test_assets_that_somebody_materialized_go_like_a_tick(loop, store):
    job = loop.definitions.resolve_implicit_global_asset_job_def()
    assert job.name == IMPLICIT_ASSET_JOB_NAME
    observed = loop.definitions.resolve_job_def("observe").asset_layer.executable_asset_keys
    done = job.execute_in_process(instance=store.instance, asset_selection=list(observed))
    assert done.success
    assert done.run_id in ticks_on_disk(loop.services)
    retain(store.instance, loop.services, now=later(hours=25))
    assert store.runs_named_anywhere() == set()
    assert ticks_on_disk(loop.services) == set()


def test_snapshots_of_another_deployment_are_not_touched(platform, loop, store, sandbox, tmp_path):
    """Both write to one place, as where one stands by for the other."""
    given = {"ZLH_SNAPSHOT_URL": f"file://{tmp_path}/shared"}
    leads = platform.services(**given, ZLH_DEPLOYMENT="leads")
    stands_by = platform.services(**given, ZLH_DEPLOYMENT="stands-by")
    leading = Loop(leads, store.instance)
    sandbox.edge.cloudflare.remove(sandbox.edge.cloudflare.named(SRV)[0].id)
    [repair] = leading.minute()
    assert repair.success
    kept = ticks_on_disk(leads)
    assert kept == {newest(leading)}
    with stored("sqlite", tmp_path / "standby") as other:
        retain(other.instance, stands_by, now=later(hours=25))
    retain(store.instance, leads, now=later(hours=25))
    assert ticks_on_disk(leads) == kept
    assert leads.snapshots.read("cloudflare_records", newest(leading)).observed


class TestTheJob:
    """As the daemon runs it."""

    @pytest.fixture
    def store(self, sqlite):
        return sqlite

    @pytest.fixture
    def run(self, loop):
        job = loop.definitions.resolve_job_def(RETENTION)

        def execute():
            return job.execute_in_process(instance=loop.instance, raise_on_error=False)

        return execute

    def test_it_deletes_old_runs_and_shows_the_counts(self, loop, run, monkeypatch):
        loop.minute()

        class Tomorrow(datetime):
            @classmethod
            def now(cls, tz=None):
                return datetime.now(tz) + timedelta(hours=25)

        monkeypatch.setattr(retention_module, "datetime", Tomorrow)
        result = run()
        assert result.success
        [output] = [e for e in result.all_events if e.is_successful_output]
        assert output.step_output_data.metadata["runs"].value == 1
        assert loop.instance.get_run_ids() == [result.run_id]

    def test_what_fails_is_told_after_the_rest_was_done(self, loop, run, platform):
        loop.minute()
        with platform.engine.begin() as connection:
            connection.exec_driver_sql('DROP TABLE "DailyFigure"')
        result = run()
        assert not result.success
        [failure] = [e for e in result.all_events if e.is_step_failure]
        assert "zlh db upgrade" in str(failure.step_failure_data.user_failure_data)

    def test_a_redis_that_is_away_fails_nothing(self, platform, store):
        """The loop itself tells it, once; this job would tell it every hour."""
        gone = Loop(platform.services(ZLH_REDIS_URL="unix:///nonexistent.sock"), store.instance)
        tiny_observe.execute_in_process(instance=store.instance)
        done = retain(store.instance, gone.services, now=later(hours=25))
        assert (done.counts["runs"], done.counts["daily_figures"], done.problems) == (1, 0, [])
        job = gone.definitions.resolve_job_def(RETENTION)
        assert job.execute_in_process(instance=store.instance).success

    def test_a_failure_is_told_once_and_is_over_with_the_next_success(
        self, loop, run, platform, sandbox
    ):
        with platform.engine.begin() as connection:
            connection.exec_driver_sql('ALTER TABLE "DailyFigure" RENAME TO gone')
        for _ in range(2):
            tell(loop, run().run_id, RETENTION)
            loop.minute()
        assert titles(sandbox) == ["retention failed"]
        with platform.engine.begin() as connection:
            connection.exec_driver_sql('ALTER TABLE gone RENAME TO "DailyFigure"')
        assert run().success
        loop.minute()
        assert titles(sandbox) == ["retention failed", "Over: retention failed"]
        assert loop.services.incidents.all_open() == {}

    def test_the_figures_of_the_day_are_kept(self, loop, run):
        loop.minute()
        loop.minute()
        assert run().success
        [figures] = History(loop.services.engine).since(later(days=-1).date()).values()
        assert (figures["ticks"], figures["seen:containers"], figures["on:containers"]) == (2, 2, 2)

    def test_it_runs_every_hour_from_the_start(self, loop):
        schedule = loop.definitions.resolve_schedule_def("retention_every_hour")
        assert schedule.default_status is dg.DefaultScheduleStatus.RUNNING
        assert schedule.cron_schedule == "17 * * * *"


class TestFiles:
    """SQLite only."""

    @pytest.fixture
    def store(self, sqlite):
        return sqlite

    def test_the_file_of_a_run_goes_with_all_that_is_beside_it(self, loop, store):
        run = tiny_observe.execute_in_process(instance=store.instance).run_id
        for end in ("-wal", "-shm"):
            (store.history / f"{run}.db{end}").touch()
        retain(store.instance, loop.services, now=later(hours=25))
        assert store.files_of_runs() == set()

    def test_files_whose_run_is_gone_are_swept_and_no_others(self, loop, store):
        run = tiny_observe.execute_in_process(instance=store.instance).run_id
        gone = tiny_observe.execute_in_process(instance=store.instance).run_id
        store.instance.delete_run(gone)
        (store.history / "mine.db").touch()
        assert store.files_of_runs() == {run, gone, "mine"}
        assert retain(store.instance, loop.services, now=later()).counts["files"] == 1
        assert store.files_of_runs() == {run, "mine"}

    def test_snapshots_that_never_had_a_run_go_when_they_are_old(self, loop, store):
        loop.minute()
        kept = newest(loop)
        folder = loop.services.settings.home / "snapshots" / "nobody"
        folder.mkdir()
        (folder / "agents.parquet").touch()
        assert retain(store.instance, loop.services, now=later()).counts["snapshots"] == 0
        assert ticks_on_disk(loop.services) == {kept, "nobody"}
        store.instance.add_run_tags(kept, {EVENTFUL_TAG: "drift"})
        retain(store.instance, loop.services, now=later(hours=25))
        assert ticks_on_disk(loop.services) == {kept}

    def test_nothing_is_compacted_while_a_repair_is_under_way(self, loop, store, monkeypatch):
        asked = []
        monkeypatch.setattr(retention_module, "compact", lambda path: asked.append(path) or 0)
        run = begun(loop, "level1_repair")
        retain(store.instance, loop.services, now=later())
        assert asked == []
        store.instance.report_run_failed(run, "over")
        retain(store.instance, loop.services, now=later())
        assert [path.name for path in asked] == ["index.db", ".db", "runs.db", "schedules.db"]
        assert all(path.exists() for path in asked if path.name != ".db")


@pytest.mark.parametrize("kind", [InstigatorType.SCHEDULE, InstigatorType.SENSOR])
def test_ticks_of_every_status_are_purged_by_the_daemon_after_some_days(sqlite, kind):
    """Dagster's defaults keep most of them for ever."""
    kept = sqlite.instance.get_tick_retention_settings(kind)
    assert set(kept) == set(TickStatus)
    assert all(1 <= days <= 30 for days in kept.values())
