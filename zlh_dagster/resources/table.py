"""A hash in Redis from a name to a JSON object: how the controller keeps its small state."""

import json
from collections.abc import Callable, Mapping
from typing import Any, TypeVar

import redis

from zlh_dagster.resources.redis import RedisUnavailable, why

_T = TypeVar("_T")
_PUT_KNOWN = """
if redis.call('hexists', KEYS[1], ARGV[1]) == 0 then
  return 0
end
redis.call('hset', KEYS[1], ARGV[1], ARGV[2])
return 1
"""


class RedisTable:
    """Names and their JSON objects below one key.

    Args:
        client: Client with a short time-out.
        key: The hash.
        what: What it holds, for errors.
    """

    def __init__(self, client: "redis.Redis", key: str, what: str) -> None:
        self._client = client
        self._key = key
        self._what = what

    def all(self) -> dict[str, dict[str, Any]]:
        """Every entry; one that is no JSON object is an empty one.

        Raises:
            RedisUnavailable: If Redis does not answer.
        """
        values: Any = self._ask(lambda: self._client.hgetall(self._key))
        return {name: _object(value) for name, value in values.items()}

    def get(self, name: str) -> dict[str, Any] | None:
        """One entry, or ``None``.

        Raises:
            RedisUnavailable: If Redis does not answer.
        """
        value: Any = self._ask(lambda: self._client.hget(self._key, name))
        return None if value is None else _object(value)

    def put(self, name: str, value: Mapping[str, Any]) -> None:
        """Writes an entry.

        Raises:
            RedisUnavailable: If Redis does not answer.
        """
        self._ask(lambda: self._client.hset(self._key, name, json.dumps(value)))

    def put_new(self, name: str, value: Mapping[str, Any]) -> bool:
        """Writes an entry unless there is one; returns whether it was written.

        Raises:
            RedisUnavailable: If Redis does not answer.
        """
        return bool(self._ask(lambda: self._client.hsetnx(self._key, name, json.dumps(value))))

    def put_known(self, name: str, value: Mapping[str, Any]) -> bool:
        """Writes an entry only where there is one; returns whether it was written.

        Raises:
            RedisUnavailable: If Redis does not answer.
        """
        text = json.dumps(value)
        return bool(self._ask(lambda: self._client.eval(_PUT_KNOWN, 1, self._key, name, text)))

    def remove(self, *names: str) -> int:
        """Removes entries and returns how many were there.

        Raises:
            RedisUnavailable: If Redis does not answer.
        """
        if not names:
            return 0
        removed: Any = self._ask(lambda: self._client.hdel(self._key, *names))
        return int(removed)

    def _ask(self, command: Callable[[], _T]) -> _T:
        try:
            return command()
        except redis.RedisError as error:
            raise RedisUnavailable(
                f"Redis cannot be reached ({why(error)}): {self._what} are not known"
            ) from error


def _object(text: str) -> dict[str, Any]:
    try:
        value = json.loads(text)
    except (ValueError, RecursionError):
        return {}
    return value if isinstance(value, dict) else {}
