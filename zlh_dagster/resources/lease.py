"""The singleton lease: one repair run at a time in the whole deployment, with fencing.

The lease is one Redis key with a time to live. Its value names the holder and a random token; it
is extended and given back only by whoever holds that value, compared and changed in one Lua call.
Every acquisition takes the next fencing token. Time is counted on the monotonic clock from before
each call, so the holder always believes in less time than Redis gives it.
"""

import json
import logging
import os
import secrets
import socket
import threading
import time
from dataclasses import dataclass
from types import TracebackType

import redis

from zlh_dagster.resources.redis import RedisUnavailable, text_at, why

KEY = "zlh:lease"
FENCE_KEY = "zlh:fence"
RENEWALS_PER_LEASE = 4
_MARGIN = 1.0
"""Seconds of the lease that are never used, for the difference between two machines' clocks."""

_log = logging.getLogger(__name__)

# A lease has an end from its first moment: a key without one is nobody's, and gets one here. The
# counter is believed while it is a number, and begins after the ledger's otherwise.
_ACQUIRE = """
if not redis.call('set', KEYS[1], ARGV[1], 'NX', 'PX', ARGV[2]) then
  if redis.pcall('get', KEYS[1]) ~= ARGV[1] then
    if redis.call('pttl', KEYS[1]) == -1 then
      redis.call('pexpire', KEYS[1], ARGV[2])
    end
    return 0
  end
  redis.call('pexpire', KEYS[1], ARGV[2])
end
local fence = redis.pcall('incr', KEYS[2])
if type(fence) ~= 'number' or fence <= tonumber(ARGV[3]) then
  fence = tonumber(ARGV[3]) + 1
  redis.call('set', KEYS[2], string.format('%.0f', fence))
end
return fence
"""
_EXTEND = """
if redis.call('get', KEYS[1]) == ARGV[1] then
  return redis.call('pexpire', KEYS[1], ARGV[2])
end
return 0
"""
_RELEASE = """
if redis.call('get', KEYS[1]) == ARGV[1] then
  return redis.call('del', KEYS[1])
end
return 0
"""


class LeaseHeld(Exception):
    """Somebody else holds the lease; the message says who."""


class LeaseLost(Exception):
    """The lease was held and is no longer, or has not enough time left for the next write."""


@dataclass(frozen=True, slots=True)
class Holder:
    """Who holds the lease, as it stands in Redis."""

    name: str
    run_id: str
    since: float

    def describe(self) -> str:
        return f"{self.name}, run {self.run_id}"


class Lease:
    """An acquired lease, renewed by a thread of its own until it is released.

    Use :func:`acquire`; as a context manager it gives the lease back at the end.
    """

    def __init__(
        self, client: "redis.Redis", *, value: str, fence: int, seconds: float, deadline: float
    ) -> None:
        self.fence = fence
        self._client = client
        self._value = value
        self._seconds = seconds
        self._deadline = deadline
        self._lost: str | None = None
        self._done = threading.Event()
        self._thread = threading.Thread(target=self._renew, name="lease-renewal", daemon=True)
        self._thread.start()

    def remaining(self) -> float:
        """Seconds for which the lease is certainly held; zero or less when it is lost."""
        if self._lost is not None:
            return 0.0
        return self._deadline - time.monotonic()

    def require(self, seconds: float) -> None:
        """Passes only while the lease is held and stays held for ``seconds`` more.

        Redis is asked too, so that a lease that was taken away is noticed before the next write
        and not at the next renewal.

        Raises:
            LeaseLost: If the lease is lost, Redis cannot confirm it, or the time does not suffice.
        """
        if self._lost is None and not self._extend():
            self._lost = self._lost or "Redis could not confirm it"
        if self._lost is not None:
            raise LeaseLost(f"the lease was lost: {self._lost}")
        left = self.remaining()
        if left < seconds:
            raise LeaseLost(f"the lease has {left:.1f} s left, the next write may take {seconds} s")

    def release(self) -> None:
        """Gives the lease back, if it is still ours; never raises."""
        self._done.set()
        self._thread.join(timeout=self._seconds)
        try:
            self._client.eval(_RELEASE, 1, KEY, self._value)
        except redis.RedisError as error:
            _log.warning("lease not given back, it ends by itself: %s", type(error).__name__)

    def __enter__(self) -> "Lease":
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.release()

    def _extend(self) -> bool:
        before = time.monotonic()
        try:
            extended = self._client.eval(_EXTEND, 1, KEY, self._value, int(self._seconds * 1000))
        except redis.RedisError as error:
            _log.warning("lease not renewed: %s", type(error).__name__)
            return False
        if not extended:
            self._lost = "somebody else took it or it ran out"
            return False
        self._deadline = before + self._seconds - _MARGIN
        return True

    def _renew(self) -> None:
        while not self._done.wait(self._seconds / RENEWALS_PER_LEASE):
            self._extend()
            if self._lost is not None:
                _log.error("the lease was lost: %s", self._lost)
                return
            if self.remaining() <= 0:
                self._lost = "it could not be renewed in time"


