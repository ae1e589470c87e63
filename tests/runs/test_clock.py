"""A clock that was set back: schedules and sensors do not wait until it is where it was."""

import dagster as dg
import pytest
from dagster._core.remote_origin import (
    RegisteredCodeLocationOrigin,
    RemoteInstigatorOrigin,
    RemoteRepositoryOrigin,
)
from dagster._core.scheduler.instigation import (
    InstigatorState,
    InstigatorStatus,
    InstigatorType,
    ScheduleInstigatorData,
    SensorInstigatorData,
    TickData,
    TickStatus,
)

from tests.resources.databases import empty_database, postgresql
from zlh_dagster.core.snapshot import AHEAD_SECONDS
from zlh_dagster.runs.clock import forget_the_future

NOW = 1_790_000_000.0
HOUR = 3600.0
REPOSITORY = RemoteRepositoryOrigin(RegisteredCodeLocationOrigin("zlh"), "__repository__")
SCHEDULE = RemoteInstigatorOrigin(REPOSITORY, "observe_every_minute")
SENSOR = RemoteInstigatorOrigin(REPOSITORY, "drift_sensor")


@pytest.fixture(scope="module")
def server():
    with postgresql() as url:
        yield url


@pytest.fixture(params=["sqlite", "postgresql"])
def instance(request, platform, monkeypatch, shipped_yaml, server):
    """Dagster's storage as the controller opens it."""

    def opened(**overrides):
        for name, value in platform.environment(**overrides).items():
            monkeypatch.setenv(name, value)
        platform.home.mkdir(exist_ok=True)
        (platform.home / "dagster.yaml").write_text(shipped_yaml)
        return dg.DagsterInstance.get()

    if request.param == "sqlite":
        with opened() as made:
            yield made
        return
    with empty_database(server) as url:
        shared = {"ZLH_DAGSTER_DATABASE_URL": url, "ZLH_DEPLOYMENT": "tests"}
        with opened(**shared) as made:
            yield made


def tick(instance, origin, kind, at):
    data = TickData(
        origin.get_id(),
        origin.instigator_name,
        kind,
        TickStatus.SKIPPED,
        at,
        skip_reason="nothing",
        selector_id=selector(origin),
    )
    instance.create_tick(data)


def selector(origin):
    return origin.get_selector().get_id()


def newest(instance, origin):
    found = instance.get_ticks(origin.get_id(), selector(origin), limit=1)
    return found[0].timestamp if found else None


def ticked(instance, *, ahead):
    """A schedule and a sensor that ticked an hour ago, and that much ahead of the clock."""
    schedule = ScheduleInstigatorData("* * * * *", start_timestamp=NOW + ahead)
    sensor = SensorInstigatorData(
        last_tick_timestamp=NOW + ahead,
        last_tick_start_timestamp=NOW + ahead,
        last_sensor_start_timestamp=NOW - HOUR,
        cursor="tick 7",
    )
    for origin, kind, data in (
        (SCHEDULE, InstigatorType.SCHEDULE, schedule),
        (SENSOR, InstigatorType.SENSOR, sensor),
    ):
        instance.add_instigator_state(InstigatorState(origin, kind, InstigatorStatus.RUNNING, data))
        tick(instance, origin, kind, NOW - HOUR)
        tick(instance, origin, kind, NOW + ahead)


def data(instance, origin):
    return instance.get_instigator_state(origin.get_id(), selector(origin)).instigator_data


def test_what_is_ahead_of_the_clock_is_forgotten(instance):
    ticked(instance, ahead=HOUR)
    assert forget_the_future(instance, now=NOW) == 2
    assert newest(instance, SCHEDULE) == newest(instance, SENSOR) == NOW - HOUR
    # Not null: a schedule without a beginning or a tick is counted from 1970 on.
    assert data(instance, SCHEDULE) == ScheduleInstigatorData("* * * * *", NOW)
    kept = data(instance, SENSOR)
    assert (kept.last_tick_timestamp, kept.last_tick_start_timestamp) == (NOW, NOW)
    assert (kept.cursor, kept.last_sensor_start_timestamp) == ("tick 7", NOW - HOUR)


def test_a_clock_that_goes_right_forgets_nothing(instance):
    ticked(instance, ahead=AHEAD_SECONDS - 1)
    before = data(instance, SCHEDULE), data(instance, SENSOR)
    assert forget_the_future(instance, now=NOW) == 0
    assert newest(instance, SCHEDULE) == newest(instance, SENSOR) == NOW + AHEAD_SECONDS - 1
    assert (data(instance, SCHEDULE), data(instance, SENSOR)) == before
