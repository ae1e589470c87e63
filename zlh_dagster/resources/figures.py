"""Counts of each hour, for the digest: ticks, what was seen, what drifted. Kept in Redis."""

from collections import Counter
from collections.abc import Iterable
from datetime import datetime, timedelta, timezone
from hashlib import blake2b
from typing import Any

import pandas as pd
import redis

from zlh_dagster.core.digest import DRIFTS, ON, SEEN, TICKS
from zlh_dagster.core.judge import Tick
from zlh_dagster.resources.redis import RedisUnavailable, why

HOUR, DRIFTING, COUNTED = "zlh:hour:", "zlh:drifting", "zlh:counted"
KEPT_SECONDS = 40 * 86_400


class Figures:
    """Hourly counters.

    Args:
        client: Redis.
    """

    def __init__(self, client: "redis.Redis") -> None:
        self._client = client

    def count(self, tick: Tick, drift: pd.DataFrame, *, now: datetime) -> None:
        """Counts one tick: what was on, what was seen, which drifts are new since the last one.

        The tick that was counted last is not counted again: whoever judges it may have to do so
        twice.

        Raises:
            RedisUnavailable: If Redis does not answer.
        """
        key = _key(now)
        current = _marks(drift)
        try:
            if self._client.get(COUNTED) == tick.id:
                return
            before: Any = self._client.smembers(DRIFTING)
            with self._client.pipeline(transaction=True) as pipe:
                pipe.hincrby(key, TICKS, 1)
                pipe.hincrby(key, DRIFTS, len(current - set(before)))
                for snapshot in tick.sources:
                    if snapshot.outcome.value != "off":
                        pipe.hincrby(key, ON + snapshot.source, 1)
                        pipe.hincrby(key, SEEN + snapshot.source, int(snapshot.observed))
                pipe.expire(key, KEPT_SECONDS)
                pipe.set(COUNTED, tick.id)
                pipe.delete(DRIFTING)
                if current:
                    pipe.sadd(DRIFTING, *current)
                pipe.execute()
        except redis.RedisError as error:
            raise _unavailable(error) from error

    def since(self, start: datetime, end: datetime) -> dict[str, int]:
        """The counts of the hours from ``start`` to ``end``, the first and the last one whole.

        Raises:
            RedisUnavailable: If Redis does not answer.
        """
        first = start.astimezone(timezone.utc).replace(minute=0, second=0, microsecond=0)
        hours = int((end - first) / timedelta(hours=1)) + 1
        keys = [_key(first + timedelta(hours=n)) for n in range(hours)]
        total: Counter[str] = Counter()
        try:
            for key in keys:
                values: Any = self._client.hgetall(key)
                total.update({name: int(value) for name, value in values.items()})
        except redis.RedisError as error:
            raise _unavailable(error) from error
        return dict(total)


def _key(moment: datetime) -> str:
    return HOUR + moment.astimezone(timezone.utc).strftime("%Y-%m-%dT%H")


def _marks(drift: pd.DataFrame) -> set[str]:
    """A short mark for each drift, to tell new ones from lasting ones."""
    if drift.empty:
        return set()
    keys: Iterable[str] = (
        drift["surface"] + "|" + drift["type"] + "|" + drift["name"] + "|" + drift["kind"]
    )
    return {blake2b(key.encode(), digest_size=8).hexdigest() for key in keys}


def _unavailable(error: redis.RedisError) -> RedisUnavailable:
    return RedisUnavailable(f"Redis cannot be reached ({why(error)})")
