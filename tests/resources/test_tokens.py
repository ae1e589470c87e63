"""Where tokens travel: headers and forms, never a URL, a message or a log."""

import hashlib
import logging

import httpx
import pytest

from tests.resources.clients import ABSENT_TECHNITIUM, CF, HOST, TN, TOKENS, VE, make_client
from zlh_dagster.core.model import Surface
from zlh_dagster.resources.cloudflare import Cloudflare
from zlh_dagster.resources.http import AlreadyThere, EdgeError, Unauthorized
from zlh_dagster.resources.technitium import Technitium
from zlh_dagster.resources.velocity import Velocity
from zlh_dagster.sandbox.config import SandboxConfig
from zlh_dagster.sandbox.server import Sandbox
from zlh_dagster.sandbox.technitium_records import TechnitiumRecord, address_data


@pytest.fixture(scope="module")
def old_technitium():
    """A Technitium before version 15, which reads the token from a field alone."""
    with Sandbox(SandboxConfig(technitium_bearer=False)) as sandbox:
        yield sandbox


def client_with_token(surface, token, answer):
    transport = httpx.MockTransport(lambda request: answer)
    if surface is CF:
        return Cloudflare(base_url="https://x", token=token, zone_id="z", transport=transport)
    return Technitium(base_url="https://x", token=token, zone="gg", transport=transport)


@pytest.fixture
def old(old_technitium):
    old_technitium.reset()
    record = TechnitiumRecord("other.example.gg", "A", address_data("10.70.0.2"), ttl=60)
    old_technitium.edge.technitium.put_all(
        [TechnitiumRecord("example.gg", "SOA", (("serial", 1),)), record]
    )
    one = make_client(old_technitium, TN)
    yield old_technitium, one
    one.close()


def test_an_older_technitium_gets_its_token_as_a_field(old):
    sandbox, one = old
    assert len(one.list_records()) == 1
    assert [e.method for e in sandbox.edge.journal.entries()] == ["GET", "POST"]
    one.list_records()
    assert len(sandbox.edge.journal.entries()) == 3, "the second form is remembered"


def test_an_older_technitium_is_written_to(old):
    """The listing before a write finds out how the token travels; the write itself is sent once."""
    sandbox, one = old
    with pytest.raises(Unauthorized):
        one.apply(ABSENT_TECHNITIUM)
    assert len(sandbox.edge.journal.entries()) == 1
    one.list_records()
    one.apply(ABSENT_TECHNITIUM)
    assert [r.name for r in sandbox.edge.technitium.named(HOST)] == [HOST]


def test_a_wrong_token_is_tried_in_both_forms_and_told(old):
    sandbox, _ = old
    wrong = make_client(sandbox, TN, token="wrong-token")
    for _ in range(2):
        with pytest.raises(Unauthorized) as refused:
            wrong.list_records()
        assert "wrong-token" not in str(refused.value)
    wrong.close()


def test_no_url_ever_holds_a_token(old, client, sandbox):
    client(CF).list_records()
    client(TN).list_records()
    client(VE).list_records()
    with pytest.raises(AlreadyThere):
        client(TN).apply(ABSENT_TECHNITIUM)
    old[1].list_records()
    old[1].apply(ABSENT_TECHNITIUM)
    entries = [*sandbox.edge.journal.entries(), *old[0].edge.journal.entries()]
    assert len(entries) >= 6
    for entry in entries:
        assert "token" not in entry.query
        for token in TOKENS:
            assert token not in entry.path + entry.query


def test_velocitys_secret_travels_as_its_digest():
    sent = []

    def answer(request: httpx.Request) -> httpx.Response:
        sent.append(request.headers)
        return httpx.Response(200, json={"servers": []})

    one = Velocity(base_url="https://x", secret="hunter22", transport=httpx.MockTransport(answer))
    one.list_records()
    one.close()
    [headers] = sent
    assert headers["X-Zpack-Secret"] == hashlib.sha256(b"hunter22").hexdigest()
    assert "hunter22" not in str(headers)


@pytest.mark.parametrize("surface", list(Surface))
@pytest.mark.parametrize("kind", ["status", "invalid_token", "disconnect", "html", "wrong_types"])
def test_no_token_is_in_a_log_or_a_traceback(client, sandbox, no_pauses, caplog, surface, kind):
    caplog.set_level(logging.DEBUG)
    sandbox.edge.faults.switch_on(surface.value, kind)
    one = client(surface)
    with pytest.raises(EdgeError) as failed:
        one.list_records()
    chain, error = [], failed.value
    while error is not None:
        chain.append(f"{error!r} {error.args}")
        error = error.__cause__
    for token in TOKENS:
        assert token not in caplog.text
        assert token not in " ".join(chain)
    digest = hashlib.sha256(TOKENS[2].encode()).hexdigest()
    assert digest not in caplog.text


def test_a_redirect_is_not_followed_with_the_token(client, sandbox):
    sandbox.edge.faults.switch_on("cloudflare", "status", code=302)
    with pytest.raises(EdgeError, match="redirect"):
        client(CF).list_records()
    assert len(sandbox.edge.journal.entries()) == 1


@pytest.mark.parametrize("surface", [CF, TN])
def test_a_token_across_the_end_of_what_is_told_leaves_no_part(surface):
    """An answer may repeat it anywhere; it is masked before a long answer is cut."""
    token = "q1w2e3r4t5z6u7i8o9p0"
    for before in range(80, 210):
        said = "x" * before + token
        body = {
            "success": False,
            "errors": [{"code": 1, "message": said}],
            "status": "error",
            "errorMessage": said,
        }
        one = client_with_token(surface, token, httpx.Response(400, json=body))
        with pytest.raises(EdgeError) as refused:
            one.list_records()
        one.close()
        assert token[:4] not in str(refused.value)
