"""Agents: asked side by side within a deadline, never outside the allowed networks."""

import asyncio
import errno
import ipaddress
import json
import socket
import time
from collections import Counter

import pytest

from tests.resources.agents import (
    HEALTHY,
    agents,
    continuing,
    dripping,
    dripping_head,
    endless,
    http,
    silent,
)
from zlh_dagster.core.fleet import AGENT_COLUMNS
from zlh_dagster.resources import agent_round
from zlh_dagster.resources.agents import TIMEOUT, probe, read_state, stop_workload
from zlh_dagster.resources.http import (
    EdgeError,
    Incomplete,
    RateLimited,
    Rejected,
    Unauthorized,
    Unreachable,
)

LOOPBACK = [ipaddress.ip_network("127.0.0.0/8"), ipaddress.ip_network("::1/128")]
ONE, TWO, THREE = "127.0.0.1", "127.0.0.2", "127.0.0.3"


@pytest.fixture
def fleet():
    with agents(ONE, TWO, THREE) as made:
        yield made


def ask(fleet, *addresses, **options) -> list[dict]:
    """Rows of a probe of these addresses, VMIDs counted from 5000."""
    given = {"networks": LOOPBACK, "with_state": (), "timeout": 1.0, "deadline": 10.0, **options}
    frame = probe(enumerate(addresses, 5000), port=fleet.port, **given)
    assert dict(frame.dtypes.astype(str)) == AGENT_COLUMNS
    assert list(frame["vmid"]) == list(range(5000, 5000 + len(addresses)))
    assert list(frame["address"]) == list(addresses)
    return frame.to_dict("records")


def answers(rows) -> list[str]:
    return [row["answer"] for row in rows]


def asked(fleet) -> Counter:
    return Counter(fleet.asked)


def test_every_agent_is_asked_once_and_only_for_its_health(fleet):
    rows = ask(fleet, ONE, TWO, THREE)
    assert answers(rows) == ["healthy"] * 3
    assert [(row["state"], row["detail"]) for row in rows] == [(None, None)] * 3
    assert asked(fleet) == {(ip, "GET", "/health"): 1 for ip in (ONE, TWO, THREE)}


def test_a_fleet_without_containers_is_an_empty_frame(fleet):
    assert ask(fleet) == []


@pytest.mark.parametrize("status", [201, 204, 302, 404, 418, 500, 503])
def test_an_answer_other_than_200_is_unhealthy_and_tells_its_status(fleet, status):
    fleet.does[(TWO, "/health")] = http("", status, f"Location: http://{THREE}:{fleet.port}/x")
    rows = ask(fleet, ONE, TWO)
    assert answers(rows) == ["healthy", "unhealthy"]
    assert rows[1]["detail"] == f"HTTP {status}"
    assert asked(fleet) == {(ONE, "GET", "/health"): 1, (TWO, "GET", "/health"): 1}


@pytest.mark.parametrize("said", [b"SSH-2.0-OpenSSH_9.2\r\n\r\n", b"\x00\x01\x02", b"HTTP/1.1 x"])
def test_what_is_not_http_is_unhealthy_for_somebody_answers(fleet, said):
    fleet.does["/health"] = said
    [row] = ask(fleet, ONE)
    assert (row["answer"], row["detail"]) == ("unhealthy", "answers, but not in HTTP")


def test_a_chunked_answer_is_an_answer(fleet):
    chunks = b"HTTP/1.1 200 It\r\nTransfer-Encoding: chunked\r\n\r\n2\r\n{}\r\n0\r\n\r\n"
    fleet.does["/health"] = chunks
    assert answers(ask(fleet, ONE)) == ["healthy"]


def test_the_request_names_its_sender_and_asks_for_nothing_compressed(fleet):
    ask(fleet, ONE)
    [head] = fleet.heads
    assert head.startswith("GET /health HTTP/1.1\r\n")
    assert f"Host: {ONE}:{fleet.port}\r\n" in head
    assert "User-Agent: zlh-dagster" in head
    assert "Accept-Encoding: identity\r\n" in head
    assert "Connection: close\r\n" in head


