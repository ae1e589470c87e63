"""A listing is complete and of the promised shape, or it is an error. There is nothing between."""

import json

import httpx
import pytest

from tests.resources.clients import (
    CF,
    HOST,
    SRV,
    SRV_CONTENT,
    TN,
    TOKENS,
    VE,
    answering,
    find,
    make_client,
)
from zlh_dagster.core.model import RECORD_COLUMNS, Record, Surface
from zlh_dagster.resources import http as http_module
from zlh_dagster.resources.http import (
    EdgeError,
    Incomplete,
    RateLimited,
    Rejected,
    Unauthorized,
    Unreachable,
)
from zlh_dagster.sandbox.cloudflare_records import new_record
from zlh_dagster.sandbox.config import SandboxConfig
from zlh_dagster.sandbox.server import Sandbox
from zlh_dagster.sandbox.technitium_records import TechnitiumRecord, address_data
from zlh_dagster.sandbox.velocity_api import Backend

SERVERS, MINECRAFT = 8, 7


def requests(sandbox, surface) -> list:
    return sandbox.edge.journal.entries(surface.value)


# --- a healthy edge ------------------------------------------------------------------------------


@pytest.mark.parametrize("surface", list(Surface))
def test_one_call_lists_a_whole_surface(client, sandbox, surface):
    one = client(surface)
    frame = one.list_records()
    assert dict(frame.dtypes.astype(str)) == RECORD_COLUMNS
    assert set(frame["surface"]) == {surface.value}
    assert one.requests == len(requests(sandbox, surface)) == 1


def test_cloudflare_is_read_as_records(client):
    frame = client(CF).list_records()
    assert len(frame) == 2 * SERVERS + 4, "the zone's A, CNAME, A and SRV records; no MX, no TXT"
    a, srv = find(frame, HOST, "A"), find(frame, SRV, "SRV")
    assert (a.content, a.ttl, a.proxied, a.disabled) == ("203.0.113.10", 60, False, False)
    assert (srv.content, srv.ttl, srv.proxied) == (SRV_CONTENT, 60, None)
    assert a.record_id
    assert find(frame, "example.gg", "A").proxied is True
    assert find(frame, "www.example.gg", "CNAME").content == "example.gg"


def test_technitium_is_read_as_records(client, sandbox):
    old = TechnitiumRecord("old.example.gg", "A", address_data("10.70.0.2"), disabled=True)
    sandbox.edge.technitium.put(old)
    frame = client(TN).list_records()
    assert find(frame, HOST, "A") == Record(TN, HOST, "A", "10.70.0.2", 60)
    assert find(frame, SRV, "SRV").content == SRV_CONTENT
    assert find(frame, "old.example.gg", "A").disabled is True
    assert set(frame["type"]) == {"A", "SRV", "CNAME"}, "no SOA, no DNSSEC types"


def test_velocity_is_read_as_backends(client):
    frame = client(VE).list_records()
    assert len(frame) == MINECRAFT
    assert find(frame, "mc-5000", "BACKEND").content == "127.60.0.1:25565"


def test_an_automatic_ttl_is_no_number(client, sandbox):
    """Cloudflare reads it back as 1; comparing that would drift for ever."""
    sandbox.edge.cloudflare.put(new_record("auto.example.gg", "A", "203.0.113.10", ttl=1))
    assert find(client(CF).list_records(), "auto.example.gg", "A").ttl is None


def test_names_are_compared_in_lower_case_without_their_final_dot(client):
    record = {
        "id": "x",
        "name": "MC-1.Example.GG.",
        "type": "SRV",
        "ttl": 60,
        "content": "0 25565 MC-1.example.gg",
        "data": {"priority": 0, "weight": 0, "port": 25565, "target": "MC-1.Example.GG."},
    }
    info = {"page": 1, "per_page": 5000, "count": 1, "total_count": 1, "total_pages": 1}
    body = {"success": True, "errors": [], "result": [record], "result_info": info}
    frame = client(CF, transport=answering(body)).list_records()
    assert find(frame, "mc-1.example.gg", "SRV").content == "0 0 25565 mc-1.example.gg"


def test_an_empty_proxy_is_believed(client, sandbox):
    """Registrations are lost at a restart; the bridge that says so is up."""
    sandbox.edge.velocity.restart()
    assert client(VE).list_records().empty


