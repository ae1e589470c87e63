"""Open incidents, so that each is told once and not once a minute. Kept in Redis."""

import json
from collections.abc import Callable, Collection
from typing import Any, TypeVar

import redis

from zlh_dagster.resources.redis import RedisUnavailable

KEY = "zlh:incidents"
_T = TypeVar("_T")


class Incidents:
    """A hash in Redis from an incident's name to when and as what it was opened.

    Should Redis lose everything, each incident that lasts is opened, and told, once more.
    """

    def __init__(self, client: "redis.Redis") -> None:
        self._client = client

    def open(self, name: str, *, now: float, detail: dict[str, Any]) -> bool:
        """Opens an incident; returns whether it was not open before.

        Raises:
            RedisUnavailable: If Redis does not answer.
        """
        value = json.dumps({"opened_at": now, **detail})
        return bool(self._ask(lambda: self._client.hsetnx(KEY, name, value)))

    def close(self, names: Collection[str]) -> None:
        """Closes incidents that are over.

        Raises:
            RedisUnavailable: If Redis does not answer.
        """
        if names:
            self._ask(lambda: self._client.hdel(KEY, *names))

    def all_open(self) -> dict[str, dict[str, Any]]:
        """Every open incident by name; one whose details cannot be read is open all the same.

        Raises:
            RedisUnavailable: If Redis does not answer.
        """
        values: Any = self._ask(lambda: self._client.hgetall(KEY))
        return {name: _detail(value) for name, value in values.items()}

    @staticmethod
    def _ask(command: Callable[[], _T]) -> _T:
        try:
            return command()
        except redis.RedisError as error:
            raise RedisUnavailable(
                f"Redis cannot be reached ({type(error).__name__}): incidents are not known"
            ) from error


def _detail(value: str) -> dict[str, Any]:
    try:
        detail = json.loads(value)
    except ValueError:
        return {}
    return detail if isinstance(detail, dict) else {}