# --- silence -------------------------------------------------------------------------------------


@pytest.mark.parametrize("does", [silent, dripping, dripping_head, b""])
def test_who_says_nothing_whole_in_time_is_silent_and_is_asked_once_more(fleet, does):
    fleet.does[(TWO, "/health")] = does
    started = time.monotonic()
    rows = ask(fleet, ONE, TWO, THREE)
    assert answers(rows) == ["healthy", "silent", "healthy"]
    assert asked(fleet)[(TWO, "GET", "/health")] == 2
    assert asked(fleet)[(ONE, "GET", "/health")] == 1
    assert time.monotonic() - started < 5
    assert rows[1]["detail"] in ("no whole answer within 1 s", "closed without an answer")


def test_nobody_listening_is_silent(fleet):
    [row] = ask(fleet, "127.0.0.99")
    assert (row["answer"], row["detail"]) == ("silent", "Connection refused")


def test_who_answers_at_the_second_question_is_healthy(fleet):
    async def second_time(writer):
        if asked(fleet)[(ONE, "GET", "/health")] == 1:
            await silent(writer)
        writer.write(HEALTHY)
        await writer.drain()

    fleet.does[(ONE, "/health")] = second_time
    [row] = ask(fleet, ONE)
    assert (row["answer"], row["detail"]) == ("healthy", None)


def test_the_second_question_comes_after_all_the_first(fleet):
    fleet.does[(ONE, "/health")] = b""
    ask(fleet, ONE, TWO, THREE, TWO, THREE, connections=1)
    assert [ip for ip, _, _ in fleet.asked] == [ONE, TWO, THREE, TWO, THREE, ONE]


@pytest.mark.parametrize("does", [endless, continuing])
def test_an_answer_without_end_is_cut_off_at_64_kib(fleet, does):
    """Its status counts if it had one; what was read stays small, and time is not used up."""
    fleet.does["/health"] = does
    started = time.monotonic()
    [row] = ask(fleet, ONE, timeout=5.0)
    assert row["answer"] == ("healthy" if does is endless else "unhealthy")
    assert time.monotonic() - started < 2


# --- the deadline --------------------------------------------------------------------------------


@pytest.mark.parametrize("does", [silent, dripping, dripping_head])
def test_the_deadline_bounds_everything(fleet, does):
    fleet.does["/health"] = does
    started = time.monotonic()
    rows = ask(fleet, *[ONE] * 50, connections=5, timeout=0.5, deadline=0.8)
    assert time.monotonic() - started < 1.3
    assert Counter(answers(rows)) == {"silent": 5, "unknown": 45}


def test_who_was_not_asked_in_time_is_unknown_and_not_silent(fleet):
    fleet.does[(ONE, "/health")] = silent
    rows = ask(fleet, ONE, TWO, connections=1, timeout=5.0, deadline=0.3)
    assert answers(rows) == ["unknown", "unknown"]
    assert rows[0]["detail"] == "the deadline came before its answer"
    assert rows[1]["detail"] == "the deadline came before its answer"
    assert asked(fleet)[(TWO, "GET", "/health")] == 0


def test_silence_stays_silence_when_the_second_question_has_no_time_left(fleet):
    fleet.does[(ONE, "/health")] = silent
    [row] = ask(fleet, ONE, timeout=0.4, deadline=0.5)
    assert (row["answer"], row["detail"]) == ("silent", "no whole answer within 0.4 s")


@pytest.mark.parametrize("number", [errno.EMFILE, errno.ENETUNREACH, errno.EADDRNOTAVAIL])
def test_a_failure_on_this_side_says_nothing_about_the_agent(fleet, monkeypatch, number):
    async def fail(*arguments):
        raise OSError(number, "it")

    monkeypatch.setattr(agent_round, "exchange", fail)
    assert answers(ask(fleet, ONE)) == ["unknown"]