def test_an_older_bridge_tells_names_alone():
    config = SandboxConfig(velocity_lists_addresses=False)
    with Sandbox(config) as sandbox:
        sandbox.edge.velocity.seed([Backend("Mc-1", "10.60.0.1", 25565)])
        one = make_client(sandbox, VE)
        frame = one.list_records()
        one.close()
    assert find(frame, "mc-1", "BACKEND").content is None


@pytest.mark.parametrize("address", ["fd00:0:0:0:0:0:0:10", "FD00::10", "fd00::10"])
def test_an_ipv6_backend_is_the_same_however_the_proxy_spells_it(client, sandbox, address):
    """Java prints IPv6 addresses without abbreviation; that must not look like another address."""
    sandbox.edge.velocity.seed([Backend("mc-v6", address, 25565)])
    assert find(client(VE).list_records(), "mc-v6", "BACKEND").content == "[fd00::10]:25565"


def test_a_backend_may_be_named_by_a_host_name(client, sandbox):
    sandbox.edge.velocity.seed([Backend("lobby", "lobby.internal", 25566)])
    content = find(client(VE).list_records(), "lobby", "BACKEND").content
    assert content == "lobby.internal:25566"


# --- pages ---------------------------------------------------------------------------------------


@pytest.fixture
def large_zone(sandbox):
    sandbox.edge.cloudflare.put_all(
        new_record(f"r{n}.example.gg", "A", "203.0.113.10", ttl=60) for n in range(10_050)
    )
    return sandbox


def test_a_large_zone_is_paged_and_counted(client, large_zone):
    one = client(CF)
    frame = one.list_records()
    assert len(frame) == 10_050 + 2 * SERVERS + 4
    assert frame["record_id"].is_unique
    assert one.requests == 3
    pages = [e.query for e in requests(large_zone, CF)]
    assert pages == [f"page={n}&per_page=5000" for n in (1, 2, 3)]


@pytest.mark.parametrize("page", [1, 2, 3])
@pytest.mark.parametrize("answer", ["error", "empty"])
def test_a_page_that_does_not_come_spoils_the_listing(
    client, sandbox, no_pauses, monkeypatch, page, answer
):
    monkeypatch.setattr("zlh_dagster.resources.cloudflare.PER_PAGE", 10)
    assert len(client(CF).list_records()) == 20, "of three pages"
    sandbox.edge.faults.switch_on("cloudflare", "missing_page", page=page, answer=answer)
    with pytest.raises(Unreachable if answer == "error" else Incomplete):
        client(CF).list_records()


def cloudflare_page(records, page=1, pages=1, total=None):
    total = len(records) if total is None else total
    info = {"page": page, "per_page": 5000, "count": len(records)}
    return {
        "success": True,
        "errors": [],
        "result": records,
        "result_info": {**info, "total_count": total, "total_pages": pages},
    }


def cloudflare_a(n: int, **values):
    return {
        "id": f"id-{n}",
        "name": f"r{n}.example.gg",
        "type": "A",
        "content": "203.0.113.10",
        "ttl": 60,
        "proxied": False,
        **values,
    }


@pytest.mark.parametrize(
    ("pages", "said"),
    [
        ([cloudflare_page([cloudflare_a(1)], total=2)], "1 records listed, the total says 2"),
        ([cloudflare_page([cloudflare_a(1), cloudflare_a(2)], total=1)], "the total says 1"),
        ([cloudflare_page([], total=0, pages=0)], "came back empty"),
        ([cloudflare_page([cloudflare_a(1)], pages=101)], "more than the limit"),
        ([cloudflare_page([cloudflare_a(1)], pages=10**9)], "more than the limit"),
        (
            # A record was deleted between two pages, so one may have slipped from one to the next.
            [
                cloudflare_page([cloudflare_a(1)], 1, 2, total=3),
                cloudflare_page([cloudflare_a(2)], 2, 2, total=2),
            ],
            "the total changed from 3 to 2",
        ),
        (
            # A server that ignores the page number answers with the first page again.
            [cloudflare_page([cloudflare_a(1)], 1, 2, total=2)] * 2,
            "1 records listed, the total says 2",
        ),
    ],
)
def test_sums_that_do_not_match_are_an_incomplete_listing(client, pages, said):
    with pytest.raises(Incomplete, match=said):
        client(CF, transport=answering(*pages)).list_records()


