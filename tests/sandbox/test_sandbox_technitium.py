"""The pretend Technitium answers as the real one does."""

from typing import Any

import httpx
import pytest

from zlh_dagster.sandbox.config import SandboxConfig
from zlh_dagster.sandbox.server import Sandbox

HOST = "mc-5000.example.gg"
SERVICE = f"_minecraft._tcp.{HOST}"
ADDRESS = {"domain": HOST, "type": "A", "ipAddress": "10.70.0.2"}
SRV = {
    "domain": SERVICE,
    "type": "SRV",
    "priority": "0",
    "weight": "0",
    "port": "25565",
    "target": HOST,
}


def _listed(edge, **fields: str) -> list[dict[str, Any]]:
    answer = edge.technitium("get", domain="example.gg", listZone="true", **fields)
    assert answer["status"] == "ok"
    return answer["response"]["records"]


def _own(edge) -> list[dict[str, Any]]:
    return [r for r in _listed(edge) if r["type"] not in ("SOA", "NS", "DNSKEY")]


def _error(answer: dict[str, Any]) -> str:
    assert answer["status"] == "error"
    return answer["errorMessage"]


@pytest.mark.parametrize("call", ["get", "add", "update", "delete"])
def test_a_wrong_token_is_told_with_status_200(edge, call):
    """The verdict is in the body alone."""
    url = f"{edge.sandbox.url}/api/zones/records/{call}"
    for headers in ({}, {"Authorization": "Bearer wrong"}):
        response = edge.http.get(url, headers=headers)
        assert response.status_code == 200
        assert response.json()["status"] == "invalid-token"


def test_the_token_may_come_as_header_query_or_form_field(edge):
    """All three are understood."""
    url = f"{edge.sandbox.url}/api/zones/records/get"
    token = edge.sandbox.config.technitium_token
    wanted = {"domain": "example.gg", "zone": "example.gg", "listZone": "true"}
    answers = [
        edge.http.get(url, params=wanted, headers={"Authorization": f"Bearer {token}"}),
        edge.http.get(url, params={**wanted, "token": token}),
        edge.http.post(url, data={**wanted, "token": token}),
        edge.http.post(url, params=wanted, data={"token": token}),
    ]
    assert [answer.json()["status"] for answer in answers] == ["ok"] * 4


def test_an_old_technitium_ignores_the_bearer_header():
    """Before version 15 only the field counts."""
    config = SandboxConfig(technitium_bearer=False)
    with Sandbox(config) as sandbox:
        url = f"{sandbox.url}/api/zones/records/get?domain=example.gg"
        headers = {"Authorization": f"Bearer {config.technitium_token}"}
        assert httpx.get(url, headers=headers).json()["status"] == "invalid-token"
        form = {"token": config.technitium_token}
        assert httpx.post(url, headers=headers, data=form).json()["status"] == "ok"


def test_a_new_zone_lists_its_head(edge):
    """SOA, NS and a DNSSEC key stand at the apex."""
    answer = edge.technitium("get", domain="example.gg", listZone="true")
    assert answer["response"]["zone"]["name"] == "example.gg"
    records = answer["response"]["records"]
    assert [(r["name"], r["type"]) for r in records] == [
        ("example.gg", "SOA"),
        ("example.gg", "NS"),
        ("example.gg", "DNSKEY"),
    ]


def test_added_records_are_listed_in_full(edge):
    """Names without a final dot, numbers as numbers, not disabled."""
    assert edge.technitium("add", ttl="60", comments="made by a test", **ADDRESS)["status"] == "ok"
    assert edge.technitium("add", ttl="60", **SRV)["status"] == "ok"
    address, service = _own(edge)
    assert address == {
        "disabled": False,
        "name": HOST,
        "type": "A",
        "ttl": 60,
        "rData": {"ipAddress": "10.70.0.2"},
        "dnssecStatus": "Unknown",
        "lastUsedOn": "0001-01-01T00:00:00",
        "comments": "made by a test",
    }
    assert service["rData"] == {"priority": 0, "weight": 0, "port": 25565, "target": HOST}


def test_a_ttl_left_out_is_an_hour(edge):
    """Whatever the neighbours have."""
    edge.technitium("add", **ADDRESS)
    assert _own(edge)[0]["ttl"] == 3600


def test_a_get_without_the_zone_listing_is_about_one_name(edge):
    """Only the records of the domain that was asked for."""
    edge.technitium("add", **ADDRESS)
    edge.technitium("add", **SRV)
    answer = edge.technitium("get", domain=HOST)
    assert [r["type"] for r in answer["response"]["records"]] == ["A"]


def test_adding_a_record_twice_is_an_error(edge):
    """Even with another TTL."""
    for fields in (ADDRESS, SRV):
        edge.technitium("add", **fields)
        message = _error(edge.technitium("add", ttl="60", **fields))
        assert message == "Cannot add record: record already exists."


def test_adding_another_value_makes_a_second_record(edge):
    """Nothing is replaced unless it is asked for."""
    edge.technitium("add", **ADDRESS)
    edge.technitium("add", **{**ADDRESS, "ipAddress": "10.70.0.3"})
    assert len(_own(edge)) == 2


def test_overwriting_replaces_the_whole_record_set(edge):
    """All records of that name and type, and none other."""
    edge.technitium("add", **ADDRESS)
    edge.technitium("add", **{**ADDRESS, "ipAddress": "10.70.0.3"})
    edge.technitium("add", **SRV)
    edge.technitium("add", overwrite="true", **{**ADDRESS, "ipAddress": "10.70.0.4"})
    assert [r["rData"].get("ipAddress") for r in _own(edge)] == [None, "10.70.0.4"]