# --- many ----------------------------------------------------------------------------------------


def test_open_connections_are_bounded_and_none_is_kept(fleet):
    async def slowly(writer):
        await asyncio.sleep(0.005)
        writer.write(HEALTHY)
        await writer.drain()

    fleet.does["/health"] = slowly
    rows = ask(fleet, *[ONE, TWO, THREE] * 100, connections=20)
    assert Counter(answers(rows)) == {"healthy": 300}
    assert fleet.most <= 20
    give_up = time.monotonic() + 2
    while fleet.open and time.monotonic() < give_up:
        time.sleep(0.01)
    assert fleet.open == 0


def test_one_in_a_hundred_silent_costs_little_more_than_their_time_outs(fleet):
    """Of 1,000: two questions to each silent one, all of them side by side with the rest.

    The agents answer from this process too: few connections at once and a long time-out, so that
    a busy machine does not make a healthy one silent.
    """
    fleet.does[(THREE, "/health")] = silent
    addresses = [THREE if n % 100 == 99 else (ONE, TWO)[n % 2] for n in range(1_000)]
    started = time.monotonic()
    rows = ask(fleet, *addresses, connections=32, timeout=4.0, deadline=60.0)
    took = time.monotonic() - started
    assert Counter(answers(rows)) == {"healthy": 990, "silent": 10}
    assert took < 40, "one after the other the silent ones alone would take 80 s"


# --- addresses -----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "address",
    [
        None,
        "",
        "mc-5000",
        "localhost",
        "127.0.0.1:22",
        "127.1",
        "2130706433",
        "0x7f.0.0.1",
        "127.0.0.1/8",
        "127.0.0.1@evil.example",
        "8.8.8.8",
        "169.254.169.254",
        "0.0.0.0",
        "255.255.255.255",
        "224.0.0.1",
        "::",
        "::1%lo",
        "fe80::1",
        "[::1]",
        "127.0.0.1\r\nX: y",
    ],
)
def test_no_address_of_one_host_in_the_networks_is_refused_and_never_called(
    fleet, monkeypatch, address
):
    called = []

    async def exchange(*arguments):
        called.append(arguments)
        raise OSError

    monkeypatch.setattr(agent_round, "exchange", exchange)
    [row] = ask(fleet, address)
    assert row["answer"] == "refused"
    assert row["detail"].startswith("agent: ")
    assert called == []
    for act in (read_state, stop_workload):
        with pytest.raises(Rejected):
            act(address, fleet.port, LOOPBACK)
    assert fleet.asked == []


def test_an_address_outside_names_the_setting(fleet):
    [row] = ask(fleet, "8.8.8.8")
    assert row["detail"] == "agent: 8.8.8.8 is outside the networks of ZLH_AGENT_NETWORKS"


def test_without_networks_nobody_is_called(fleet):
    assert answers(ask(fleet, ONE, networks=[])) == ["refused"]
    assert fleet.asked == []


def test_one_refused_address_costs_only_itself(fleet):
    assert answers(ask(fleet, ONE, None, TWO)) == ["healthy", "refused", "healthy"]


def test_an_ipv6_agent_is_called_and_named_in_brackets():
    try:
        socket.create_server(("::1", 0), family=socket.AF_INET6).close()
    except OSError:
        pytest.skip("this machine has no IPv6 loopback")
    with agents("::1") as fleet:
        assert answers(ask(fleet, "0:0:0:0:0:0:0:1")) == ["healthy"]
        assert f"Host: [::1]:{fleet.port}\r\n" in fleet.heads[0]
        assert read_state("::1", fleet.port, LOOPBACK) == "running"


# --- state ---------------------------------------------------------------------------------------


def test_the_state_is_asked_only_where_it_is_wanted(fleet):
    rows = ask(fleet, ONE, TWO, THREE, with_state={5001})
    assert [row["state"] for row in rows] == [None, "running", None]
    assert asked(fleet)[(TWO, "GET", "/status")] == 1
    assert len(fleet.asked) == 4