def test_a_zone_without_its_soa_record_is_incomplete(client):
    record = {"name": HOST, "type": "A", "ttl": 60, "rData": {"ipAddress": "10.70.0.2"}}
    body = {"status": "ok", "response": {"records": [record]}}
    with pytest.raises(Incomplete, match="no SOA record"):
        client(TN, transport=answering(body)).list_records()


# --- every kind of fault -------------------------------------------------------------------------

FAULTS = [
    ("status", {"code": 500}, Unreachable, 3),
    ("status", {"code": 503}, Unreachable, 3),
    ("status", {"code": 429, "retry_after": 30}, RateLimited, 1),
    ("status", {"code": 401}, Unauthorized, 1),
    ("status", {"code": 403}, Unauthorized, 1),
    ("status", {"code": 404}, Rejected, 1),
    ("status", {"code": 400}, Rejected, 1),
    ("status", {"code": 302}, Rejected, 1),
    ("status", {"code": 200, "body": []}, (Unreachable, Incomplete), None),
    ("status", {"code": 200, "body": "null"}, (Unreachable, Incomplete), None),
    ("status", {"code": 200, "body": "[" * 100_000}, Unreachable, 3),
    ("status", {"code": 200, "body": ""}, Unreachable, 3),
    ("hang", {"seconds": 5}, Unreachable, 3),
    ("disconnect", {}, Unreachable, 3),
    ("html", {}, Unreachable, 3),
    ("truncated_json", {}, Unreachable, 3),
    ("invalid_token", {}, Unauthorized, 1),
    ("cut_short", {"fraction": 0.5}, EdgeError, None),
    ("cut_short", {"fraction": 0.01}, EdgeError, None),
    ("wrong_types", {"where": "container"}, Incomplete, 1),
    ("wrong_types", {"where": "rows"}, Incomplete, 1),
    ("wrong_types", {"where": "fields"}, Incomplete, 1),
    ("empty", {}, Incomplete, 1),
    ("huge", {"megabytes": 2}, Unreachable, 3),
]


# An empty list is an honest answer of a proxy that was restarted.
CASES = [(s, *fault) for s in Surface for fault in FAULTS if (s, fault[0]) != (VE, "empty")]


@pytest.mark.parametrize(("surface", "kind", "options", "error", "calls"), CASES)
def test_a_listing_that_fails_is_an_error_and_never_a_frame(
    client, sandbox, no_pauses, monkeypatch, surface, kind, options, error, calls
):
    """Reads are repeated three times at the most, a limit and a refusal not at all."""
    monkeypatch.setattr(http_module, "_MAX_ANSWER_BYTES", 1_000_000)
    sandbox.edge.faults.switch_on(surface.value, kind, **options)
    one = client(surface)
    with pytest.raises(error) as failed:
        one.list_records()
    assert str(failed.value).startswith(f"{surface.value}: ")
    for token in TOKENS:
        assert token not in str(failed.value)
        assert token not in repr(failed.value.__dict__)
    if calls is not None:
        # Technitium's token is tried in both forms, header and field, before it counts as refused.
        twice = surface is TN and error is Unauthorized
        assert len(requests(sandbox, surface)) == calls * (2 if twice else 1)
    sandbox.edge.faults.switch_off(surface.value)
    assert not one.list_records().empty, "the client works again when the surface does"


@pytest.mark.parametrize("surface", list(Surface))
@pytest.mark.parametrize("kind", ["disconnect", "html", "status"])
def test_a_read_that_fails_twice_is_had_at_the_third_time(
    client, sandbox, no_pauses, surface, kind
):
    sandbox.edge.faults.switch_on(surface.value, kind, times=2)
    assert not client(surface).list_records().empty
    assert len(requests(sandbox, surface)) == 3


@pytest.mark.parametrize("surface", list(Surface))
def test_nobody_there_is_unreachable(client, no_pauses, surface):
    with pytest.raises(Unreachable, match=r"127.0.0.1:1 cannot be reached \(Connection refused"):
        client(surface, base_url="http://127.0.0.1:1").list_records()


def test_a_limit_tells_how_long_it_lasts(client, sandbox):
    sandbox.edge.faults.switch_on("cloudflare", "status", code=429, retry_after=120)
    with pytest.raises(RateLimited) as limited:
        client(CF).list_records()
    assert limited.value.retry_after == 120


def test_cloudflares_refusal_is_told_with_its_code(client):
    one = client(CF, zone_id="0" * 32)
    with pytest.raises(Rejected, match=r"HTTP 404, 7003 Could not route"):
        one.list_records()


