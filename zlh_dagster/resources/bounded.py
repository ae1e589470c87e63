"""HTTP clients whose calls end: one deadline over connecting, TLS, sending, and the whole answer.

Answers are asked for as they are: a thousand bytes can unpack to more than the memory holds.

httpx has a time-out for each step and for each read of a socket, so that a server which drips
bytes is waited for as long as it likes. Below :func:`within` each of these time-outs is no longer
than what is left. Only the system's resolver has time-outs of its own: when it took too long,
nothing is sent.
"""

import contextlib
import math
import socket
import ssl
import time
from collections.abc import Iterable, Iterator, Mapping
from contextvars import ContextVar
from typing import Any

import httpcore
import httpx

_PIECE_BYTES = 16 * 1024
"""Sent at a time: httpcore gives each part that a server takes the whole time-out again."""

_ends: ContextVar[float] = ContextVar("ends", default=math.inf)


@contextlib.contextmanager
def within(seconds: float) -> Iterator[None]:
    """Ends what a client of :func:`bounded_client` does in here, with a time-out of httpx."""
    kept = _ends.set(time.monotonic() + seconds)
    try:
        yield
    finally:
        _ends.reset(kept)


def bounded_client(*, headers: Mapping[str, str] | None = None, **options: Any) -> httpx.Client:
    """A client that heeds :func:`within`; the options are httpx's own."""
    client = httpx.Client(headers={"Accept-Encoding": "identity", **(headers or {})}, **options)
    for transport in (client._transport, *client._mounts.values()):
        if isinstance(transport, httpx.HTTPTransport):
            # httpcore's pools take a backend, but httpx hands none through.
            transport._pool._network_backend = _Backend()
    return client


def is_compressed(response: httpx.Response) -> bool:
    """Whether reading the body would unpack it, in spite of what was asked for."""
    encoding: str = response.headers.get("Content-Encoding", "identity")
    return encoding.strip().lower() != "identity"


def _left(timeout: float | None, late: type[Exception]) -> float:
    left = _ends.get() - time.monotonic()
    if left <= 0:
        raise late("the deadline is over")
    return left if timeout is None else min(timeout, left)


class _Stream(httpcore.NetworkStream):
    """A connection on which no step lasts longer than what is left."""

    def __init__(self, inner: httpcore.NetworkStream) -> None:
        self._inner = inner

    def read(self, max_bytes: int, timeout: float | None = None) -> bytes:
        return self._inner.read(max_bytes, _left(timeout, httpcore.ReadTimeout))

    def write(self, buffer: bytes, timeout: float | None = None) -> None:
        for start in range(0, len(buffer), _PIECE_BYTES):
            piece = buffer[start : start + _PIECE_BYTES]
            self._inner.write(piece, _left(timeout, httpcore.WriteTimeout))

    def close(self) -> None:
        self._inner.close()

    def start_tls(
        self,
        ssl_context: ssl.SSLContext,
        server_hostname: str | None = None,
        timeout: float | None = None,
    ) -> httpcore.NetworkStream:
        left = _left(timeout, httpcore.ConnectTimeout)
        return _Stream(self._inner.start_tls(ssl_context, server_hostname, left))

    def get_extra_info(self, info: str) -> Any:
        return self._inner.get_extra_info(info)


class _Backend(httpcore.SyncBackend):
    """Opens such connections; all addresses of a name share what is left."""

    def connect_tcp(
        self,
        host: str,
        port: int,
        timeout: float | None = None,
        local_address: str | None = None,
        socket_options: Iterable[httpcore.SOCKET_OPTION] | None = None,
    ) -> httpcore.NetworkStream:
        try:
            found = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)
        except OSError as error:
            raise httpcore.ConnectError(str(error)) from error
        failure: Exception = httpcore.ConnectError("the name has no address")
        for *_, (address, *_) in found:
            left = _left(timeout, httpcore.ConnectTimeout)
            try:
                stream = super().connect_tcp(
                    str(address), port, left, local_address, socket_options
                )
            except (httpcore.ConnectError, httpcore.ConnectTimeout) as error:
                failure = error
            else:
                return _Stream(stream)
        raise failure
