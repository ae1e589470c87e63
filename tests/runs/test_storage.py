"""Which storage the settings choose, and PostgreSQL as Dagster's storage."""

import dagster as dg
import pytest
import sqlalchemy as sa
from dagster._core.definitions.run_request import InstigatorType
from dagster._core.scheduler.instigation import TickStatus
from dagster._core.storage.noop_compute_log_manager import NoOpComputeLogManager
from dagster_postgres import PostgresRunStorage

from tests.resources.databases import empty_database, postgresql
from tests.runs.jobs import a_job
from zlh_dagster.resources.settings import SettingsError
from zlh_dagster.runs.sqlite import PooledRuns

PASSWORD = "planted-password-of-dagsters-database"


@pytest.fixture(scope="module")
def server():
    with postgresql() as url:
        yield url


@pytest.fixture
def home(platform, monkeypatch, shipped_yaml):
    def configure(**overrides):
        for name, value in platform.environment(**overrides).items():
            monkeypatch.setenv(name, value)
        platform.home.mkdir(exist_ok=True)
        (platform.home / "dagster.yaml").write_text(shipped_yaml)
        return platform.home

    return configure


def shared(url: str) -> dict[str, str]:
    return {"ZLH_DAGSTER_DATABASE_URL": url, "ZLH_DEPLOYMENT": "tests"}


def test_runs_are_in_sqlite_below_the_home_unless_said_otherwise(home):
    where = home()
    with dg.DagsterInstance.get() as instance:
        assert isinstance(instance.run_storage, PooledRuns)
        a_job.execute_in_process(instance=instance)
    assert (where / "history" / "runs.db").exists()


def test_runs_are_in_postgresql_when_it_is_named(home, server):
    with empty_database(server) as url:
        where = home(**shared(url))
        with dg.DagsterInstance.get() as one, dg.DagsterInstance.get() as other:
            assert isinstance(one.run_storage, PostgresRunStorage)
            run = a_job.execute_in_process(instance=one)
            assert [r.run_id for r in other.get_runs()] == [run.run_id]
            said = [e.message for e in other.all_logs(run.run_id)]
            assert any("worked" in text for text in said)
            other.delete_run(run.run_id)
            assert one.get_runs() == []
        assert not (where / "history").exists()


def test_a_run_opens_no_connection_for_each_statement(home, server):
    with empty_database(server) as url:
        home(**shared(url))
        opened = []
        with dg.DagsterInstance.get() as instance:
            for part in (instance.run_storage, instance.event_log_storage):
                sa.event.listen(part._engine, "connect", lambda *_: opened.append(1))
            for _ in range(3):
                a_job.execute_in_process(instance=instance)
        assert 1 <= len(opened) <= 4


def test_its_password_stands_in_no_file(home, server):
    """The server asks for none, so that any may be given."""
    with empty_database(server) as url:
        given = sa.make_url(url).set(password=PASSWORD).render_as_string(hide_password=False)
        where = home(**shared(given))
        with dg.DagsterInstance.get() as instance:
            a_job.execute_in_process(instance=instance)
            assert PASSWORD not in str(instance.get_ref())
        for path in where.rglob("*"):
            assert path.is_dir() or PASSWORD.encode() not in path.read_bytes()


@pytest.mark.parametrize(
    ("overrides", "named"),
    [
        (shared("mysql://root@localhost/dagster"), "ZLH_DAGSTER_DATABASE_URL"),
        (shared("postgresql:/oops"), "ZLH_DAGSTER_DATABASE_URL"),
        ({"ZLH_DAGSTER_DATABASE_URL": "postgresql://h/d"}, "ZLH_DEPLOYMENT: is needed"),
        ({"ZLH_DEPLOYMENT": "Not a name"}, "ZLH_DEPLOYMENT"),
        ({"ZLH_SNAPSHOT_URL": "nowhere://bucket/x"}, "ZLH_SNAPSHOT_URL"),
        ({"ZLH_SNAPSHOT_URL": "gdrive://bucket/x"}, "ZLH_SNAPSHOT_URL.*package.*gdrive"),
    ],
)
def test_what_cannot_be_is_named(platform, overrides, named):
    with pytest.raises(SettingsError, match=named):
        platform.settings(**overrides)


def test_the_shipped_file_watches_over_runs_and_keeps_quiet(home):
    """Lost runs end soon, slots are freed, and no log is written twice."""
    home()
    with dg.DagsterInstance.get() as instance:
        assert instance.run_monitoring_enabled
        assert instance.run_monitoring_poll_interval_seconds <= 5
        assert instance.run_monitoring_start_timeout_seconds <= 60
        assert instance.run_monitoring_cancel_timeout_seconds <= 60
        assert 0 < instance.run_monitoring_max_runtime_seconds <= 3600
        settings = instance.get_settings("run_monitoring")
        assert settings["free_slots_after_run_end_seconds"] <= 60
        assert instance.python_log_level == "INFO"
        assert isinstance(instance.compute_log_manager, NoOpComputeLogManager)
        assert not instance.telemetry_enabled
        for kind in (InstigatorType.SCHEDULE, InstigatorType.SENSOR):
            kept = instance.get_tick_retention_settings(kind)
            assert set(kept) == set(TickStatus)
            assert max(kept.values()) <= 30
            assert min(kept.values()) > 0
            assert kept[TickStatus.SUCCESS] == 7
        assert instance.get_tick_retention_settings(InstigatorType.SENSOR)[TickStatus.SKIPPED] == 1