@pytest.mark.parametrize(
    "body",
    [
        {"result": []},
        {"success": None, "result": []},
        {"success": "true", "result": [], "result_info": {}},
        {"success": False},
        {"success": False, "errors": "many"},
        {"success": False, "errors": [1, None, {"code": "x"}]},
        {"success": True},
        {"success": True, "result": None, "result_info": {}},
        cloudflare_page([cloudflare_a(1, ttl=True)]),
        cloudflare_page([cloudflare_a(1, ttl=60.5)]),
        cloudflare_page([cloudflare_a(1, ttl=10**30)]),
        cloudflare_page([cloudflare_a(1, proxied="no")]),
        cloudflare_page([cloudflare_a(1, type=["A"])]),
        cloudflare_page([cloudflare_a(1, type=None)]),
        cloudflare_page([cloudflare_a(1, name=None)]),
        cloudflare_page([cloudflare_a(1, name="\ud800")]),
        cloudflare_page([cloudflare_a(1, type="SRV", data=None)]),
        cloudflare_page([cloudflare_a(1, type="SRV")]),
        cloudflare_page([{k: v for k, v in cloudflare_a(1).items() if k != "type"}]),
        cloudflare_page([None]),
        cloudflare_page([cloudflare_a(1)], total=True),
        cloudflare_page([cloudflare_a(1)], pages="1"),
    ],
)
def test_cloudflare_of_another_shape_is_an_edge_error(client, no_pauses, body):
    # With its escapes, as an answer on the wire spells what UTF-8 cannot.
    answer = httpx.Response(200, content=json.dumps(body).encode())
    with pytest.raises(EdgeError):
        client(CF, transport=answering(answer)).list_records()


SOA = {"name": "example.gg", "type": "SOA", "ttl": 900, "rData": {}}


@pytest.mark.parametrize(
    "record",
    [
        {"name": HOST, "type": "A", "ttl": 60, "rData": {}},
        {"name": HOST, "type": "A", "ttl": 60, "rData": {"ipAddress": 5}},
        {"name": HOST, "type": "A", "ttl": "60", "rData": {"ipAddress": "10.70.0.2"}},
        {"name": HOST, "type": "A", "ttl": 10**30, "rData": {"ipAddress": "10.70.0.2"}},
        {"name": HOST, "type": ["A"], "ttl": 60, "rData": {"ipAddress": "10.70.0.2"}},
        {"name": HOST, "ttl": 60, "rData": {"ipAddress": "10.70.0.2"}},
        {"name": None, "type": "A", "ttl": 60, "rData": {"ipAddress": "10.70.0.2"}},
        {"name": HOST, "type": "SRV", "ttl": 60, "rData": {"port": 1, "target": "x"}},
        {"name": HOST, "type": "CNAME", "ttl": 60, "rData": {"cname": None}},
        {"name": HOST, "type": "A", "ttl": 60, "rData": None},
        "row",
        None,
    ],
)
def test_technitium_of_another_shape_is_an_edge_error(client, record):
    body = {"status": "ok", "response": {"records": [SOA, record]}}
    with pytest.raises(Incomplete):
        client(TN, transport=answering(body)).list_records()


@pytest.mark.parametrize(
    "server",
    [
        {"name": 5},
        {"name": None, "address": "10.60.0.1", "port": 25565},
        {"name": "a", "address": 5, "port": 25565},
        {"name": "a", "address": "10.60.0.1", "port": "25565"},
        {"name": "a", "address": "10.60.0.1", "port": True},
        {"address": "10.60.0.1", "port": 25565},
        "a",
        None,
        ["a"],
    ],
)
def test_velocity_of_another_shape_is_an_edge_error(client, server):
    with pytest.raises(Incomplete):
        client(VE, transport=answering({"servers": [server]})).list_records()


@pytest.mark.parametrize("disabled", ["true", "false", 1, None, []])
def test_a_record_of_which_nobody_knows_whether_it_is_served_is_refused(client, disabled):
    soa = {"name": "gg", "type": "SOA", "ttl": 900, "rData": {}}
    record = {"name": "a.gg", "type": "A", "ttl": 60, "rData": {"ipAddress": "10.0.0.1"}}
    listed = {"records": [soa, {**record, "disabled": disabled}]}
    body = {"status": "ok", "response": listed}
    with pytest.raises(Incomplete, match="'disabled' is"):
        client(TN, transport=answering(body)).list_records()
