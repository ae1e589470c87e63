"""Whatever stands in an answer, a client makes a frame or an EdgeError of it, and nothing else."""

import contextlib
import copy
import json
from typing import Any

import httpx
import pyarrow as pa
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tests.resources.clients import answering
from zlh_dagster.core.model import RECORD_COLUMNS
from zlh_dagster.resources import http as http_module
from zlh_dagster.resources.cloudflare import Cloudflare
from zlh_dagster.resources.http import EdgeError
from zlh_dagster.resources.technitium import Technitium
from zlh_dagster.resources.velocity import Velocity

ANSWERS: dict[str, Any] = {
    "cloudflare": {
        "success": True,
        "errors": [],
        "result": [
            {
                "id": "1",
                "name": "a.gg",
                "type": "A",
                "content": "1.2.3.4",
                "ttl": 1,
                "proxied": True,
            },
            {
                "id": "2",
                "name": "_minecraft._tcp.a.gg",
                "type": "SRV",
                "content": "0\t1\ta.gg",
                "ttl": 60,
                "data": {"priority": 0, "weight": 0, "port": 1, "target": "a.gg"},
            },
            {"id": "3", "name": "b.gg", "type": "CNAME", "content": "c.gg", "ttl": 60},
        ],
        "result_info": {
            "page": 1,
            "per_page": 5000,
            "count": 3,
            "total_count": 3,
            "total_pages": 1,
        },
    },
    "technitium": {
        "status": "ok",
        "response": {
            "records": [
                {"name": "gg", "type": "SOA", "ttl": 900, "rData": {}},
                {"name": "a.gg", "type": "A", "ttl": 60, "rData": {"ipAddress": "10.0.0.1"}},
                {
                    "name": "_minecraft._tcp.a.gg",
                    "type": "SRV",
                    "ttl": 60,
                    "disabled": True,
                    "rData": {"priority": 0, "weight": 0, "port": 1, "target": "a.gg"},
                },
                {"name": "b.gg", "type": "CNAME", "ttl": 60, "rData": {"cname": "c.gg"}},
            ]
        },
    },
    "velocity": {"servers": [{"name": "a", "address": "10.0.0.1", "port": 25565}, {"name": "b"}]},
}

values = st.recursive(
    st.none()
    | st.booleans()
    | st.integers()
    | st.integers(min_value=10**15, max_value=10**40)
    | st.floats()
    | st.text(max_size=20)
    | st.sampled_from(["A", "SRV", "CNAME", "SOA", "\ud800", "\x00", "1\t2", "ok", "error"]),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=8), inner),
    max_leaves=4,
)


def places(value: Any, path: tuple = ()) -> list[tuple]:
    """The path of every value inside a JSON value."""
    found = [path]
    items = value.items() if isinstance(value, dict) else ()
    items = enumerate(value) if isinstance(value, list) else items
    for key, inner in items:
        found += places(inner, (*path, key))
    return found


def replaced(value: Any, path: tuple, by: Any) -> Any:
    if not path:
        return by
    value = copy.deepcopy(value)
    inner = value
    for key in path[:-1]:
        inner = inner[key]
    inner[path[-1]] = by
    return value


def client_of(surface: str, transport):
    if surface == "cloudflare":
        return Cloudflare(base_url="https://x", token="t", zone_id="z", transport=transport)
    if surface == "technitium":
        return Technitium(base_url="https://x", token="t", zone="gg", transport=transport)
    return Velocity(base_url="https://x", secret="s", transport=transport)


@pytest.mark.parametrize("surface", list(ANSWERS))
@settings(
    max_examples=120, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(data=st.data())
def test_any_value_anywhere_in_an_answer_is_a_frame_or_an_edge_error(surface, data, monkeypatch):
    monkeypatch.setattr(http_module, "_BACKOFF_SECONDS", 0.0)
    answer = ANSWERS[surface]
    path = data.draw(st.sampled_from(places(answer)))
    body = json.dumps(replaced(answer, path, data.draw(values))).encode()
    client = client_of(surface, answering(httpx.Response(200, content=body)))
    frame = None
    with contextlib.suppress(EdgeError):
        frame = client.list_records()
    client.close()
    if frame is not None:
        assert dict(frame.dtypes.astype(str)) == RECORD_COLUMNS
        pa.Table.from_pandas(frame)  # what was taken can also be kept


@pytest.mark.parametrize("surface", list(ANSWERS))
@settings(
    max_examples=40, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(body=st.binary(max_size=60), status=st.integers(min_value=200, max_value=599))
def test_any_bytes_under_any_status_are_an_edge_error(surface, body, status, monkeypatch):
    monkeypatch.setattr(http_module, "_BACKOFF_SECONDS", 0.0)
    client = client_of(surface, answering(httpx.Response(status, content=body)))
    try:
        with pytest.raises(EdgeError):
            client.list_records()
    finally:
        client.close()
