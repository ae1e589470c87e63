"""Every kind of fault does what its name says, and ends when it should."""

import json
import time

import httpx
import pytest

from zlh_dagster.sandbox.containers import Container
from zlh_dagster.sandbox.fault_kinds import FAULT_KINDS
from zlh_dagster.sandbox.faults import UnknownFault

BACKEND = {"server_name": "mc-5000", "address": "10.60.0.1", "port": 25565}
A_FIELDS = {"domain": "mc-5000.example.gg", "type": "A", "ipAddress": "10.70.0.2"}


@pytest.fixture
def published(edge, address):
    """Ten records in Cloudflare, one more in Technitium, one backend, one container."""
    posts = [{**address, "name": f"mc-{5000 + n}"} for n in range(10)]
    edge.cloudflare("POST", "/batch", json={"posts": posts})
    edge.technitium("add", **A_FIELDS)
    edge.velocity("POST", "register", BACKEND)
    edge.sandbox.edge.containers.put(Container(5000, "mc-5000"))
    edge.control("DELETE", "requests")
    return edge


def _technitium_listing(edge) -> httpx.Response:
    return edge.http.post(
        f"{edge.sandbox.url}/api/zones/records/get",
        data={
            "domain": "example.gg",
            "zone": "example.gg",
            "listZone": "true",
            "token": edge.sandbox.config.technitium_token,
        },
    )


def _read(edge, surface: str) -> httpx.Response:
    if surface == "cloudflare":
        return edge.cloudflare("GET")
    if surface == "technitium":
        return _technitium_listing(edge)
    if surface == "velocity":
        return edge.velocity("GET", "list")
    if surface == "proxmox":
        return edge.proxmox()
    return edge.discord("GET", "info")


def _write(edge, surface: str, address) -> httpx.Response:
    if surface == "cloudflare":
        return edge.cloudflare("POST", json={**address, "name": "mc-6001"})
    if surface == "technitium":
        return edge.http.post(
            f"{edge.sandbox.url}/api/zones/records/add",
            data={
                **A_FIELDS,
                "domain": "mc-6001.example.gg",
                "token": edge.sandbox.config.technitium_token,
            },
        )
    if surface == "velocity":
        return edge.velocity("POST", "register", {**BACKEND, "server_name": "mc-6001"})
    return edge.discord("POST", "info?wait=true", {"content": "mc-6001"})


def _holds_the_write(edge, surface: str) -> bool:
    state = edge.sandbox.edge
    found = {
        "cloudflare": lambda: state.cloudflare.named("mc-6001.example.gg"),
        "technitium": lambda: state.technitium.named("mc-6001.example.gg"),
        "velocity": lambda: [b for b in state.velocity.backends() if b.name == "mc-6001"],
        "discord": state.discord.inbox,
    }[surface]()
    return bool(found)


WRITTEN = ("cloudflare", "technitium", "velocity", "discord")
SURFACES = (*WRITTEN, "proxmox")
LISTED = ("cloudflare", "technitium", "velocity", "proxmox")

every_surface = pytest.mark.parametrize("surface", SURFACES)
every_written_surface = pytest.mark.parametrize("surface", WRITTEN)
every_listed_surface = pytest.mark.parametrize("surface", LISTED)


@every_surface
def test_status_answers_with_the_code(published, surface):
    """In the provider's own words, with Retry-After when asked for."""
    published.fail(surface, "status", code=429, retry_after=7)
    response = _read(published, surface)
    assert response.status_code == 429
    assert response.headers["retry-after"] == "7"
    body = response.json()
    if surface == "cloudflare":
        assert body["errors"][0]["code"] == 10429
    if surface == "discord":
        assert (body["retry_after"], body["global"]) == (7, False)
    published.fail(surface, "status")
    response = _read(published, surface)
    assert response.status_code == 500
    assert "retry-after" not in response.headers


def test_status_can_carry_any_body(published):
    """Text as text, anything else as JSON."""
    published.fail("velocity", "status", code=502, body="bad gateway")
    assert _read(published, "velocity").text == "bad gateway"
    published.fail("velocity", "status", code=400, body={"error": "no"})
    assert _read(published, "velocity").json() == {"error": "no"}


