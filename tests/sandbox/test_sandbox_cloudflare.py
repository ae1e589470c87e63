"""The pretend Cloudflare answers as the real one does."""

from typing import Any

import httpx
import pytest


def _code(response: httpx.Response) -> tuple[int, int]:
    body = response.json()
    assert body["success"] is False
    assert body["result"] is None
    return response.status_code, body["errors"][0]["code"]


def _made(response: httpx.Response) -> dict[str, Any]:
    assert response.status_code == 200, response.text
    body = response.json()
    assert body["success"] is True
    assert body["errors"] == []
    result = body["result"]
    assert isinstance(result, dict)
    return result


def _listed(edge, **params: Any) -> list[dict[str, Any]]:
    return edge.cloudflare("GET", params=params).json()["result"]


@pytest.mark.parametrize(
    ("headers", "code"),
    [({}, 10000), ({"Authorization": "Bearer wrong"}, 9109), ({"Authorization": "Basic x"}, 10000)],
)
def test_a_call_without_the_right_token_is_forbidden(edge, headers, code):
    """Status 403, and a code that tells a missing token from a wrong one."""
    assert _code(edge.http.get(edge.dns_records, headers=headers)) == (403, code)


def test_an_unknown_zone_is_not_found(edge):
    """Status 404 with the code for a path that leads nowhere."""
    headers = {"Authorization": f"Bearer {edge.sandbox.config.cloudflare_token}"}
    url = f"{edge.sandbox.url}/client/v4/zones/{'0' * 32}/dns_records"
    assert _code(edge.http.get(url, headers=headers)) == (404, 7003)


def test_an_unknown_path_is_answered_in_the_envelope(edge):
    """Status 404 with JSON, not a page."""
    assert _code(edge.http.get(f"{edge.sandbox.url}/client/v4/accounts")) == (404, 7000)


def test_a_made_record_is_listed_as_it_was_made(edge, address):
    """What POST returns is what the listing and the single read return."""
    record = _made(edge.cloudflare("POST", json={**address, "comment": "made by a test"}))
    assert len(record["id"]) == 32
    assert record["proxied"] is False
    assert record["proxiable"] is True
    assert record["comment"] == "made by a test"
    assert record["created_on"] == record["modified_on"]
    assert _listed(edge) == [record]
    assert _made(edge.cloudflare("GET", f"/{record['id']}")) == record


def test_an_srv_record_has_data_and_content_between_tabs(edge, service):
    """Priority stands apart from the content, as Cloudflare shows it."""
    record = _made(edge.cloudflare("POST", json=service))
    assert record["content"] == "5\t25565\tmc-5000.example.gg"
    assert record["priority"] == 0
    assert record["data"] == service["data"]
    assert record["proxiable"] is False


def test_a_target_loses_its_final_dot(edge, service):
    """Targets are kept without one."""
    service["data"]["target"] = "MC-5000.example.gg."
    assert _made(edge.cloudflare("POST", json=service))["data"]["target"] == "mc-5000.example.gg"


def test_a_ttl_left_out_is_automatic(edge, address):
    """Automatic reads back as 1."""
    del address["ttl"]
    assert _made(edge.cloudflare("POST", json=address))["ttl"] == 1


def test_a_proxied_record_reads_back_an_automatic_ttl(edge, address):
    """Whatever TTL was asked for."""
    assert _made(edge.cloudflare("POST", json={**address, "proxied": True}))["ttl"] == 1


@pytest.mark.parametrize(
    ("sent", "kept"),
    [
        ("MC-5000.Example.GG.", "mc-5000.example.gg"),
        ("mc-5000", "mc-5000.example.gg"),
        ("@", "example.gg"),
        ("example.gg", "example.gg"),
        ("mc-5000.other.net", "mc-5000.other.net.example.gg"),
        ("notexample.gg", "notexample.gg.example.gg"),
    ],
)
def test_names_are_brought_below_the_zone(edge, address, sent, kept):
    """Lower case, no final dot, and the zone added where it is lacking."""
    assert _made(edge.cloudflare("POST", json={**address, "name": sent}))["name"] == kept


@pytest.mark.parametrize(
    ("change", "code"),
    [
        ({"content": "not an address"}, 9005),
        ({"content": "2001:db8::1"}, 9005),
        ({"type": "AAAA"}, 9005),
        ({"content": ""}, 1004),
        ({"name": ""}, 1004),
        ({"type": "NONE"}, 1004),
        ({"type": "MX", "content": "mail.example.gg"}, 1004),
        ({"ttl": 59}, 9021),
        ({"ttl": 86401}, 9021),
        ({"ttl": "60"}, 9021),
        ({"proxied": "no"}, 1004),
        ({"type": "TXT", "content": "x", "proxied": True}, 9004),
        ({"comment": "x" * 101}, 1004),
    ],
)
def test_a_record_that_is_not_valid_is_refused(edge, address, change, code):
    """Nothing is stored, and the code says what kind of mistake it is."""
    assert _code(edge.cloudflare("POST", json={**address, **change})) == (400, code)
    assert _listed(edge) == []