def test_an_unhealthy_agent_may_still_tell_the_state_and_a_silent_one_is_not_asked(fleet):
    fleet.does[(ONE, "/health")] = http("", 503)
    fleet.does[(TWO, "/health")] = silent
    rows = ask(fleet, ONE, TWO, with_state={5000, 5001})
    assert [(row["answer"], row["state"]) for row in rows] == [
        ("unhealthy", "running"),
        ("silent", None),
    ]
    assert asked(fleet)[(TWO, "GET", "/status")] == 0


NO_STATE = [
    http("", 500),
    http("", 404),
    http("not JSON"),
    http("[]"),
    http("{}"),
    http('{"state": null}'),
    http('{"state": 1}'),
    http('{"state": "\\ud800"}'),
    http("[" * 60_000),
    http('{"state": "' + "x" * 100_000 + '"}'),
    b"SSH\r\n\r\n",
    b"",
    silent,
    dripping,
    endless,
]


@pytest.mark.parametrize("does", NO_STATE)
def test_a_state_that_cannot_be_read_is_none_and_the_agent_is_healthy_all_the_same(fleet, does):
    fleet.does["/status"] = does
    [row] = ask(fleet, ONE, with_state={5000})
    assert (row["answer"], row["state"]) == ("healthy", None)


@pytest.mark.parametrize("does", NO_STATE)
def test_reading_the_state_alone_says_why_it_cannot_be_read(fleet, does):
    fleet.does["/status"] = does
    with pytest.raises(EdgeError, match=f"agent {ONE}: "):
        read_state(ONE, fleet.port, LOOPBACK, timeout=0.4)


def test_a_state_is_a_word_and_no_story(fleet):
    fleet.does["/status"] = http(json.dumps({"state": "x" * 1000}))
    assert read_state(ONE, fleet.port, LOOPBACK) == "x" * 64


# --- stopping ------------------------------------------------------------------------------------


@pytest.mark.parametrize("status", [200, 202, 204])
def test_stopping_is_one_post_and_any_2xx_accepts_it(fleet, status):
    fleet.does["/stop"] = http("", status)
    assert stop_workload(ONE, fleet.port, LOOPBACK) is None
    assert fleet.asked == [(ONE, "POST", "/stop")]
    assert "Content-Length: 0\r\n" in fleet.heads[0]


@pytest.mark.parametrize(
    ("does", "error"),
    [
        (http("", 302, "Location: /x"), Rejected),
        (http("", 401), Unauthorized),
        (http("", 404), Rejected),
        (http("", 409), Rejected),
        (http("", 429), RateLimited),
        (http("", 500), Unreachable),
        (b"", Unreachable),
        (b"SSH\r\n\r\n", Unreachable),
        (silent, Unreachable),
        (dripping, Unreachable),
    ],
)
def test_a_stop_that_was_not_accepted_is_an_error_and_is_never_repeated(fleet, does, error):
    fleet.does["/stop"] = does
    started = time.monotonic()
    with pytest.raises(error, match=f"agent {ONE}: "):
        stop_workload(ONE, fleet.port, LOOPBACK, timeout=0.4)
    assert fleet.asked == [(ONE, "POST", "/stop")]
    assert time.monotonic() - started < 1


@pytest.mark.parametrize("act", [read_state, stop_workload])
def test_nobody_there_is_unreachable(fleet, act):
    with pytest.raises(Unreachable, match=r"agent 127\.0\.0\.99: Connection refused"):
        act("127.0.0.99", fleet.port, LOOPBACK)


def test_the_state_is_incomplete_only_where_the_agent_answered(fleet):
    fleet.does["/status"] = http("{}")
    with pytest.raises(Incomplete):
        read_state(ONE, fleet.port, LOOPBACK)
    assert TIMEOUT <= 3