def test_a_deleted_webhook_answers_with_its_own_code(edge):
    """404 means code 10015 there."""
    edge.fail("discord", "status", code=404)
    assert _read(edge, "discord").json()["code"] == 10015


@every_surface
def test_hang_keeps_silent_and_then_closes(published, surface):
    """The connection ends without an answer."""
    published.fail(surface, "hang", seconds=0.2)
    began = time.monotonic()
    with pytest.raises(httpx.RemoteProtocolError):
        _read(published, surface)
    assert 0.15 < time.monotonic() - began < 2


def test_a_hanging_call_does_not_hold_up_others(published):
    """Only the faulty surface is silent, and a caller may leave early."""
    published.fail("cloudflare", "hang", seconds=30)
    with pytest.raises(httpx.ReadTimeout):
        published.cloudflare("GET", timeout=0.1)
    assert _read(published, "velocity").status_code == 200


@every_surface
def test_disconnect_gives_no_answer(published, surface):
    """The connection closes at once; the journal has the call without a status."""
    published.fail(surface, "disconnect")
    with pytest.raises(httpx.RemoteProtocolError):
        _read(published, surface)
    [entry] = published.control("GET", f"requests?surface={surface}").json()
    assert (entry["status"], entry["fault"]) == (None, "disconnect")


@every_surface
def test_html_is_a_page_with_status_200(published, surface):
    """As a proxy in between would send."""
    published.fail(surface, "html")
    response = _read(published, surface)
    assert response.status_code == 200
    assert response.headers["content-type"].startswith("text/html")
    assert response.text.startswith("<!DOCTYPE html>")


@every_surface
def test_truncated_json_is_half_of_the_true_body(published, surface):
    """HTTP itself has nothing to complain of."""
    whole = _read(published, surface).content
    published.fail(surface, "truncated_json")
    response = _read(published, surface)
    assert response.status_code == 200
    assert int(response.headers["content-length"]) == len(response.content)
    assert whole.startswith(response.content)
    assert len(response.content) == len(whole) // 2
    with pytest.raises(json.JSONDecodeError):
        response.json()


@pytest.mark.parametrize(
    ("surface", "status"),
    [
        ("cloudflare", 403),
        ("technitium", 200),
        ("velocity", 401),
        ("discord", 401),
        ("proxmox", 401),
    ],
)
def test_invalid_token_is_told_as_the_provider_does(published, surface, status):
    """Technitium says so with status 200."""
    published.fail(surface, "invalid_token")
    response = _read(published, surface)
    assert response.status_code == status
    if surface == "technitium":
        assert response.json()["status"] == "invalid-token"


def _page(edge, page: int) -> httpx.Response:
    return edge.cloudflare("GET", params={"page": page, "per_page": 4})


def test_missing_page_fails_on_that_page_alone(published):
    """The pages around it are there."""
    published.fail("cloudflare", "missing_page", page=2)
    assert [_page(published, n).status_code for n in (1, 2, 3)] == [200, 500, 200]


def test_missing_page_can_be_empty(published):
    """The totals still promise it."""
    published.fail("cloudflare", "missing_page", page=2, answer="empty")
    body = _page(published, 2).json()
    assert body["result"] == []
    assert body["result_info"] == {
        "page": 2,
        "per_page": 4,
        "count": 0,
        "total_count": 10,
        "total_pages": 3,
    }
    assert len(_page(published, 1).json()["result"]) == 4


def test_cut_short_cloudflare_listing_contradicts_its_total(published):
    """The last rows are gone, the total stays true."""
    published.fail("cloudflare", "cut_short", fraction=0.3)
    body = published.cloudflare("GET").json()
    assert len(body["result"]) == 7
    assert (body["result_info"]["count"], body["result_info"]["total_count"]) == (7, 10)


