"""The loop's own pulse: when its last good tick was judged, and who is told while it beats."""

import logging

import httpx
import redis

from zlh_dagster.resources.bounded import bounded_client, within
from zlh_dagster.resources.redis import RedisUnavailable, why

KEY = "zlh:good_tick:"
TIMEOUT = 2.0
HEARTBEAT = "heartbeat"
"""Name of the thread that calls the dead man's switch."""

_KEPT_SECONDS = 7 * 86_400
_log = logging.getLogger(__name__)


class Pulse:
    """The time of the last good tick of one deployment, in Redis.

    Args:
        client: Redis.
        deployment: Its identity: a standby has a pulse of its own.
    """

    def __init__(self, client: "redis.Redis", deployment: str) -> None:
        self._client = client
        self._key = KEY + deployment

    def note(self, now: float) -> None:
        """Keeps when a good tick was judged, in seconds since the epoch.

        Raises:
            RedisUnavailable: If Redis does not answer.
        """
        try:
            self._client.set(self._key, f"{now:.3f}", ex=_KEPT_SECONDS)
        except redis.RedisError as error:
            raise _unavailable(error) from error

    def last(self) -> float | None:
        """When the last good tick was judged, or ``None`` if none is known.

        Raises:
            RedisUnavailable: If Redis does not answer.
        """
        try:
            kept = self._client.get(self._key)
        except redis.RedisError as error:
            raise _unavailable(error) from error
        try:
            return None if kept is None else float(str(kept))
        except ValueError:
            return None


def call_heartbeat(url: str, *, transport: httpx.BaseTransport | None = None) -> bool:
    """Calls the dead man's switch once; whether it took the call. Never raises, never names it."""
    try:
        with (
            bounded_client(transport=transport, timeout=TIMEOUT) as client,
            within(2 * TIMEOUT),
            client.stream("GET", url) as response,
        ):
            status = response.status_code
    except (httpx.HTTPError, httpx.InvalidURL) as error:
        _log.warning("ZLH_HEARTBEAT_URL could not be called: %s", type(error).__name__)
        return False
    if status >= 400:
        _log.warning("ZLH_HEARTBEAT_URL answers HTTP %d", status)
        return False
    return True


def _unavailable(error: redis.RedisError) -> RedisUnavailable:
    return RedisUnavailable(
        f"Redis cannot be reached ({why(error)}): when the last good tick was is unknown"
    )
