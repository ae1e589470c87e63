"""The daily figures, on each kind of database."""

from datetime import date, datetime, timedelta, timezone

import pytest
import sqlalchemy as sa

from zlh_dagster.core.repair import Status
from zlh_dagster.resources import history as history_module
from zlh_dagster.resources.database import DatabaseError
from zlh_dagster.resources.history import History, fold
from zlh_dagster.resources.ledger import Entry, Ledger
from zlh_dagster.resources.redis import RedisUnavailable
from zlh_dagster.schema.tables import daily_figure, repair_event

MONDAY, TUESDAY = date(2030, 1, 7), date(2030, 1, 8)


def test_figures_come_back_by_day_the_oldest_first(engine):
    history = History(engine)
    history.keep(TUESDAY, {"ticks": 2})
    history.keep(MONDAY, {"ticks": 1, "longest_repair_seconds": 0.25})
    assert history.since(MONDAY) == {
        MONDAY: {"ticks": 1, "longest_repair_seconds": 0.25},
        TUESDAY: {"ticks": 2},
    }
    assert list(history.since(TUESDAY)) == [TUESDAY]
    assert history.newest() == TUESDAY


def test_no_figures_are_no_days(engine):
    assert History(engine).since(MONDAY) == {}
    assert History(engine).newest() is None


def test_keeping_the_same_again_changes_nothing(engine):
    history = History(engine)
    assert history.keep(MONDAY, {"ticks": 5, "drifts": 0}) == 2
    assert history.keep(MONDAY, {"ticks": 5, "drifts": 0}) == 0


def test_the_greater_figure_stays(engine):
    history = History(engine)
    history.keep(MONDAY, {"ticks": 5, "drifts": 3})
    assert history.keep(MONDAY, {"ticks": 6, "drifts": 1, "on:agents": 6}) == 2
    assert history.since(MONDAY) == {MONDAY: {"ticks": 6, "drifts": 3, "on:agents": 6}}


def test_a_table_that_is_not_there_says_what_to_do(empty_engine):
    with pytest.raises(DatabaseError, match="zlh db upgrade"):
        History(empty_engine).newest()
    with pytest.raises(DatabaseError, match="zlh db upgrade"):
        History(empty_engine).keep(MONDAY, {"ticks": 1})


class Counted:
    """Counts of each day, as Redis has them; the last hour of the span tells the day."""

    def __init__(self, days):
        self.days = days
        self.asked = []

    def since(self, start, end):
        if self.days is None:
            raise RedisUnavailable("gone")
        assert end - start == timedelta(hours=23)
        self.asked.append(start.date())
        return self.days.get(start.date(), {})


class TestFold:
    @pytest.fixture
    def services(self, platform):
        return platform.services()

    def fold(self, services, days, now=TUESDAY):
        services.figures = Counted(days)
        moment = datetime(now.year, now.month, now.day, 3, 17, tzinfo=timezone.utc)
        return fold(services, now=moment)

    def test_each_day_that_was_counted_is_kept_once(self, services):
        days = {MONDAY: {"ticks": 1440}, TUESDAY: {"ticks": 3}}
        assert self.fold(services, days) == 2
        assert History(services.engine).since(MONDAY) == {
            MONDAY: {"ticks": 1440},
            TUESDAY: {"ticks": 3},
        }
        assert self.fold(services, days) == 0

    def test_the_first_time_looks_back_as_far_as_redis_does(self, services):
        self.fold(services, {TUESDAY: {"ticks": 1}})
        assert len(services.figures.asked) == 40
        assert services.figures.asked[-1] == TUESDAY

    def test_later_only_the_newest_days_are_counted(self, services):
        History(services.engine).keep(MONDAY, {"ticks": 1})
        self.fold(services, {})
        assert services.figures.asked == [MONDAY - timedelta(days=1), MONDAY, TUESDAY]

    def test_a_clock_that_was_ahead_does_no_harm(self, services):
        History(services.engine).keep(TUESDAY + timedelta(days=30), {"ticks": 1})
        self.fold(services, {TUESDAY: {"ticks": 2}})
        assert History(services.engine).since(TUESDAY)[TUESDAY] == {"ticks": 2}

    def test_a_redis_that_lost_everything_does_not_undo_the_figures(self, services):
        self.fold(services, {MONDAY: {"ticks": 1440, "drifts": 2}})
        self.fold(services, {MONDAY: {"ticks": 7, "drifts": 0}})
        self.fold(services, {})
        assert History(services.engine).since(MONDAY) == {MONDAY: {"ticks": 1440, "drifts": 2}}

    def test_a_redis_that_is_away_changes_nothing(self, services):
        with pytest.raises(RedisUnavailable):
            self.fold(services, None)

    def test_repairs_come_from_the_ledger_by_day(self, services):
        ledger = Ledger(services.engine)
        entry = Entry("dns_republish", 1, "r", "controller", "run", 1, vmid=5000)
        for moment in (datetime(2030, 1, 7), datetime(2030, 1, 7, 23, 59, 59, 999999)):
            event = ledger.record(entry, Status.SUCCEEDED)
            at = moment.replace(tzinfo=timezone.utc)
            change = sa.update(repair_event).where(repair_event.c.id == event)
            with services.engine.begin() as connection:
                connection.execute(
                    change.values(createdAt=at, finishedAt=at + timedelta(seconds=9))
                )
        self.fold(services, {})
        assert History(services.engine).since(MONDAY) == {
            MONDAY: {"repairs:succeeded": 2, "longest_repair_seconds": 9.0}
        }


def test_another_deployment_that_was_faster_is_no_error(engine, monkeypatch):
    """Both find no row and both write it; what this one counted comes an hour later."""
    history = History(engine)
    history.keep(MONDAY, {"ticks": 9})
    nothing = sa.select(daily_figure.c.name, daily_figure.c.value).where(sa.false())
    with monkeypatch.context() as patch:
        patch.setattr(history_module.sa, "select", lambda *columns: nothing)
        assert history.keep(MONDAY, {"ticks": 10}) == 0
    assert history.since(MONDAY) == {MONDAY: {"ticks": 9}}
    assert history.keep(MONDAY, {"ticks": 10}) == 1
