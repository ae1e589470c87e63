"""One question to one agent over HTTP.

The protocol is h11's, over asyncio's own streams: with thousands of agents a minute, a pooled
client costs six times the processor time. Whoever asks bounds the time of the whole exchange, so
that a server which drips bytes is no different from one that says nothing. An address is called
only if it is one of a single host inside the allowed networks; names are never resolved and
redirects never followed.
"""

import asyncio
import ipaddress
import os
from collections.abc import Iterable

import h11

from zlh_dagster.core.names import InvalidServer, backend_content, container_address
from zlh_dagster.resources.edge import field
from zlh_dagster.resources.http import USER_AGENT, Incomplete, Rejected, parse_json

Network = ipaddress.IPv4Network | ipaddress.IPv6Network

MAX_ANSWER_BYTES = 64 * 1024
_PIECE_BYTES = 16 * 1024
_MAX_STATE = 64


class NotHttp(Exception):
    """Something answers there, but it is not HTTP."""


def allowed_address(ip: object, networks: Iterable[Network]) -> str:
    """The address of an agent as it may be called, in canonical form.

    Raises:
        Rejected: If it is none, or outside the networks.
    """
    try:
        text = container_address(ip)
    except InvalidServer as error:
        raise Rejected(f"agent: {error}") from None
    address = ipaddress.ip_address(text)
    # A zone (fe80::1%eth0) picks an interface of this machine, which no platform row may.
    if "%" in text or not any(address in network for network in networks):
        raise Rejected(f"agent: {text} is outside the networks of ZLH_AGENT_NETWORKS")
    return text


async def exchange(method: str, address: str, port: int, path: str) -> tuple[int, bytes]:
    """Sends one request without a body and reads the answer, cut off after 64 KiB.

    Returns:
        HTTP status and body.

    Raises:
        NotHttp: If what comes back is not HTTP, or its head does not end.
        OSError: If there is no connection, or it ends before the answer begins.
    """
    headers = [
        ("Host", backend_content(address, port)),
        ("User-Agent", USER_AGENT),
        ("Accept-Encoding", "identity"),
        ("Content-Length", "0"),
        ("Connection", "close"),
    ]
    protocol = h11.Connection(h11.CLIENT)
    request = protocol.send(h11.Request(method=method, target=path, headers=headers))
    protocol.send(h11.EndOfMessage())
    reader, writer = await asyncio.open_connection(address, port, limit=_PIECE_BYTES)
    try:
        writer.write(request or b"")
        return await _answer(protocol, reader)
    except h11.RemoteProtocolError as error:
        raise NotHttp(str(error)) from None
    finally:
        # Nothing is left to be sent; closing at once keeps open files within the connections.
        writer.transport.abort()


async def _answer(protocol: h11.Connection, reader: asyncio.StreamReader) -> tuple[int, bytes]:
    status, body, received = 0, bytearray(), 0
    while True:
        event = protocol.next_event()
        if event is h11.NEED_DATA:
            if received >= MAX_ANSWER_BYTES:
                break
            piece = await reader.read(min(_PIECE_BYTES, MAX_ANSWER_BYTES - received))
            if not piece and not received:
                raise ConnectionResetError("closed without an answer")
            received += len(piece)
            protocol.receive_data(piece)
        elif isinstance(event, h11.Response):
            status = event.status_code
        elif isinstance(event, h11.Data):
            body += event.data
        elif isinstance(event, h11.EndOfMessage):
            break
    if not status:
        raise NotHttp("the head of the answer does not end")
    return status, bytes(body)


def why(error: OSError) -> str:
    """A failed connection in the system's words, without addresses."""
    return os.strerror(error.errno) if error.errno else str(error) or type(error).__name__


def state_in(where: str, body: bytes) -> str:
    """The state of the server in an agent's answer.

    Raises:
        Incomplete: If it tells none.
    """
    try:
        answer = parse_json(body)
    except ValueError:
        raise Incomplete(f"{where}: its state is not JSON") from None
    state: str = field(answer, "state", str, where)
    return state[:_MAX_STATE]
