"""What a clock that was set back leaves behind in Dagster: ticks of a time that has not come yet.

Dagster's daemon goes on from the newest tick of a schedule, and lets a sensor rest since its last
one. After a clock went back by an hour, both would stand still for that hour.
"""

from datetime import datetime, timezone
from typing import Any

import sqlalchemy as sa
from dagster import DagsterInstance
from dagster._core.scheduler.instigation import ScheduleInstigatorData, SensorInstigatorData
from dagster._core.storage.schedules.schema import JobTickTable
from dagster._core.storage.schedules.sql_schedule_storage import SqlScheduleStorage

from zlh_dagster.core.snapshot import AHEAD_SECONDS


def forget_the_future(instance: DagsterInstance, *, now: float) -> int:
    """Deletes ticks that are ahead of the clock, and lets every schedule and sensor go on at once.

    Args:
        instance: Dagster's own storage.
        now: Seconds since the epoch.

    Returns:
        How many ticks were deleted.
    """
    latest = now + AHEAD_SECONDS
    for state in instance.all_instigator_state():
        data = state.instigator_data
        if isinstance(data, SensorInstigatorData | ScheduleInstigatorData):
            past = _without_future(data, now, latest)
            if past != data:
                instance.update_instigator_state(state.with_data(past))
    storage = instance.schedule_storage
    if not isinstance(storage, SqlScheduleStorage):
        return 0
    # As Dagster writes them: without a zone in SQLite and PostgreSQL, in UTC.
    limit = datetime.fromtimestamp(latest, timezone.utc)
    with storage.connect() as connection:
        ahead = sa.delete(JobTickTable).where(JobTickTable.c.timestamp > limit)
        return connection.execute(ahead).rowcount


def _without_future(
    data: SensorInstigatorData | ScheduleInstigatorData, now: float, latest: float
) -> SensorInstigatorData | ScheduleInstigatorData:
    """The same with every time that is ahead of the clock set to now.

    Left out, a schedule's beginning would be 1970, and Dagster would count every minute since.
    """
    ahead: dict[str, Any] = {
        name: now
        for name, value in data._asdict().items()
        if name.endswith("timestamp") and value is not None and value > latest
    }
    return data._replace(**ahead)
