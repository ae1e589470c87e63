"""Agents on loopback addresses that answer, misbehave or keep silent."""

import asyncio
import contextlib
import threading
from collections.abc import Awaitable, Callable, Iterator
from dataclasses import dataclass, field

Behaviour = bytes | Callable[[asyncio.StreamWriter], Awaitable[None]]


def http(body: str = "{}", status: int = 200, *headers: str) -> bytes:
    head = [f"HTTP/1.1 {status} It", f"Content-Length: {len(body.encode())}", *headers]
    return ("\r\n".join(head) + "\r\n\r\n" + body).encode()


HEALTHY = http('{"ok": true}')
RUNNING = http('{"state": "running"}')


async def silent(writer: asyncio.StreamWriter) -> None:
    await asyncio.sleep(60)


async def dripping(writer: asyncio.StreamWriter) -> None:
    """A head at once, and a body that never ends, one byte at a time."""
    writer.write(b"HTTP/1.1 200 It\r\nContent-Length: 1000000\r\n\r\n")
    while True:
        writer.write(b" ")
        await writer.drain()
        await asyncio.sleep(0.01)


async def dripping_head(writer: asyncio.StreamWriter) -> None:
    writer.write(b"HTTP/1.1 200 It\r\nX: ")
    while True:
        writer.write(b"x")
        await writer.drain()
        await asyncio.sleep(0.01)


async def endless(writer: asyncio.StreamWriter) -> None:
    """As fast as it can, until the other side leaves."""
    writer.write(b"HTTP/1.1 200 It\r\nTransfer-Encoding: chunked\r\n\r\n")
    while True:
        writer.write(b"1000\r\n" + b"x" * 0x1000 + b"\r\n")
        await writer.drain()


async def continuing(writer: asyncio.StreamWriter) -> None:
    """Promises an answer for ever."""
    while True:
        writer.write(b"HTTP/1.1 100 Continue\r\n\r\n" * 100)
        await writer.drain()


@dataclass
class Agents:
    """What they do, by address and path or by path alone; and what was asked of them."""

    port: int = 0
    does: dict[str | tuple[str, str], Behaviour] = field(default_factory=dict)
    asked: list[tuple[str, str, str]] = field(default_factory=list)
    heads: list[str] = field(default_factory=list)
    open: int = 0
    most: int = 0

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.open += 1
        self.most = max(self.most, self.open)
        try:
            head = (await reader.readuntil(b"\r\n\r\n")).decode()
            method, path, _ = head.splitlines()[0].split(" ")
            address = writer.get_extra_info("sockname")[0]
            self.asked.append((address, method, path))
            self.heads.append(head)
            does = self.does.get((address, path), self.does.get(path, HEALTHY))
            if isinstance(does, bytes):
                writer.write(does)
                await writer.drain()
            else:
                await does(writer)
        except (OSError, asyncio.IncompleteReadError):
            pass
        finally:
            self.open -= 1
            with contextlib.suppress(OSError):
                writer.close()


@contextlib.contextmanager
def agents(*addresses: str) -> Iterator[Agents]:
    """Agents at these loopback addresses, all on one port."""
    made, ready, over = Agents(does={"/status": RUNNING}), threading.Event(), []

    async def main() -> None:
        stop = asyncio.Event()
        over.append((asyncio.get_running_loop(), stop))
        first = await asyncio.start_server(made.serve, addresses[0], 0, backlog=1000)
        made.port = first.sockets[0].getsockname()[1]
        rest = [
            await asyncio.start_server(made.serve, address, made.port, backlog=1000)
            for address in addresses[1:]
        ]
        ready.set()
        await stop.wait()
        for server in (first, *rest):
            server.close()

    thread = threading.Thread(target=lambda: asyncio.run(main()))
    thread.start()
    try:
        assert ready.wait(10)
        yield made
    finally:
        loop, stop = over[0]
        loop.call_soon_threadsafe(stop.set)
        thread.join(10)
