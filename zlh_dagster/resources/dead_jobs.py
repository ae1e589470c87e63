"""Since when queue jobs are dead: one read proves nothing, for a job changes hands."""

from datetime import datetime

import pandas as pd
import redis

from zlh_dagster.core import times
from zlh_dagster.core.fleet import JobState
from zlh_dagster.core.model import rows_of
from zlh_dagster.core.snapshot import AHEAD_SECONDS, MAX_AGE
from zlh_dagster.resources.table import RedisTable

KEY = "zlh:dead_jobs"


class DeadJobs:
    """What was read of dead jobs, by operation, in Redis.

    Should Redis lose it, counting begins anew: an operation is closed later, never too early. So it
    does after a pause of more than two ticks: the clock may have jumped, or nobody looked.
    """

    def __init__(self, client: "redis.Redis") -> None:
        self._table = RedisTable(client, KEY, "dead jobs")

    def count(self, operations: pd.DataFrame, *, now: datetime) -> pd.DataFrame:
        """Counts one read: ``deadSince`` and ``deadReads`` of every operation, others forgotten.

        Args:
            operations: All open operations with the state of their jobs, just read.
            now: When they were read.

        Raises:
            RedisUnavailable: If Redis does not answer.
        """
        known = self._table.all()
        frame = self._with(operations, known, now=now, count=True)
        dead = {
            row["id"]: {
                "job": row["jobId"],
                "since": row["deadSince"],
                "reads": int(row["deadReads"]),
                "at": times.iso(now),
            }
            for row in rows_of(frame)
            if row["deadSince"] is not None
        }
        for name, value in dead.items():
            if known.get(name) != value:
                self._table.put(name, value)
        self._table.remove(*(set(known) - set(dead)))
        return frame

    def look(self, operations: pd.DataFrame, *, now: datetime) -> pd.DataFrame:
        """The same from what was counted before, without counting; of nothing, without Redis.

        Raises:
            RedisUnavailable: If Redis does not answer.
        """
        known = self._table.all() if len(operations) else {}
        return self._with(operations, known, now=now, count=False)

    @staticmethod
    def _with(
        operations: pd.DataFrame,
        known: dict[str, dict[str, object]],
        *,
        now: datetime,
        count: bool,
    ) -> pd.DataFrame:
        since: list[str | None] = []
        reads: list[int] = []
        for row in rows_of(operations):
            before = known.get(row["id"], {})
            if not JobState(row["job"]).dead:
                since.append(None)
                reads.append(0)
                continue
            same = _lately(before, now) and before.get("job") == row["jobId"]
            began = before.get("since") if same else None
            seen = before.get("reads") if same else 0
            counted = seen if isinstance(seen, int) else 0
            since.append(began if isinstance(began, str) else times.iso(now) if count else None)
            reads.append(counted + 1 if count else counted)
        return operations.assign(
            deadSince=pd.Series(since, dtype=object, index=operations.index),
            deadReads=pd.Series(reads, dtype="Int64", index=operations.index),
        )


def _lately(before: dict[str, object], now: datetime) -> bool:
    """Whether the read before this one was a moment ago, by this clock."""
    age = times.age_seconds(before.get("at"), now)
    return age is not None and -AHEAD_SECONDS <= age <= MAX_AGE.total_seconds()
