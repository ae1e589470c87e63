"""Redis: short waits, one clear error, and the server that the demo brings along."""

import contextlib
import time

import pytest
import redis

from tests.resources.servers import serving, silent
from zlh_dagster.resources import redis as redis_module
from zlh_dagster.resources.lease import acquire, holder
from zlh_dagster.resources.redis import (
    COMMAND_TIMEOUT,
    RedisUnavailable,
    connect,
    embedded_command,
    server_program,
    why,
)
from zlh_dagster.resources.table import RedisTable


def test_a_command_to_a_server_that_hangs_fails_within_its_time_out():
    assert COMMAND_TIMEOUT <= 2
    with serving(silent) as port, connect(f"redis://127.0.0.1:{port}") as client:
        started = time.monotonic()
        with pytest.raises(redis.TimeoutError):
            client.ping()
        assert time.monotonic() - started < COMMAND_TIMEOUT + 1


@pytest.fixture
def hanging(monkeypatch):
    """A client of a server that accepts and never answers, with a time-out of a fifth second."""
    monkeypatch.setattr(redis_module, "COMMAND_TIMEOUT", 0.2)
    with serving(silent) as port, connect(f"redis://127.0.0.1:{port}") as client:
        yield client


def test_a_lease_is_not_waited_for_when_redis_hangs(hanging):
    started = time.monotonic()
    with pytest.raises(RedisUnavailable, match=r"cannot be reached .*ZLH_REDIS_URL"):
        acquire(hanging, run_id="r", seconds=30)
    with pytest.raises(RedisUnavailable):
        holder(hanging)
    assert time.monotonic() - started < 2


@pytest.mark.parametrize(
    "url", ["unix:///nonexistent/redis.sock", "redis://127.0.0.1:1", "redis://nobody.invalid:1"]
)
def test_nobody_there_is_redis_unavailable(url):
    with connect(url) as client, pytest.raises(RedisUnavailable):
        acquire(client, run_id="r", seconds=30)


def test_a_password_is_in_no_error():
    url = "redis://:hunter22@127.0.0.1:1/0"
    with connect(url) as client, pytest.raises(RedisUnavailable) as failed:
        acquire(client, run_id="r", seconds=30)
    assert "hunter22" not in str(failed.value)


def test_a_server_on_the_path_is_preferred_to_the_wheels(monkeypatch, tmp_path):
    for name in ("valkey-server", "redis-server"):
        program = tmp_path / name
        program.write_text("#!/bin/sh\n")
        program.chmod(0o755)
        monkeypatch.setenv("PATH", str(tmp_path))
        assert server_program() == str(program), "redis-server first, where both are there"


def test_without_any_server_the_error_says_what_to_do(monkeypatch, tmp_path):
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.setattr(redis_module.importlib.util, "find_spec", lambda name: None)
    with pytest.raises(RedisUnavailable, match="set ZLH_REDIS_URL, or install redis-server"):
        server_program()


def test_the_embedded_server_listens_on_no_port(platform):
    """On a socket in a directory of its owner alone, with what it holds kept on disk."""
    settings = platform.settings(ZLH_REDIS_URL=None)
    command = embedded_command(settings)
    options = dict(zip(command[1::2], command[2::2], strict=True))
    assert options["--port"] == "0"
    assert options["--unixsocket"] == str(settings.socket("redis"))
    assert options["--unixsocketperm"] == "700"
    assert options["--appendonly"] == "yes"
    assert settings.socket("redis").parent.stat().st_mode & 0o077 == 0
    assert (settings.home / "redis").stat().st_mode & 0o077 == 0


def test_clients_do_not_repeat_commands_by_themselves(redis_url):
    """A repeated SET NX would take its own first success for somebody else's."""
    with connect(redis_url) as client, contextlib.closing(client.connection_pool):
        assert client.get_retry()._retries == 0
        assert client.set("zlh:x", "text")
        assert client.get("zlh:x") == "text", "answers are text, not bytes"


@pytest.mark.parametrize(
    ("url", "words"),
    [
        ("unix:///nonexistent/redis.sock", "no such file or directory"),
        ("redis://127.0.0.1:1", "connection refused"),
    ],
)
def test_what_keeps_redis_away_is_said_in_words(url, words):
    with connect(url) as client, pytest.raises(RedisUnavailable, match=rf"reached \({words}\)"):
        RedisTable(client, "key", "things").all()


@pytest.mark.parametrize(
    ("error", "words"),
    [
        (redis.TimeoutError("x"), "no answer in time"),
        (redis.AuthenticationError("x"), "it did not take the password"),
        (redis.ConnectionError("x"), "the connection was lost"),
        (redis.ResponseError("x"), "it answered with an error"),
    ],
)
def test_no_failure_is_told_by_the_name_of_a_class(error, words):
    assert why(error) == words
