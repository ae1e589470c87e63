"""Whatever is answered to a question or a write is understood, or a documented error."""

import asyncio
import contextlib
import json

import httpx
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tests.resources.clients import CF, HOST, SRV, SRV_CONTENT, TN, VE, answering, missing
from tests.resources.test_listing_fuzz import client_of, places, replaced, values
from zlh_dagster.core.fleet import CONTAINER_COLUMNS
from zlh_dagster.core.messages import Message
from zlh_dagster.core.redact import Redactor
from zlh_dagster.core.rules import Severity
from zlh_dagster.resources import discord as discord_module
from zlh_dagster.resources import http as http_module
from zlh_dagster.resources.agent_http import MAX_ANSWER_BYTES, NotHttp, exchange, state_in
from zlh_dagster.resources.discord import LONGEST_WAIT, Discord
from zlh_dagster.resources.http import EdgeError
from zlh_dagster.resources.proxmox import Proxmox

quick = settings(
    max_examples=80, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
CONTAINERS = {
    "data": [
        {"vmid": 5000, "name": "mc-5000", "status": "running", "lock": "backup"},
        {"vmid": "5001", "status": "stopped"},
    ]
}
VERDICTS = {
    "cloudflare": {"success": False, "errors": [{"code": 81053, "message": "in the way"}]},
    "technitium": {"status": "error", "errorMessage": "record already exists"},
    "velocity": {"registered": True},
}
CHANGES = {
    "cloudflare": missing(CF, SRV, "SRV", SRV_CONTENT),
    "technitium": missing(TN, SRV, "SRV", SRV_CONTENT),
    "velocity": missing(VE, "mc-5000", "BACKEND", "10.0.0.1:25565"),
}
anything = values | st.integers(min_value=10**400, max_value=10**401) | st.just("²")
bodies = st.binary(max_size=60) | st.sampled_from(
    [b"[" * 30_000, b'{"a":' * 9_000, b"NaN", b"1e999"]
)


def answer_like(data, answer) -> bytes:
    """An answer with anything in one place, or bytes that are none."""
    if data.draw(st.booleans()):
        return data.draw(bodies)
    path = data.draw(st.sampled_from(places(answer)))
    return json.dumps(replaced(answer, path, data.draw(anything))).encode()


@quick
@given(data=st.data())
def test_a_list_of_containers_is_a_frame_or_an_edge_error(data, monkeypatch):
    monkeypatch.setattr(http_module, "_BACKOFF_SECONDS", 0.0)
    answer = httpx.Response(200, content=answer_like(data, CONTAINERS))
    client = Proxmox(
        base_url="https://x", node="n", token_id="i", token_secret="s", transport=answering(answer)
    )
    frame = None
    with contextlib.suppress(EdgeError):
        frame = client.list_containers()
    client.close()
    if frame is not None:
        assert dict(frame.dtypes.astype(str)) == CONTAINER_COLUMNS
        assert (frame["vmid"] > 0).all()


@pytest.mark.parametrize("surface", list(CHANGES))
@quick
@given(data=st.data(), status=st.sampled_from([200, 201, 400, 404, 409, 500]))
def test_an_answer_to_a_write_is_a_success_or_an_edge_error(surface, data, status):
    body = answer_like(data, VERDICTS[surface])
    client = client_of(surface, answering(httpx.Response(status, content=body)))
    with contextlib.suppress(EdgeError):
        client.apply(CHANGES[surface])
        assert status < 400
        if surface == "cloudflare":
            assert json.loads(body)["success"] is True
        if surface == "technitium":
            assert json.loads(body)["status"] == "ok"
    assert client.requests == 1
    client.close()


@quick
@given(data=st.data())
def test_what_an_agent_says_of_its_state_is_a_short_text_or_an_edge_error(data):
    body = answer_like(data, {"state": "running", "players": [1]})
    with contextlib.suppress(EdgeError):
        state = state_in("agent", body)
        assert len(state) <= 64
        state.encode()


HEADS = st.sampled_from(
    [
        b"HTTP/1.1 200 OK\r\n",
        b"HTTP/1.1 100 Continue\r\n\r\n",
        b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: x\r\n\r\n",
        b"HTTP/1.0 204 None\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n",
        b"Content-Length: 3\r\n",
        b"Content-Length: -1\r\n",
        b"Content-Length: 99999999999999999999\r\n\r\n",
        b"\r\n",
        b"3\r\nabc\r\n",
        b"0\r\n\r\n",
        b"fffffffff\r\n",
    ]
)


@quick
@given(pieces=st.lists(HEADS | st.binary(max_size=30), max_size=6))
def test_whatever_an_agent_sends_is_an_answer_or_a_documented_error(pieces):
    async def told() -> tuple[int, bytes]:
        async def serve(reader, writer):
            await reader.readuntil(b"\r\n\r\n")
            writer.writelines(pieces)
            writer.close()

        async with await asyncio.start_server(serve, "127.0.0.1", 0) as server:
            port = server.sockets[0].getsockname()[1]
            return await asyncio.wait_for(exchange("GET", "127.0.0.1", port, "/health"), 5)

    with contextlib.suppress(NotHttp, OSError):
        status, body = asyncio.run(told())
        assert 100 <= status < 1000
        assert len(body) <= MAX_ANSWER_BYTES


def discord_that_says(body: bytes, status: int) -> Discord:
    transport = httpx.MockTransport(lambda request: httpx.Response(status, content=body))
    url = f"https://discord.example/{HOST}"
    return Discord({Severity.INFO: url}, redactor=Redactor(), transport=transport)


@quick
@given(data=st.data())
def test_a_message_that_discord_took_is_taken_whatever_stands_in_its_answer(data):
    """Its identifier is a number that Discord can have given, or unknown."""
    body = answer_like(data, {"id": "123", "type": 0})
    name = discord_that_says(body, 200).post(Message(Severity.INFO, "t", ()))
    assert name is not None
    assert name == "" or 0 <= int(name) < 2**64
    assert name.isascii()


@quick
@given(data=st.data())
def test_how_long_discord_wants_to_be_left_alone_is_waited_for_within_bounds(data, monkeypatch):
    pauses = []
    monkeypatch.setattr(discord_module.time, "sleep", pauses.append)
    body = answer_like(data, {"retry_after": 0.5, "global": False})
    assert not discord_that_says(body, 429).send(Message(Severity.INFO, "t", ()))
    assert all(0 <= seconds <= LONGEST_WAIT for seconds in pauses)


@pytest.mark.parametrize(
    "body", [b'{"retry_after": 1%s}' % (b"0" * 400), b"[" * 30_000], ids=["huge", "deep"]
)
def test_a_limit_that_cannot_be_read_is_waited_for_as_long_as_any(body, monkeypatch):
    pauses = []
    monkeypatch.setattr(discord_module.time, "sleep", pauses.append)
    discord_that_says(body, 429).send(Message(Severity.INFO, "t", ()))
    assert pauses == [LONGEST_WAIT] * 2


@pytest.mark.parametrize(
    ("surface", "verdict"),
    [
        ("cloudflare", {"success": True, "errors": [], "result": {}}),
        ("technitium", {"status": "ok", "response": {}}),
        ("velocity", {}),
    ],
)
def test_a_good_verdict_under_a_bad_status_is_no_success(surface, verdict):
    """A proxy in between may answer for the system, or change what it says."""
    client = client_of(surface, answering(httpx.Response(400, json=verdict)))
    with pytest.raises(EdgeError, match="HTTP 400"):
        client.apply(CHANGES[surface])
    client.close()