@pytest.mark.parametrize("surface", ["technitium", "velocity", "proxmox"])
def test_cut_short_without_a_total_is_broken_json(published, surface):
    """There is no number that could give it away."""
    whole = _read(published, surface).content
    published.fail(surface, "cut_short", fraction=0.25)
    response = _read(published, surface)
    assert len(response.content) == int(len(whole) * 0.75)
    with pytest.raises(json.JSONDecodeError):
        response.json()


def test_empty_listings_do_not_contradict_themselves(published):
    """Nothing at all, and totals of zero; Technitium loses even its SOA."""
    for surface in LISTED:
        published.fail(surface, "empty")
    cloudflare = _read(published, "cloudflare").json()
    assert cloudflare["success"] is True
    assert cloudflare["result"] == []
    assert cloudflare["result_info"]["total_count"] == 0
    assert cloudflare["result_info"]["total_pages"] == 0
    technitium = _read(published, "technitium").json()
    assert technitium["status"] == "ok"
    assert technitium["response"]["records"] == []
    assert technitium["response"]["zone"]["name"] == "example.gg"
    assert _read(published, "velocity").json() == {"servers": []}
    assert _read(published, "proxmox").json() == {"data": []}


def _rows(surface: str, response: httpx.Response):
    body = response.json()
    if surface == "cloudflare":
        return body["result"]
    if surface == "proxmox":
        return body["data"]
    return body["servers"] if surface == "velocity" else body["response"]["records"]


@every_listed_surface
def test_wrong_types_come_in_three_shapes(published, surface):
    """Another container, rows that are no objects, or fields that are lists."""
    published.fail(surface, "wrong_types")
    assert isinstance(_rows(surface, _read(published, surface)), dict)
    published.fail(surface, "wrong_types", where="rows")
    assert all(isinstance(row, str) for row in _rows(surface, _read(published, surface)))
    published.fail(surface, "wrong_types", where="fields")
    rows = _rows(surface, _read(published, surface))
    assert all(isinstance(row["name"], list) for row in rows)


@every_written_surface
def test_wrong_types_spoil_the_answer_to_a_write(edge, surface, address):
    """The write itself is done."""
    edge.fail(surface, "wrong_types")
    assert _write(edge, surface, address).status_code == 200
    assert _holds_the_write(edge, surface)


def test_huge_sends_as_much_as_it_was_told(published):
    """Without a length header, so that only counting helps."""
    published.fail("velocity", "huge", megabytes=3)
    response = _read(published, "velocity")
    assert "content-length" not in response.headers
    assert len(response.content) > 3_000_000


def test_a_caller_may_leave_a_huge_answer(published):
    """The server goes on serving."""
    published.fail("cloudflare", "huge", megabytes=500, times=1)
    headers = {"Authorization": "Bearer x"}
    with published.http.stream("GET", published.dns_records, headers=headers) as response:
        next(response.iter_bytes())
    assert _read(published, "cloudflare").status_code == 200


@every_written_surface
def test_an_ignored_write_says_yes_and_does_nothing(published, surface, address):
    """Reads are as ever."""
    published.fail(surface, "write_ignored")
    response = _write(published, surface, address)
    assert response.status_code == 200
    assert "mc-6001" in response.text
    assert not _holds_the_write(published, surface)
    assert _read(published, surface).status_code == 200


def test_an_ignored_delete_leaves_the_record(published):
    """Every kind of write is ignored, a batch too."""
    published.fail("cloudflare", "write_ignored")
    record = published.sandbox.edge.cloudflare.records()[3]
    assert published.cloudflare("DELETE", f"/{record.id}").status_code == 200
    batch = {"deletes": [{"id": record.id}]}
    assert published.cloudflare("POST", "/batch", json=batch).status_code == 200
    assert published.sandbox.edge.cloudflare.records()[3] == record


@every_written_surface
def test_a_lost_answer_leaves_the_write_done(published, surface, address):
    """The caller cannot know."""
    published.fail(surface, "write_answer_lost")
    with pytest.raises(httpx.RemoteProtocolError):
        _write(published, surface, address)
    assert _holds_the_write(published, surface)
    assert _read(published, surface).status_code == 200


