"""Responses that end badly on the wire."""

import asyncio
import threading
import time
from typing import Any

from starlette.responses import Response
from starlette.types import Receive, Scope, Send
from uvicorn.protocols.http.h11_impl import H11Protocol

_TRANSPORT = "sandbox_transport"
_SLICE_SECONDS = 0.05
_CHUNK = b"x" * 65536


class HangUpProtocol(H11Protocol):
    """HTTP/1.1 that lets a response reach its own connection, to close it."""

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        super().connection_made(transport)
        self.app_state = {**self.app_state, _TRANSPORT: transport}

    def shutdown(self) -> None:
        """End the connection; at once when its reader has stalled in the middle of an answer."""
        super().shutdown()
        if self.flow.write_paused:
            self.transport.abort()


class HangUp(Response):
    """No answer at all: the connection stays silent for a while, then closes."""

    def __init__(self, seconds: float, closing: threading.Event) -> None:
        super().__init__()
        self._seconds = seconds
        self._closing = closing

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        gone = asyncio.ensure_future(_disconnected(receive))
        until = time.monotonic() + self._seconds
        while not gone.done() and not self._closing.is_set():
            left = until - time.monotonic()
            if left <= 0:
                break
            await asyncio.wait({gone}, timeout=min(_SLICE_SECONDS, left))
        scope["state"][_TRANSPORT].close()
        await gone


class Huge(Response):
    """An answer that goes on and on, without saying beforehand how long it is."""

    def __init__(self, megabytes: float) -> None:
        super().__init__()
        self._length = int(megabytes * 1_000_000)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        headers = [(b"content-type", b"application/json")]
        await send({"type": "http.response.start", "status": 200, "headers": headers})
        await send(_part(b'{"padding":"'))
        left = self._length
        transport = scope["state"][_TRANSPORT]
        while left > 0 and not transport.is_closing():
            await send(_part(_CHUNK[:left]))
            left -= len(_CHUNK)
        await send({"type": "http.response.body", "body": b'"}', "more_body": False})


async def pause(seconds: float, closing: threading.Event) -> None:
    """Wait, though not longer than the server lives."""
    until = time.monotonic() + seconds
    while (left := until - time.monotonic()) > 0 and not closing.is_set():
        await asyncio.sleep(min(_SLICE_SECONDS, left))


def _part(body: bytes) -> dict[str, Any]:
    return {"type": "http.response.body", "body": body, "more_body": True}


async def _disconnected(receive: Receive) -> None:
    while (await receive())["type"] != "http.disconnect":
        pass
