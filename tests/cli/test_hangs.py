"""Who lives and does not work."""

import contextlib
import os
import signal
import socket
import subprocess
import sys
import threading

import pytest

from tests.stack.stack import free_port, until
from zlh_dagster.cli.children import Child
from zlh_dagster.cli.hangs import HANG_SECONDS, Hangs, serves_code
from zlh_dagster.web.alive import serves_web

SERVES_CODE = """
import concurrent.futures, grpc, sys, time
server = grpc.server(concurrent.futures.ThreadPoolExecutor(1))
server.add_insecure_port("unix:" + sys.argv[1])
server.start()
time.sleep(60)
"""


class Clock:
    now = 1000.0

    def __call__(self) -> float:
        return self.now


def child(name, **options):
    return Child(name, ["false"], {}, "/", **options)


def test_what_does_not_work_for_two_minutes_hangs_and_has_as_long_after_a_new_start():
    clock, answers = Clock(), True
    one, other = child("one", works=lambda: answers), child("other")
    hangs = Hangs([one, other], clock)
    clock.now += 10 * HANG_SECONDS
    assert list(hangs.once()) == []
    answers = False
    clock.now += HANG_SECONDS
    assert list(hangs.once()) == []
    clock.now += 1
    assert list(hangs.once()) == [one]
    one.started_at = clock.now
    clock.now += HANG_SECONDS
    assert list(hangs.once()) == []
    clock.now += 1
    assert list(hangs.once()) == [one]
    answers = True
    assert list(hangs.once()) == []


@pytest.fixture
def quick(monkeypatch):
    monkeypatch.setattr("zlh_dagster.cli.hangs._ANSWER_SECONDS", 1.0)
    monkeypatch.setattr("zlh_dagster.web.alive.ANSWER_SECONDS", 1.0)


def test_a_code_server_that_stands_still_does_not_answer(tmp_path, quick):
    path = str(tmp_path / "code.sock")
    assert not serves_code(path)
    server = subprocess.Popen([sys.executable, "-c", SERVES_CODE, path])
    try:
        until(lambda: serves_code(path), seconds=30, what="the code server")
        server.send_signal(signal.SIGSTOP)
        os.waitpid(server.pid, os.WUNTRACED)  # until then its threads may answer
        assert not serves_code(path)
        server.send_signal(signal.SIGCONT)
        until(lambda: serves_code(path), seconds=30, what="the code server, again")
    finally:
        server.kill()
        server.wait()


def test_a_web_server_that_takes_connections_and_says_nothing_does_not_work(quick):
    port = free_port()
    assert not serves_web("127.0.0.1", port)
    with socket.create_server(("127.0.0.1", port)) as silent:
        assert not serves_web("127.0.0.1", port)

        def answer() -> None:
            with contextlib.suppress(OSError):  # closed: the test is over
                while True:
                    connection, _ = silent.accept()
                    if connection.recv(1000):  # those that gave up before are in the queue, too
                        connection.sendall(b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n")
                    connection.close()

        threading.Thread(target=answer, daemon=True).start()
        assert serves_web("127.0.0.1", port)
