"""The daily figures: ``DailyFigure`` in the platform database, a few small rows a day, for ever."""

from collections.abc import Mapping
from datetime import date, datetime, time, timedelta, timezone
from typing import Any

import sqlalchemy as sa
from sqlalchemy.exc import IntegrityError, SQLAlchemyError

from zlh_dagster.core.history import figures_of
from zlh_dagster.resources.database import DatabaseError, explain
from zlh_dagster.resources.figures import KEPT_SECONDS
from zlh_dagster.resources.services import Services
from zlh_dagster.schema.tables import daily_figure

_KEPT_DAYS = KEPT_SECONDS // 86_400
_DAY = timedelta(days=1)
_LAST_HOUR = timedelta(hours=23)


class History:
    """``DailyFigure`` in the platform database."""

    def __init__(self, engine: sa.Engine) -> None:
        self._engine = engine

    def keep(self, day: date, figures: Mapping[str, float]) -> int:
        """Writes what is new or greater than what is there, and returns how many rows changed.

        Counts of a day only ever grow, so what is less was counted by somebody who lost some.

        Raises:
            DatabaseError: If they could not be written.
        """
        row = daily_figure.c
        changed = 0
        try:
            with self._engine.begin() as connection:
                query = sa.select(row.name, row.value).where(row.day == day)
                there = dict(connection.execute(query).tuples().all())
                for name, value in figures.items():
                    if name not in there:
                        new = {"day": day, "name": name, "value": value}
                        connection.execute(sa.insert(daily_figure).values(new))
                    elif there[name] < value:
                        greater = (row.day == day, row.name == name, row.value < value)
                        connection.execute(
                            sa.update(daily_figure).where(*greater).values(value=value)
                        )
                    else:
                        continue
                    changed += 1
        except IntegrityError:
            # Another deployment on the same database was faster; what it missed comes in an hour.
            return 0
        except SQLAlchemyError as error:
            raise DatabaseError(explain(error)) from None
        return changed

    def newest(self) -> date | None:
        """The newest day that has figures.

        Raises:
            DatabaseError: If it cannot be read.
        """
        [found] = self._rows(sa.select(sa.func.max(daily_figure.c.day).label("day")))
        return found["day"] if found["day"] is not None else None

    def since(self, day: date) -> dict[date, dict[str, float]]:
        """The figures of each day from that one on, the oldest first.

        Raises:
            DatabaseError: If they cannot be read.
        """
        row = daily_figure.c
        days: dict[date, dict[str, float]] = {}
        for found in self._rows(
            sa.select(daily_figure).where(row.day >= day).order_by(row.day, row.name)
        ):
            days.setdefault(found["day"], {})[found["name"]] = float(found["value"])
        return days

    def _rows(self, query: "sa.Select[Any]") -> list[dict[str, Any]]:
        try:
            with self._engine.connect() as connection:
                return [dict(row) for row in connection.execute(query).mappings()]
        except SQLAlchemyError as error:
            raise DatabaseError(explain(error)) from None


def fold(services: Services, *, now: datetime) -> int:
    """Brings the daily figures up to date, today's included; returns how many rows changed.

    Counting begins with the day before the newest one that is there, for its last repairs may
    have been under way then.

    Raises:
        RedisUnavailable: If Redis does not answer.
        DatabaseError: If the ledger cannot be read or the figures cannot be written.
    """
    history = History(services.engine)
    today = now.date()
    oldest = today - timedelta(days=_KEPT_DAYS - 1)
    newest = history.newest()
    day = oldest if newest is None else max(oldest, min(newest, today) - _DAY)
    changed = 0
    while day <= today:
        changed += history.keep(day, counted(services, day))
        day += _DAY
    return changed


def counted(services: Services, day: date) -> dict[str, float]:
    """The figures of a day (UTC) by what was counted of it up to now.

    Raises:
        RedisUnavailable: If Redis does not answer.
        DatabaseError: If the ledger cannot be read.
    """
    start = datetime.combine(day, time(), timezone.utc)
    counts = services.figures.since(start, start + _LAST_HOUR)
    return figures_of(counts, services.ledger.between(start, start + _DAY))
