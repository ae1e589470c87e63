"""Which of several deployments on one Redis decides: the leader; the others stand by.

Both observe. Only the leader asks for repairs; the lease protects the repairs themselves. A leader
that is gone is replaced when its key runs out, one lease time later.
"""

import json
import os
import socket
import time
import uuid
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import redis

from zlh_dagster.resources.redis import RedisUnavailable, text_at, why

KEY = "zlh:leader"
_IDENTITY = "deployment-id"

# The lead has an end from its first moment: a key without one is nobody's, and gets one here.
_TAKE = """
local held = redis.pcall('get', KEYS[1])
if held then
  local ok, value = pcall(cjson.decode, held)
  if not ok or type(value) ~= 'table' or value['id'] ~= ARGV[1] then
    if redis.call('pttl', KEYS[1]) == -1 then
      redis.call('pexpire', KEYS[1], ARGV[3])
    end
    return type(held) == 'string' and held or ''
  end
  redis.call('pexpire', KEYS[1], ARGV[3])
  return false
end
redis.call('set', KEYS[1], ARGV[2], 'PX', ARGV[3])
return false
"""
_RELEASE = """
local held = redis.pcall('get', KEYS[1])
if held then
  local ok, value = pcall(cjson.decode, held)
  if ok and type(value) == 'table' and value['id'] == ARGV[1] then
    return redis.call('del', KEYS[1])
  end
end
return 0
"""


@dataclass(frozen=True, slots=True)
class Leader:
    """Who leads and in which mode, as it stands in Redis; ``since`` in seconds since the epoch.

    ``deployment`` is the leader's identity.
    """

    name: str
    since: float
    mode: str = "unknown"
    deployment: str = ""


class Leadership:
    """Takes, keeps and gives back the lead.

    Args:
        client: Redis.
        home: State directory; holds this deployment's identity, unless it was given one.
        deployment: Its name, where the operator gave it one: all its machines have the same.
        seconds: Time to live of the lead; kept alive by every look of the sensor.
        mode: Whether this deployment writes, for ``zlh status``.
    """

    def __init__(
        self,
        client: "redis.Redis",
        *,
        home: Path,
        seconds: float,
        mode: str = "unknown",
        deployment: str | None = None,
    ) -> None:
        self._mode = mode
        self._deployment = deployment
        self._client = client
        self._home = home
        self._seconds = seconds

    def take(self) -> Leader | None:
        """Takes or keeps the lead; returns who has it when it is not ours.

        Raises:
            RedisUnavailable: If Redis does not answer.
        """
        identity = deployment_id(self._home, self._deployment)
        where = self._deployment or self._home
        name = f"{socket.gethostname()} ({where})"
        value = json.dumps({"id": identity, "name": name, "since": time.time(), "mode": self._mode})
        held = self._eval(_TAKE, identity, value, str(int(self._seconds * 1000)))
        return None if held is None else _read(held)

    def release(self) -> None:
        """Gives the lead back, if it is ours, so that a standby need not wait.

        Raises:
            RedisUnavailable: If Redis does not answer.
        """
        self._eval(_RELEASE, deployment_id(self._home, self._deployment))

    def current(self) -> Leader | None:
        """Who leads now, or ``None``.

        Raises:
            RedisUnavailable: If Redis does not answer.
        """
        try:
            held = text_at(self._client, KEY)
        except redis.RedisError as error:
            raise _unavailable(error) from error
        return None if held is None else _read(held)

    def _eval(self, script: str, *arguments: str) -> Any:
        try:
            return self._client.eval(script, 1, KEY, *arguments)
        except redis.RedisError as error:
            raise _unavailable(error) from error


def deployment_id(home: Path, given: str | None) -> str:
    """This deployment's identity: its given name, or one made once and kept below ``home``."""
    if given is not None:
        return given
    path = home / _IDENTITY
    try:
        kept = path.read_text().strip()
        if kept:
            return kept
        # What a full disk left behind; two deployments with no identity would both lead.
        path.unlink(missing_ok=True)
    except FileNotFoundError:
        pass
    home.mkdir(mode=0o700, parents=True, exist_ok=True)
    mine = path.with_name(f"{_IDENTITY}.{uuid.uuid4().hex}")
    try:
        mine.write_text(uuid.uuid4().hex)
        # Two processes may be first at once; the one whose name is taken reads the other's.
        os.link(mine, path)
    except FileExistsError:
        pass
    finally:
        mine.unlink(missing_ok=True)
    return path.read_text().strip()


def has_run(home: Path, given: str | None) -> bool:
    """Whether a controller of this deployment can have run: only that gives it an identity."""
    return given is not None or (home / _IDENTITY).exists()


def _read(held: str) -> Leader:
    try:
        value = json.loads(held)
        return Leader(
            str(value["name"]), float(value["since"]), str(value.get("mode")), str(value["id"])
        )
    except (ValueError, KeyError, TypeError):
        return Leader("unknown", 0.0)


def _unavailable(error: redis.RedisError) -> RedisUnavailable:
    return RedisUnavailable(f"Redis cannot be reached ({why(error)}): who leads is not known")