class LeaseKeeper:
    """Holds at most one lease for the length of a run, from whichever step takes it."""

    def __init__(self) -> None:
        self._lease: Lease | None = None

    def keep(self, lease: Lease) -> None:
        """Takes over the duty to give the lease back, after giving back an earlier one."""
        self.release()
        self._lease = lease

    @property
    def lease(self) -> Lease:
        """The lease.

        Raises:
            LeaseLost: If none was taken.
        """
        if self._lease is None:
            raise LeaseLost("no lease was taken in this run")
        return self._lease

    def release(self) -> None:
        """Gives the lease back, if one was taken; never raises."""
        if self._lease is not None:
            self._lease.release()
            self._lease = None


def acquire(client: "redis.Redis", *, run_id: str, seconds: float, fence_floor: int = 0) -> Lease:
    """Takes the lease, at once or not at all.

    Args:
        client: Client with a short time-out and no retries of its own.
        run_id: Named to whoever finds the lease held.
        seconds: Time to live; renewed several times within it.
        fence_floor: Highest fencing token known to the ledger: the next one is above it even when
            Redis lost its counter.

    Raises:
        LeaseHeld: If somebody else holds it.
        RedisUnavailable: If Redis does not answer.
    """
    value = json.dumps(
        {
            "holder": f"{socket.gethostname()} pid {os.getpid()}",
            "run_id": run_id,
            "since": time.time(),
            "token": secrets.token_hex(16),
        }
    )
    fence, before = 0, 0.0
    for attempt in (1, 2):
        before = time.monotonic()
        try:
            # Repeating is safe: the script also succeeds when the key already holds our value,
            # which is what a lost answer to the first call leaves behind.
            fence = int(
                client.eval(_ACQUIRE, 2, KEY, FENCE_KEY, value, int(seconds * 1000), fence_floor)
            )
            break
        except redis.RedisError as error:
            if attempt == 2:
                raise RedisUnavailable(_unavailable(error)) from error
    if not fence:
        held = holder(client)
        raise LeaseHeld(held.describe() if held else "somebody who has just left")
    return Lease(
        client, value=value, fence=fence, seconds=seconds, deadline=before + seconds - _MARGIN
    )


def holder(client: "redis.Redis") -> Holder | None:
    """Who holds the lease now, or ``None``.

    Raises:
        RedisUnavailable: If Redis does not answer.
    """
    try:
        value = text_at(client, KEY)
    except redis.RedisError as error:
        raise RedisUnavailable(_unavailable(error)) from error
    if value is None:
        return None
    try:
        read = json.loads(value)
        return Holder(str(read["holder"]), str(read["run_id"]), float(read["since"]))
    except (ValueError, KeyError, TypeError):
        return Holder("unknown", "unknown", 0.0)


def _unavailable(error: redis.RedisError) -> str:
    return (
        f"Redis cannot be reached ({why(error)}): start the one that ZLH_REDIS_URL names or,"
        " where that is not set, `zlh up`"
    )