@pytest.mark.parametrize("change", [{"port": 65536}, {"weight": None}, {"target": ""}])
def test_srv_data_that_is_not_valid_is_refused(edge, service, change):
    """Every part is checked."""
    service["data"].update(change)
    assert _code(edge.cloudflare("POST", json=service)) == (400, 1004)


def test_srv_content_cannot_stand_in_for_data(edge, service):
    """Content is read-only in SRV records."""
    del service["data"]
    service["content"] = "0\t25565\tmc-5000.example.gg"
    assert _code(edge.cloudflare("POST", json=service)) == (400, 1004)


def test_a_body_that_is_no_object_is_refused(edge):
    """Neither a list nor broken JSON."""
    assert _code(edge.cloudflare("POST", json=[])) == (400, 9207)
    assert _code(edge.cloudflare("POST", content=b"{")) == (400, 9207)


def test_posting_the_same_record_again_is_refused(edge, address, service):
    """Code 81058 for address and service records alike."""
    for body in (address, service):
        _made(edge.cloudflare("POST", json=body))
        assert _code(edge.cloudflare("POST", json={**body, "ttl": 300})) == (400, 81058)


def test_posting_other_content_makes_a_second_record(edge, address, service):
    """POST never replaces what is there."""
    for body in (address, service):
        _made(edge.cloudflare("POST", json=body))
    _made(edge.cloudflare("POST", json={**address, "content": "203.0.113.11"}))
    other = {**service, "data": {**service["data"], "priority": 10}}
    _made(edge.cloudflare("POST", json=other))
    assert [record["type"] for record in _listed(edge)] == ["A", "SRV", "A", "SRV"]


@pytest.mark.parametrize(
    ("first", "second"), [("A", "CNAME"), ("CNAME", "A"), ("AAAA", "CNAME"), ("CNAME", "CNAME")]
)
def test_a_cname_stands_beside_no_address(edge, address, first, second):
    """Code 81053, in whichever order they come."""
    contents = {"A": ["203.0.113.1"] * 2, "AAAA": ["2001:db8::1"] * 2, "CNAME": ["a.b", "c.d"]}
    _made(edge.cloudflare("POST", json={**address, "type": first, "content": contents[first][0]}))
    body = {**address, "type": second, "content": contents[second][1]}
    assert _code(edge.cloudflare("POST", json=body)) == (400, 81053)


def test_a_patch_changes_only_what_it_names(edge, address):
    """The rest of the record stays, and so does its identifier."""
    made = _made(edge.cloudflare("POST", json={**address, "comment": "kept"}))
    patched = _made(edge.cloudflare("PATCH", f"/{made['id']}", json={"content": "203.0.113.99"}))
    assert patched["modified_on"] > made["modified_on"]
    assert patched == {
        **made,
        "content": "203.0.113.99",
        "modified_on": patched["modified_on"],
    }


def test_a_patch_of_srv_data_changes_the_content(edge, service):
    """Both views of the record agree."""
    made = _made(edge.cloudflare("POST", json=service))
    data = {**service["data"], "port": 25570}
    patched = _made(edge.cloudflare("PATCH", f"/{made['id']}", json={"data": data}))
    assert patched["content"] == "5\t25570\tmc-5000.example.gg"
    ttl_only = _made(edge.cloudflare("PATCH", f"/{made['id']}", json={"ttl": 120}))
    assert (ttl_only["ttl"], ttl_only["data"]) == (120, data)


def test_a_patch_can_rename_and_is_found_by_its_new_name(edge, address):
    """The old name finds nothing any more."""
    made = _made(edge.cloudflare("POST", json=address))
    edge.cloudflare("PATCH", f"/{made['id']}", json={"name": "mc-5001"})
    assert _listed(edge, name="mc-5000.example.gg") == []
    assert [r["id"] for r in _listed(edge, name="mc-5001.example.gg")] == [made["id"]]


def test_a_patch_into_an_identical_record_is_refused(edge, address):
    """As a second POST of it would be."""
    _made(edge.cloudflare("POST", json=address))
    other = _made(edge.cloudflare("POST", json={**address, "content": "203.0.113.11"}))
    change = {"content": address["content"]}
    assert _code(edge.cloudflare("PATCH", f"/{other['id']}", json=change)) == (400, 81058)


def test_a_put_replaces_every_field(edge, address):
    """What it leaves out goes back to its default."""
    made = _made(edge.cloudflare("POST", json={**address, "comment": "gone"}))
    body = {key: address[key] for key in ("type", "name", "content")}
    replaced = _made(edge.cloudflare("PUT", f"/{made['id']}", json=body))
    assert (replaced["id"], replaced["ttl"], replaced["comment"]) == (made["id"], 1, None)


