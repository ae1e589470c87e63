"""One thing changed in a real answer costs at most the entry that it is in, or the whole listing.

A listing of which one place was changed is unobserved, or it tells of every other entry exactly
what it told before.
"""

import copy
import json
from collections import Counter

import httpx
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tests.resources.clients import CF, TN, VE, answering, make_client
from tests.resources.test_listing_fuzz import client_of, places, replaced, values
from zlh_dagster.core.model import rows_of
from zlh_dagster.resources.http import EdgeError
from zlh_dagster.resources.proxmox import Proxmox

LISTS = {
    "cloudflare": ("result",),
    "technitium": ("response", "records"),
    "velocity": ("servers",),
    "proxmox": ("data",),
}
KEPT = {"A", "SRV", "CNAME"}


def proxmox(base_url="https://x", **given):
    config = {"node": "n", "token_id": "i", "token_secret": "s", **given}
    return Proxmox(base_url=base_url, **config)


def recorded(sandbox, source: str) -> dict:
    """What the pretend edge answers to a listing."""
    bodies = []

    def answer(request: httpx.Request) -> httpx.Response:
        with httpx.Client() as real:
            bodies.append(real.send(request).json())
        return httpx.Response(200, json=bodies[-1])

    transport = httpx.MockTransport(answer)
    if source == "proxmox":
        config = sandbox.config
        client = proxmox(
            sandbox.url,
            node=config.proxmox_node,
            token_id=config.proxmox_token_id,
            token_secret=config.proxmox_token_secret,
            transport=transport,
        )
        client.list_containers()
    else:
        surface = {"cloudflare": CF, "technitium": TN, "velocity": VE}[source]
        client = make_client(sandbox, surface, transport=transport)
        client.list_records()
    client.close()
    [body] = bodies
    return body


def listed(source: str, answer: dict) -> list[str]:
    """The rows that a client makes of an answer."""
    transport = answering(httpx.Response(200, content=json.dumps(answer).encode()))
    client = proxmox(transport=transport) if source == "proxmox" else client_of(source, transport)
    try:
        frame = client.list_containers() if source == "proxmox" else client.list_records()
    finally:
        client.close()
    return [repr(row) for row in rows_of(frame)]


def entries(source: str, answer: dict) -> list[dict]:
    for key in LISTS[source]:
        answer = answer[key]
    return answer


def mutated(draw, source: str, answer: dict) -> dict:
    """The answer with one thing changed, anywhere."""
    how = draw(st.sampled_from(["replace", "replace", "drop", "huge", "twice", "cut", "swap"]))
    path = draw(st.sampled_from([path for path in places(answer) if path]))
    new = copy.deepcopy(answer)
    rows = entries(source, new)
    at = draw(st.integers(0, len(rows) - 1))
    if how == "replace":
        return replaced(answer, path, draw(values))
    if how == "huge":
        return replaced(answer, path, "x" * 100_000)
    if how == "twice":
        rows.insert(at, copy.deepcopy(rows[-1]))
    elif how == "cut":
        del rows[at:]
    elif how == "swap":
        rows.reverse()
    else:
        inner = new
        for key in path[:-1]:
            inner = inner[key]
        del inner[path[-1]]
    return new


@pytest.fixture
def real(platform):
    answers = {source: recorded(platform.sandbox, source) for source in LISTS}
    return {source: (answer, listed(source, answer)) for source, answer in answers.items()}


@pytest.mark.parametrize("source", list(LISTS))
@settings(
    max_examples=150, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(data=st.data())
def test_one_change_costs_its_entry_or_the_listing(source, data, real, no_pauses):
    answer, rows = real[source]
    dns = source in ("cloudflare", "technitium")
    kept = [e for e in entries(source, answer) if not dns or e["type"] in KEPT]
    row_of = {json.dumps(e): row for e, row in zip(kept, rows, strict=True)}
    changed = mutated(data.draw, source, answer)
    try:
        told = Counter(listed(source, changed))
    except EdgeError:
        return
    left = [json.dumps(entry) for entry in entries(source, changed)]
    if source == "cloudflare":  # where an entry is what has that identifier
        left = list(dict.fromkeys(left))
    untouched = Counter(row_of[entry] for entry in left if entry in row_of)
    assert untouched <= told
    assert told.total() - untouched.total() <= 1
    if source == "cloudflare":  # which tells how many there are: a list cut short is found
        assert told.total() >= len(rows) - 1