def test_a_refused_write_that_is_ignored_is_still_refused(published, address):
    """The answer is the one that the true state would give."""
    published.fail("cloudflare", "write_ignored")
    assert published.cloudflare("POST", json=address).status_code == 400


@every_written_surface
def test_a_fault_can_spare_reads_or_writes(edge, surface, address):
    """Each can be switched off alone."""
    edge.fail(surface, "status", code=503, reads=False)
    assert _read(edge, surface).status_code == 200
    assert _write(edge, surface, address).status_code == 503
    edge.fail(surface, "status", code=503, writes=False)
    assert _read(edge, surface).status_code == 503
    assert _write(edge, surface, address).is_success


def test_a_fault_ends_after_its_times(edge, address):
    """Only calls that it concerns count."""
    edge.fail("cloudflare", "status", code=503, times=2, reads=False)
    assert _read(edge, "cloudflare").status_code == 200
    assert _write(edge, "cloudflare", address).status_code == 503
    assert edge.control("GET", "faults").json()["cloudflare"]["times"] == 1
    assert _write(edge, "cloudflare", address).status_code == 503
    assert edge.control("GET", "faults").json() == {}
    assert _write(edge, "cloudflare", address).status_code == 200


def test_a_fault_is_switched_off(edge):
    """The surface is well at once; switching off what is well is no error."""
    edge.fail("velocity", "html")
    assert edge.control("DELETE", "faults/velocity").status_code == 204
    assert edge.control("DELETE", "faults/velocity").status_code == 204
    assert _read(edge, "velocity").json() == {"servers": []}


def test_active_faults_are_listed_with_their_options(edge):
    """Defaults included."""
    edge.fail("cloudflare", "cut_short", fraction=0.5)
    assert edge.control("GET", "faults").json() == {
        "cloudflare": {
            "kind": "cut_short",
            "fraction": 0.5,
            "reads": True,
            "writes": True,
            "times": None,
        }
    }


@pytest.mark.parametrize(
    ("surface", "body", "part"),
    [
        ("cloudflare", {"kind": "gremlins"}, ", ".join(FAULT_KINDS)),
        ("discord", {"kind": "empty"}, "no fault kind 'empty' for discord"),
        ("technitium", {"kind": "missing_page"}, "write_ignored"),
        ("nowhere", {"kind": "html"}, "cloudflare, technitium, velocity, discord, proxmox"),
        ("proxmox", {"kind": "write_ignored"}, "no fault kind 'write_ignored' for proxmox"),
        ("cloudflare", {"kind": "status", "codes": 500}, "code, retry_after, body"),
        ("cloudflare", {"kind": "status", "code": "500"}, "'code'"),
        ("cloudflare", {"kind": "status", "code": True}, "'code'"),
        ("cloudflare", {"kind": "status", "code": 99}, "'code'"),
        ("cloudflare", {"kind": "html", "times": 0}, "'times'"),
        ("cloudflare", {"kind": "cut_short", "fraction": 1.5}, "'fraction'"),
        ("cloudflare", {"kind": "hang", "seconds": -1}, "'seconds'"),
        ("cloudflare", {"kind": "wrong_types", "where": "nowhere"}, "'where'"),
        ("cloudflare", {}, "kind"),
        ("cloudflare", [], "kind"),
    ],
)
def test_a_fault_that_does_not_exist_is_refused(edge, surface, body, part):
    """Status 400, and the message names what there is."""
    response = edge.control("PUT", f"faults/{surface}", body)
    assert response.status_code == 400
    assert part in response.json()["error"]
    assert edge.control("GET", "faults").json() == {}


def test_faults_can_be_switched_on_from_python(edge):
    """With the same names and the same checks."""
    edge.sandbox.edge.faults.switch_on("velocity", "status", code=418)
    assert _read(edge, "velocity").status_code == 418
    edge.sandbox.edge.faults.switch_off("velocity")
    assert _read(edge, "velocity").status_code == 200
    with pytest.raises(UnknownFault, match="gremlins"):
        edge.sandbox.edge.faults.switch_on("velocity", "gremlins")
