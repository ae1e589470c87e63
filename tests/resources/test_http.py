"""The one way to call an outside system: bounded in time and size, precise about what failed."""

import contextlib
import socket
import time
import tracemalloc

import httpx
import pytest

from tests.resources.servers import (
    compressed_twice,
    dripping,
    dripping_head,
    serving,
    silent,
    sipping,
)
from zlh_dagster.resources import http as http_module
from zlh_dagster.resources.http import (
    USER_AGENT,
    EdgeError,
    HttpApi,
    RateLimited,
    Rejected,
    Unauthorized,
    Unreachable,
)


@pytest.fixture
def api():
    made = []

    def make(handler=None, *, base_url="https://api.example", timeout=1.0):
        transport = httpx.MockTransport(handler) if handler else None
        made.append(
            HttpApi("it", base_url, headers={"X-Key": "k"}, timeout=timeout, transport=transport)
        )
        return made[-1]

    yield make
    for one in made:
        one.close()


def says(status: int, content: bytes = b"{}", **headers: str):
    return lambda request: httpx.Response(status, content=content, headers=headers)


def test_only_what_may_pass_by_itself_is_worth_a_retry():
    retried = {kind for kind in EdgeError.__subclasses__() if kind.retry}
    assert retried == {Unreachable}
    assert {Rejected, RateLimited, Unauthorized} <= set(EdgeError.__subclasses__())


def test_status_and_parsed_body_come_back(api):
    assert api(says(200, b'{"a": [1]}')).call("GET", "/x") == (200, {"a": [1]})
    assert api(says(404, b'{"error": 1}')).call("GET", "/x") == (404, {"error": 1})


def test_every_call_names_its_sender_and_carries_its_headers(api):
    seen = []

    def handler(request):
        seen.append(request)
        return httpx.Response(200, json={})

    api(handler).call("POST", "/x", json={"a": 1})
    [request] = seen
    assert request.headers["User-Agent"] == USER_AGENT
    assert request.headers["X-Key"] == "k"
    assert str(request.url) == "https://api.example/x"


@pytest.mark.parametrize(
    ("status", "error"),
    [
        (401, Unauthorized),
        (403, Unauthorized),
        (429, RateLimited),
        (500, Unreachable),
        (502, Unreachable),
        (599, Unreachable),
        (301, Rejected),
        (304, Rejected),
    ],
)
def test_a_status_tells_what_to_do(api, status, error):
    with pytest.raises(error, match=f"it: HTTP {status}"):
        api(says(status)).call("GET", "/secret-path")


@pytest.mark.parametrize(
    ("header", "seconds"),
    [
        ({}, None),
        ({"Retry-After": "30"}, 30),
        ({"Retry-After": "0.5"}, 0.5),
        ({"Retry-After": "Wed, 21 Oct 2030 07:28:00 GMT"}, None),
        ({"Retry-After": "soon"}, None),
        ({"Retry-After": "nan"}, None),
        ({"Retry-After": "inf"}, None),
        ({"Retry-After": "-5"}, None),
    ],
)
def test_how_long_a_limit_lasts_is_a_number_of_seconds_or_unknown(api, header, seconds):
    with pytest.raises(RateLimited) as limited:
        api(says(429, **header)).call("GET", "/x")
    assert limited.value.retry_after == seconds


@pytest.mark.parametrize("body", [b"", b"<html>", b"{", b"\xff\xfe\x00", b"[" * 100_000])
def test_a_body_that_is_no_json_is_unreachable(api, body):
    with pytest.raises(Unreachable, match="it: HTTP 200 with a body that is not JSON"):
        api(says(200, body)).call("GET", "/x")


@pytest.mark.parametrize(
    "failure", [httpx.ConnectError, httpx.ReadTimeout, httpx.RemoteProtocolError]
)
def test_a_broken_connection_is_told_without_its_url(api, failure):
    def handler(request):
        raise failure("https://api.example/x?token=secret")

    with pytest.raises(Unreachable) as failed:
        api(handler).call("GET", "/x", params={"token": "secret"})
    told = failure.__name__
    if failure is httpx.ConnectError:
        told = "api.example cannot be reached (ConnectError)"
    assert str(failed.value) == f"it: {told}"
    assert failed.value.__suppress_context__, "nor is it in the traceback"


def test_no_answer_is_unpacked(api):
    """A few bytes could fill the memory."""
    with serving(compressed_twice) as port:
        one = api(base_url=f"http://127.0.0.1:{port}")
        tracemalloc.start()
        try:
            with pytest.raises(Unreachable, match="it: a compressed answer"):
                one.call("GET", "/x")
            assert tracemalloc.get_traced_memory()[1] < 5_000_000
        finally:
            tracemalloc.stop()


