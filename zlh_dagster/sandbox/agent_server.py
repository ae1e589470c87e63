"""All agents of the fleet, served by one thread."""

import asyncio
import contextlib
import socket
import threading
from urllib.parse import urlsplit

from zlh_dagster.sandbox.agent_api import AgentRequest, agent_answer, is_stop, on_the_wire
from zlh_dagster.sandbox.agent_listeners import AgentListeners
from zlh_dagster.sandbox.containers import Agent, Container
from zlh_dagster.sandbox.edge import Edge
from zlh_dagster.sandbox.exchange import Answer

_JOIN_SECONDS = 10
_KEPT_CONNECTIONS = 1000
_HUGE_HEAD = b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nConnection: close\r\n\r\n"
_CHUNK = b"x" * 65_536
_HUGE_CHUNKS = 1000


class AgentServer:
    """HTTP for every container that runs, at the container's address and one port."""

    def __init__(self, edge: Edge) -> None:
        self._edge = edge
        self._loop: asyncio.AbstractEventLoop | None = None
        self._listeners: AgentListeners | None = None
        self._ended: asyncio.Event | None = None
        self._thread: threading.Thread | None = None
        self._connections: set[asyncio.Task[None]] = set()

    def start(self, port: int = 0) -> int:
        """Listen for the agents there are, and for those that come.

        Returns:
            The port; 0 takes a free one.

        Raises:
            OSError: If the port is taken.
        """
        ready = threading.Event()
        self._thread = threading.Thread(
            target=lambda: asyncio.run(self._main(ready)), name="sandbox-agents", daemon=True
        )
        self._thread.start()
        ready.wait(_JOIN_SECONDS)
        assert self._listeners is not None  # noqa: S101 - the thread has just made it
        try:
            chosen = self._listeners.reserve(port)
            self._edge.containers.watch(self._follow)
        except OSError:
            self.stop()
            raise
        return chosen

    def stop(self) -> None:
        """Stop listening, and drop every connection."""
        self._edge.containers.watch(None)
        if self._thread is None or self._loop is None or self._ended is None:
            return
        self._loop.call_soon_threadsafe(self._ended.set)
        self._thread.join(_JOIN_SECONDS)
        self._thread = self._loop = self._ended = self._listeners = None

    async def _main(self, ready: threading.Event) -> None:
        self._loop = asyncio.get_running_loop()
        self._ended = asyncio.Event()
        self._listeners = AgentListeners(self._loop, self._accepted)
        ready.set()
        try:
            await self._ended.wait()
        finally:
            self._listeners.close()

    def _follow(self, vmid: int, container: Container | None) -> None:
        if self._listeners is not None:
            reachable = container is not None and container.reachable
            self._listeners.set(vmid, container.address if container and reachable else None)

    def _accepted(self, vmid: int, connection: socket.socket) -> None:
        task = asyncio.ensure_future(self._serve(vmid, connection))
        self._connections.add(task)
        task.add_done_callback(self._connections.discard)

    async def _serve(self, vmid: int, connection: socket.socket) -> None:
        address = connection.getsockname()[0]
        reader, writer = await asyncio.open_connection(sock=connection)
        try:
            # A caller that leaves, or sends what is no HTTP, is no matter.
            with contextlib.suppress(OSError, EOFError, ValueError, asyncio.LimitOverrunError):
                while await self._exchange(vmid, address, reader, writer):
                    pass
                writer.close()
                await writer.wait_closed()
        finally:
            writer.transport.abort()

    async def _exchange(
        self, vmid: int, address: str, reader: asyncio.StreamReader, writer: asyncio.StreamWriter
    ) -> bool:
        """Answer one request; whether the connection stays for another."""
        request = await _read(reader)
        edge = self._edge
        with edge.lock:
            container = edge.containers.get(vmid)
            if container is None or not container.reachable or container.address != address:
                return False
            answer = self._answer(container, request)
        agent = container.agent
        if agent.mode == "silent":
            while await reader.read(len(_CHUNK)):
                pass
            return False
        if agent.mode == "huge":
            return await _pour(writer)
        keep_alive = request.keep_alive and len(self._connections) < _KEPT_CONNECTIONS
        return await _send(writer, on_the_wire(answer, keep_alive=keep_alive), agent) and keep_alive

    def _answer(self, container: Container, request: AgentRequest) -> Answer:
        """The answer, noted in the journal; a stop begins here."""
        edge, mode = self._edge, container.agent.mode
        answer = agent_answer(container, request)
        n = edge.journal.begin(
            surface="agents",
            method=request.method,
            path=request.path,
            query=request.query,
            write=request.method != "GET",
            vmid=container.vmid,
        )
        edge.journal.finish(
            n,
            status=None if mode == "silent" else answer.status,
            fault=None if mode == "healthy" else mode,
        )
        stops = is_stop(container, request) and edge.containers.begin_stop(container.vmid)
        if stops and self._loop is not None:
            seconds = container.agent.stop_seconds
            self._loop.call_later(seconds, edge.containers.finish_stop, container.vmid)
        return answer


async def _read(reader: asyncio.StreamReader) -> AgentRequest:
    head = (await reader.readuntil(b"\r\n\r\n")).decode("latin-1")
    first, *lines = head.rstrip("\r\n").split("\r\n")
    method, target, version = first.split(" ")
    headers = {}
    for line in lines:
        name, _, value = line.partition(":")
        headers[name.strip().lower()] = value.strip().lower()
    await reader.readexactly(int(headers.get("content-length", "0")))
    parts = urlsplit(target)
    keep_alive = version == "HTTP/1.1" and headers.get("connection") != "close"
    return AgentRequest(method, parts.path, parts.query, keep_alive)


async def _send(writer: asyncio.StreamWriter, data: bytes, agent: Agent) -> bool:
    if agent.mode == "slow":
        await asyncio.sleep(agent.seconds)
    pieces = [data]
    if agent.mode == "dripping":
        pieces = [data[n : n + 1] for n in range(len(data))]
    for n, piece in enumerate(pieces):
        if n:
            await asyncio.sleep(agent.seconds)
        writer.write(piece)
        await writer.drain()
    return True


async def _pour(writer: asyncio.StreamWriter) -> bool:
    """An answer that goes on and on, without saying beforehand how long it is."""
    writer.write(_HUGE_HEAD + b'{"status":"')
    for _ in range(_HUGE_CHUNKS):
        writer.write(_CHUNK)
        await writer.drain()
    writer.write(b'"}')
    return False
