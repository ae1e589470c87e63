"""Clients live for weeks in a warm worker: they outlive what they talk to."""

import socket
import subprocess
import tempfile
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
import redis

from tests.resources.servers import serving
from zlh_dagster.resources import http as http_module
from zlh_dagster.resources.http import HttpApi
from zlh_dagster.resources.redis import connect, server_program

OK = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\n{}"


def api(port: int) -> HttpApi:
    return HttpApi("it", f"http://127.0.0.1:{port}", headers={}, timeout=2)


def test_a_write_is_not_lost_on_a_connection_that_the_server_has_closed():
    """It keeps each connection for one answer, without saying so, as one that was restarted."""
    served, closed = [], threading.Event()

    def once(connection: socket.socket, over: threading.Event) -> None:
        served.append(connection.recv(65536).split()[0])
        connection.sendall(OK)
        connection.close()
        closed.set()

    with serving(once) as port:
        one = api(port)
        assert one.call("GET", "/x") == (200, {})
        assert closed.wait(5)
        assert one.call("POST", "/x", json={}) == (200, {})
        one.close()
    assert served == [b"GET", b"POST"]


@pytest.mark.parametrize(("idle", "connections"), [(5.0, 1), (0.0, 2)])
def test_a_connection_is_used_again_at_once_and_never_after_a_while(monkeypatch, idle, connections):
    monkeypatch.setattr(http_module, "_IDLE_SECONDS", idle)
    opened = []

    def always(connection: socket.socket, over: threading.Event) -> None:
        opened.append(connection)
        connection.settimeout(0.05)
        while not over.is_set():
            try:
                if not connection.recv(65536):
                    return
            except TimeoutError:
                continue
            connection.sendall(OK)

    with serving(always) as port:
        one = api(port)
        for _ in range(2):
            one.call("GET", "/x")
            time.sleep(0.01)
        one.close()
    assert len(opened) == connections


@contextmanager
def a_redis(folder: str) -> Iterator[str]:
    path = Path(folder) / "r.sock"
    process = subprocess.Popen(
        [server_program(), "--port", "0", "--unixsocket", str(path), "--dir", folder, "--save", ""],
        stdout=subprocess.DEVNULL,
    )
    url = f"unix://{path}"
    give_up = time.monotonic() + 10
    with connect(url) as probe:
        while True:
            try:
                probe.ping()
                break
            except redis.RedisError:
                assert time.monotonic() < give_up
                time.sleep(0.02)
    try:
        yield url
    finally:
        process.kill()
        process.wait()


def test_redis_may_be_restarted_under_its_client():
    """The first command after it is a success, though nothing is repeated."""
    with tempfile.TemporaryDirectory(prefix="zlh-redis-") as folder:
        with a_redis(folder) as url:
            client = connect(url)
            assert client.ping()
        with pytest.raises(redis.ConnectionError):
            client.ping()
        with a_redis(folder):
            assert client.ping()
            assert client.set("a", "1")
        with a_redis(folder):
            assert client.get("a") is None
        client.close()