def test_a_cname_stands_alone(edge):
    """It neither joins other records nor lets others join."""
    edge.technitium("add", **ADDRESS)
    _error(edge.technitium("add", domain=HOST, type="CNAME", cname="example.gg"))
    edge.technitium("add", domain=f"www.{HOST}", type="CNAME", cname="example.gg")
    _error(edge.technitium("add", **{**ADDRESS, "domain": f"www.{HOST}"}))


@pytest.mark.parametrize(
    ("fields", "part"),
    [
        ({"domain": ""}, "'domain' missing"),
        ({"type": ""}, "'type' missing"),
        ({"ipAddress": ""}, "'ipAddress' missing"),
        ({"ipAddress": "nonsense"}, "Invalid IP address"),
        ({"ipAddress": "2001:db8::1"}, "address family"),
        ({"ttl": "soon"}, "'ttl'"),
        ({"overwrite": "perhaps"}, "'overwrite'"),
        ({"type": "NAPTR"}, "not supported"),
        ({"zone": "other.gg"}, "No such zone was found: other.gg"),
        ({"domain": "mc-5000.other.gg"}, "does not belong to the zone"),
    ],
)
def test_an_add_that_is_not_valid_is_an_error(edge, fields, part):
    """The message names what is wrong, and nothing is stored."""
    assert part in _error(edge.technitium("add", **{**ADDRESS, **fields}))
    assert _own(edge) == []


def test_a_domain_of_no_zone_is_an_error(edge):
    """Also when no zone is named."""
    token = edge.sandbox.config.technitium_token
    url = f"{edge.sandbox.url}/api/zones/records/get"
    answer = edge.http.get(url, params={"domain": "mc-5000.other.gg", "token": token}).json()
    assert _error(answer) == "No such zone was found: mc-5000.other.gg"


def test_srv_parts_are_all_required(edge):
    """One is named at a time."""
    for part in ("priority", "weight", "port", "target"):
        assert f"'{part}'" in _error(edge.technitium("add", **{**SRV, part: ""}))
    assert "'port'" in _error(edge.technitium("add", **{**SRV, "port": "65536"}))


def test_an_update_replaces_the_named_record(edge):
    """Old values find it, new ones take their place."""
    edge.technitium("add", ttl="60", **ADDRESS)
    edge.technitium("add", ttl="60", **SRV)
    answer = edge.technitium("update", ttl="60", newIpAddress="10.70.0.3", **ADDRESS)
    assert answer["response"]["updatedRecord"]["rData"] == {"ipAddress": "10.70.0.3"}
    new = {"newPriority": "1", "newWeight": "2", "newPort": "25570", "newTarget": f"x.{HOST}"}
    assert edge.technitium("update", ttl="60", **new, **SRV)["status"] == "ok"
    data = {tuple(r["rData"].values()) for r in _own(edge)}
    assert data == {("10.70.0.3",), (1, 2, 25570, f"x.{HOST}")}


def test_an_update_without_a_ttl_sets_an_hour(edge):
    """It does not keep the one that was there."""
    edge.technitium("add", ttl="60", **ADDRESS)
    edge.technitium("update", **ADDRESS)
    assert _own(edge)[0]["ttl"] == 3600


def test_an_update_can_disable_and_enable(edge):
    """A disabled record stays in the listing."""
    edge.technitium("add", **ADDRESS)
    edge.technitium("update", disable="true", **ADDRESS)
    assert _own(edge)[0]["disabled"] is True
    edge.technitium("update", disable="false", **ADDRESS)
    assert _own(edge)[0]["disabled"] is False


def test_an_update_can_move_a_record(edge):
    """To another name of the zone, but not out of it."""
    edge.technitium("add", **ADDRESS)
    edge.technitium("update", newDomain="mc-5001.example.gg", **ADDRESS)
    assert [r["name"] for r in _own(edge)] == ["mc-5001.example.gg"]
    moved = {**ADDRESS, "domain": "mc-5001.example.gg"}
    _error(edge.technitium("update", newDomain="mc-5001.other.gg", **moved))


def test_an_update_of_what_is_not_there_is_an_error(edge):
    """Neither created nor guessed."""
    edge.technitium("add", **ADDRESS)
    wrong = {**ADDRESS, "ipAddress": "10.70.0.9"}
    assert "no such record" in _error(edge.technitium("update", newIpAddress="10.70.0.3", **wrong))
    assert _own(edge)[0]["rData"] == {"ipAddress": "10.70.0.2"}


def test_an_update_onto_another_record_is_an_error(edge):
    """Two records never become one."""
    edge.technitium("add", **ADDRESS)
    edge.technitium("add", **{**ADDRESS, "ipAddress": "10.70.0.3"})
    _error(edge.technitium("update", newIpAddress="10.70.0.3", **ADDRESS))
    assert len(_own(edge)) == 2


def test_a_deleted_record_is_gone(edge):
    """Only the one with those values; a second delete is an error."""
    edge.technitium("add", **ADDRESS)
    edge.technitium("add", **{**ADDRESS, "ipAddress": "10.70.0.3"})
    assert edge.technitium("delete", **ADDRESS)["status"] == "ok"
    assert [r["rData"]["ipAddress"] for r in _own(edge)] == ["10.70.0.3"]
    _error(edge.technitium("delete", **ADDRESS))


def test_every_change_raises_the_serial(edge):
    """As secondary servers rely on."""

    def serial() -> int:
        return _listed(edge)[0]["rData"]["serial"]

    first = serial()
    edge.technitium("add", **ADDRESS)
    edge.technitium("delete", **ADDRESS)
    assert serial() == first + 2
