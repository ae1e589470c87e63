"""Servers that misbehave on the wire."""

import contextlib
import gzip
import socket
import threading
import time
from collections.abc import Callable, Iterator

_SMALL = gzip.compress(gzip.compress(bytes(50_000_000)))


@contextlib.contextmanager
def serving(behave: Callable[[socket.socket, threading.Event], None]) -> Iterator[int]:
    """A TCP server on loopback that does ``behave`` with each connection; yields its port."""
    over = threading.Event()
    listener = socket.create_server(("127.0.0.1", 0))
    listener.settimeout(0.05)
    threads: list[threading.Thread] = []

    def one(connection: socket.socket) -> None:
        with connection, contextlib.suppress(OSError):
            behave(connection, over)

    def accept() -> None:
        while not over.is_set():
            with contextlib.suppress(TimeoutError):
                connection, _ = listener.accept()
                threads.append(threading.Thread(target=one, args=(connection,)))
                threads[-1].start()

    acceptor = threading.Thread(target=accept)
    acceptor.start()
    try:
        yield listener.getsockname()[1]
    finally:
        over.set()
        acceptor.join()
        for thread in threads:
            thread.join()
        listener.close()


def silent(connection: socket.socket, over: threading.Event) -> None:
    """Accepts, and never says a word."""
    over.wait(30)


def dripping(connection: socket.socket, over: threading.Event, status: int = 200) -> None:
    """Answers well-formed HTTP, one byte of its body at a time, for ever."""
    connection.recv(65536)
    connection.sendall(b"HTTP/1.1 %d It\r\nContent-Length: 1000000\r\n\r\n" % status)
    until = time.monotonic() + 30
    while not over.wait(0.02) and time.monotonic() < until:
        connection.sendall(b" ")


def dripping_head(connection: socket.socket, over: threading.Event) -> None:
    """Answers one byte of a well-formed head at a time, for ever."""
    connection.recv(65536)
    connection.sendall(b"HTTP/1.1 200 It\r\nX-Long: ")
    until = time.monotonic() + 6
    while not over.wait(0.02) and time.monotonic() < until:
        connection.sendall(b"x")


def sipping(connection: socket.socket, over: threading.Event) -> None:
    """Takes what it is sent a little at a time, for ever."""
    until = time.monotonic() + 6
    while not over.wait(0.02) and time.monotonic() < until:
        connection.recv(65536)


def compressed_twice(connection: socket.socket, over: threading.Event) -> None:
    """Answers a few hundred bytes that unpack to fifty million."""
    connection.recv(65536)
    connection.sendall(
        b"HTTP/1.1 200 It\r\nContent-Encoding: gzip, gzip\r\nContent-Length: %d\r\n\r\n%s"
        % (len(_SMALL), _SMALL)
    )