def test_a_deleted_record_is_gone(edge, address):
    """And cannot be read, changed or deleted again."""
    made = _made(edge.cloudflare("POST", json=address))
    assert _made(edge.cloudflare("DELETE", f"/{made['id']}")) == {"id": made["id"]}
    assert _listed(edge) == []
    for method in ("GET", "PATCH", "PUT", "DELETE"):
        body = None if method in ("GET", "DELETE") else address
        answer = edge.cloudflare(method, f"/{made['id']}", json=body)
        assert _code(answer) == (404, 81044)


@pytest.fixture
def hundred_and_twenty(edge, address):
    """A zone of 120 address records."""
    posts = [{**address, "name": f"mc-{5000 + n}"} for n in range(120)]
    assert edge.cloudflare("POST", "/batch", json={"posts": posts}).status_code == 200
    return edge


def test_a_listing_has_a_hundred_rows_a_page_by_default(hundred_and_twenty):
    """With the totals of the whole zone on each page."""
    body = hundred_and_twenty.cloudflare("GET").json()
    assert len(body["result"]) == 100
    assert body["result_info"] == {
        "page": 1,
        "per_page": 100,
        "count": 100,
        "total_count": 120,
        "total_pages": 2,
    }


def test_pages_together_hold_every_record_once(hundred_and_twenty):
    """In the order in which they were made."""
    names = []
    for page in (1, 2, 3):
        names += [r["name"] for r in _listed(hundred_and_twenty, page=page, per_page=50)]
    assert names == [f"mc-{5000 + n}.example.gg" for n in range(120)]


def test_a_page_past_the_end_is_empty(hundred_and_twenty):
    """It is not an error, and the totals stay."""
    body = hundred_and_twenty.cloudflare("GET", params={"page": 9}).json()
    assert body["result"] == []
    assert body["result_info"]["total_count"] == 120


def test_an_empty_zone_has_no_pages(edge):
    """All totals are zero."""
    info = edge.cloudflare("GET").json()["result_info"]
    assert info == {"page": 1, "per_page": 100, "count": 0, "total_count": 0, "total_pages": 0}


@pytest.mark.parametrize("params", [{"per_page": 5001}, {"per_page": 0}, {"page": "x"}])
def test_paging_out_of_range_is_refused(edge, params):
    """5000 rows a page is the most."""
    assert _code(edge.cloudflare("GET", params=params)) == (400, 1004)
    assert edge.cloudflare("GET", params={"per_page": 5000}).status_code == 200


def test_a_listing_can_be_filtered_by_type_and_name(edge, address, service):
    """Both filters together, or either; the totals count what was found."""
    for body in (address, service, {**address, "name": "mc-5001"}):
        _made(edge.cloudflare("POST", json=body))
    assert [r["type"] for r in _listed(edge, type="SRV")] == ["SRV"]
    assert len(_listed(edge, name="mc-5000.example.gg")) == 1
    assert _listed(edge, name="mc-5000.example.gg", type="SRV") == []
    info = edge.cloudflare("GET", params={"type": "A"}).json()["result_info"]
    assert info["total_count"] == 2


def test_a_batch_deletes_first_and_posts_last(edge, address):
    """So that a record can make room for another of its name."""
    gone = _made(edge.cloudflare("POST", json=address))
    kept = _made(edge.cloudflare("POST", json={**address, "name": "mc-5001"}))
    put = _made(edge.cloudflare("POST", json={**address, "name": "mc-5002"}))
    result = _made(
        edge.cloudflare(
            "POST",
            "/batch",
            json={
                "posts": [address],
                "puts": [{**address, "id": put["id"], "name": "mc-5003"}],
                "patches": [{"id": kept["id"], "ttl": 300}],
                "deletes": [{"id": gone["id"]}],
            },
        )
    )
    assert result["deletes"][0]["id"] == gone["id"]
    assert result["patches"][0]["ttl"] == 300
    assert result["puts"][0]["name"] == "mc-5003.example.gg"
    assert result["posts"][0]["id"] != gone["id"]
    assert len(_listed(edge)) == 3


def test_a_batch_that_fails_changes_nothing(edge, address):
    """One bad operation undoes all the others."""
    made = _made(edge.cloudflare("POST", json=address))
    before = _listed(edge)
    batch = {
        "deletes": [{"id": made["id"]}],
        "posts": [{**address, "name": "mc-5001"}, {**address, "content": "nonsense"}],
    }
    assert _code(edge.cloudflare("POST", "/batch", json=batch)) == (400, 9005)
    assert _listed(edge) == before
    assert _listed(edge, name="mc-5001.example.gg") == []


def test_a_batch_takes_two_hundred_operations(edge, address):
    """One more and it is refused, as is an empty one."""
    posts = [{**address, "name": f"mc-{5000 + n}"} for n in range(201)]
    assert _code(edge.cloudflare("POST", "/batch", json={"posts": posts})) == (400, 1004)
    assert _code(edge.cloudflare("POST", "/batch", json={})) == (400, 1004)
    assert _code(edge.cloudflare("POST", "/batch", json={"posts": "x"})) == (400, 1004)
    assert len(_made(edge.cloudflare("POST", "/batch", json={"posts": posts[1:]}))["posts"]) == 200