def test_answers_are_asked_for_as_they_are(api):
    seen = []

    def handler(request):
        seen.append(request.headers["Accept-Encoding"])
        return httpx.Response(200, content=b"{}", headers={"Content-Encoding": "Identity"})

    assert api(handler).call("GET", "/x") == (200, {})
    assert seen == ["identity"]


def test_a_read_is_tried_three_times_with_growing_pauses(api, monkeypatch):
    pauses = []
    monkeypatch.setattr(http_module.time, "sleep", pauses.append)
    one = api(says(503))
    with pytest.raises(Unreachable):
        one.read(lambda: one.call("GET", "/x"))
    assert one.requests == 3
    assert pauses == [0.3, 0.6]


@pytest.mark.parametrize("status", [401, 429, 302])
def test_what_cannot_pass_by_itself_is_not_repeated(api, status):
    one = api(says(status))
    with pytest.raises(EdgeError):
        one.read(lambda: one.call("GET", "/x"))
    assert one.requests == 1


def test_a_read_stops_repeating_when_its_time_is_over(api, monkeypatch):
    monkeypatch.setattr(http_module, "_READ_SECONDS", -1)
    one = api(says(503))
    with pytest.raises(Unreachable):
        one.read(lambda: one.call("GET", "/x"))
    assert one.requests == 1


def test_a_silent_server_costs_one_time_out(api):
    with serving(silent) as port:
        one = api(base_url=f"http://127.0.0.1:{port}", timeout=0.2)
        started = time.monotonic()
        with pytest.raises(Unreachable, match="ReadTimeout"):
            one.call("GET", "/x")
        assert time.monotonic() - started < 1


@pytest.mark.parametrize("does", [dripping, dripping_head])
def test_an_answer_that_drips_for_ever_is_given_up(api, does):
    """Each byte comes within the time-out; the whole does not."""
    with serving(does) as port:
        one = api(base_url=f"http://127.0.0.1:{port}", timeout=0.2)
        started = time.monotonic()
        with pytest.raises(Unreachable, match="did not end"):
            one.call("GET", "/x")
        assert time.monotonic() - started < 1.5


def test_a_server_that_takes_a_request_drop_by_drop_is_given_up(api):
    with serving(sipping) as port:
        one = api(base_url=f"http://127.0.0.1:{port}", timeout=0.2)
        started = time.monotonic()
        with pytest.raises(Unreachable, match="did not end"):
            one.call("POST", "/x", content=bytes(20_000_000))
        assert time.monotonic() - started < 1.5


def test_a_name_with_many_silent_addresses_costs_no_more_than_one_call(api, monkeypatch):
    """Connecting to each has a time-out; all of them together have one, too."""
    real = socket.getaddrinfo

    def resolve(host, *args, **options):
        return real("127.0.0.1", *args, **options) * (10 if host == "many.example" else 1)

    monkeypatch.setattr(socket, "getaddrinfo", resolve)
    with socket.create_server(("127.0.0.1", 0), backlog=0) as listener, contextlib.ExitStack() as o:
        for _ in range(3):  # a full queue lets nobody in
            waiting = o.enter_context(socket.socket())
            waiting.setblocking(False)
            waiting.connect_ex(listener.getsockname())
        one = api(base_url=f"http://many.example:{listener.getsockname()[1]}", timeout=0.2)
        started = time.monotonic()
        with pytest.raises(Unreachable, match="did not end"):
            one.call("GET", "/x")
        assert time.monotonic() - started < 1.2


def test_a_connection_is_used_again(api):
    """What bounds a call must not cost a connection for each."""
    opened = []

    def answers(connection, over):
        opened.append(connection)
        while connection.recv(65536):
            connection.sendall(b"HTTP/1.1 200 It\r\nContent-Length: 2\r\n\r\n{}")

    with serving(answers) as port:
        one = api(base_url=f"http://127.0.0.1:{port}", timeout=0.3)
        for _ in range(3):
            assert one.call("GET", "/x") == (200, {})
            time.sleep(0.4)  # a deadline is a call's own
        one.close()
    assert len(opened) == 1


def test_an_endless_body_is_given_up_early(api, monkeypatch):
    monkeypatch.setattr(http_module, "_MAX_ANSWER_BYTES", 100_000)
    sent = []

    def pieces():
        while True:
            sent.append(1)
            yield b"x" * 10_000

    with pytest.raises(Unreachable, match="more than"):
        api(lambda request: httpx.Response(200, content=pieces())).call("GET", "/x")
    assert len(sent) < 20
