"""One write changes one record: the one that was asked for, once, and nothing beside it."""

import json

import httpx
import pytest

from tests.harness import edge_state
from tests.resources.clients import CF, HOST, SRV, SRV_CONTENT, TN, TOKENS, VE, find, missing
from zlh_dagster.core.changes import Change
from zlh_dagster.core.model import DriftKind, Record, Surface
from zlh_dagster.resources.cloudflare import Cloudflare
from zlh_dagster.resources.http import (
    AlreadyThere,
    EdgeError,
    RateLimited,
    Rejected,
    Unauthorized,
    Unreachable,
)
from zlh_dagster.resources.technitium import Technitium
from zlh_dagster.sandbox.cloudflare_records import new_record
from zlh_dagster.sandbox.technitium_records import TechnitiumRecord, address_data
from zlh_dagster.sandbox.velocity_api import Backend

BACKEND = "127.60.0.1:25565"
ABSENT = {
    "cloudflare A": missing(CF, HOST, "A", "203.0.113.10"),
    "cloudflare SRV": missing(CF, SRV, "SRV", SRV_CONTENT),
    "technitium A": missing(TN, HOST, "A", "10.70.0.2"),
    "technitium SRV": missing(TN, SRV, "SRV", SRV_CONTENT),
    "velocity BACKEND": missing(VE, "mc-5000", "BACKEND", BACKEND),
}
each_record = pytest.mark.parametrize("change", ABSENT.values(), ids=ABSENT.keys())
one_of_each = pytest.mark.parametrize(
    "change", [ABSENT[k] for k in ("cloudflare A", "technitium SRV", "velocity BACKEND")]
)


def make_client_of(surface, answer):
    transport = httpx.MockTransport(answer)
    if surface is CF:
        return Cloudflare(base_url="https://x", token="t", zone_id="z", transport=transport)
    return Technitium(base_url="https://x", token="t", zone="gg", transport=transport)


def take_away(sandbox, change: Change) -> None:
    edge, name = sandbox.edge, change.wanted.name
    if change.surface is CF:
        [record] = edge.cloudflare.named(name)
        edge.cloudflare.remove(record.id)
    elif change.surface is TN:
        [record] = edge.technitium.named(name)
        edge.technitium.remove(record.key())
    else:
        rest = [b for b in edge.velocity.backends() if b.name != name]
        edge.velocity.clear()
        edge.velocity.seed(rest)


def writes(sandbox) -> list[tuple[str, str]]:
    return [
        (e.method, e.path.rsplit("/", 1)[-1]) for e in sandbox.edge.journal.entries() if e.write
    ]


# --- missing -------------------------------------------------------------------------------------


@each_record
def test_a_missing_record_is_created_as_it_was_and_nothing_else_changes(client, sandbox, change):
    before = edge_state(sandbox)
    take_away(sandbox, change)
    assert edge_state(sandbox) != before
    one = client(change.surface)
    one.apply(change)
    assert edge_state(sandbox) == before
    assert len(writes(sandbox)) == 1
    shown = find(one.list_records(), change.wanted.name, change.wanted.type)
    assert (shown.content, shown.ttl) == (change.wanted.content, change.wanted.ttl)


def test_what_was_written_says_who_wrote_it(client, sandbox):
    take_away(sandbox, ABSENT["cloudflare A"])
    client(CF).apply(ABSENT["cloudflare A"])
    [record] = sandbox.edge.cloudflare.named(HOST)
    assert record.comment.startswith("zlh-dagster")


@each_record
def test_creating_what_is_there_makes_no_second_one(client, sandbox, change):
    """Velocity takes the same registration again; that is why only absent ones are ever sent."""
    before = edge_state(sandbox)
    if change.surface is VE:
        client(VE).apply(change)
    else:
        with pytest.raises(AlreadyThere):
            client(change.surface).apply(change)
    assert edge_state(sandbox) == before


def test_a_backend_that_is_there_at_another_address_is_not_moved(client, sandbox):
    sandbox.edge.velocity.seed([Backend("mc-5000", "10.60.0.99", 25565)])
    with pytest.raises(AlreadyThere):
        client(VE).apply(ABSENT["velocity BACKEND"])
    assert Backend("mc-5000", "10.60.0.99", 25565) in sandbox.edge.velocity.backends()


def test_a_cname_in_the_way_is_a_refusal_and_stays(client, sandbox):
    take_away(sandbox, ABSENT["cloudflare A"])
    sandbox.edge.cloudflare.put(new_record(HOST, "CNAME", "elsewhere.example.com"))
    before = edge_state(sandbox)
    with pytest.raises(Rejected, match="81053"):
        client(CF).apply(ABSENT["cloudflare A"])
    assert edge_state(sandbox) == before


def test_an_ipv6_backend_is_registered_without_its_brackets(client, sandbox):
    client(VE).apply(missing(VE, "mc-v6", "BACKEND", "[fd00::10]:25565"))
    assert Backend("mc-v6", "fd00::10", 25565) in sandbox.edge.velocity.backends()


# --- wrong and disabled --------------------------------------------------------------------------


def wrong(found: Record, **wanted) -> Change:
    values = {"content": found.content, "ttl": 60, "proxied": found.proxied, **wanted}
    return Change(DriftKind.WRONG, Record(found.surface, found.name, found.type, **values), found)


@pytest.mark.parametrize("old", [{"content": "198.51.100.1"}, {"ttl": 300}, {"proxied": True}])
def test_a_wrong_address_in_cloudflare_is_changed_in_place(client, sandbox, old):
    take_away(sandbox, ABSENT["cloudflare A"])
    untouched = edge_state(sandbox)
    sandbox.edge.cloudflare.put(
        new_record(HOST, "A", **{"content": "203.0.113.10", "ttl": 60, **old})
    )
    [stood] = sandbox.edge.cloudflare.named(HOST)
    one = client(CF)
    one.apply(wrong(find(one.list_records(), HOST, "A"), content="203.0.113.10", proxied=False))
    [stands] = sandbox.edge.cloudflare.named(HOST)
    assert stands.id == stood.id, "changed, not replaced"
    assert (stands.content, stands.ttl, stands.proxied) == ("203.0.113.10", 60, False)
    assert writes(sandbox) == [("PATCH", stood.id)]
    sandbox.edge.cloudflare.remove(stands.id)
    assert edge_state(sandbox) == untouched


def test_a_wrong_srv_record_in_cloudflare_is_changed_in_place(client, sandbox):
    [stood] = sandbox.edge.cloudflare.named(SRV)
    one = client(CF)
    found = find(one.list_records(), SRV, "SRV")
    one.apply(wrong(found, content=f"0 0 30123 {HOST}"))
    [stands] = sandbox.edge.cloudflare.named(SRV)
    assert (stands.id, stands.data.port, stands.data.target) == (stood.id, 30123, HOST)


@pytest.mark.parametrize("old", [{"data": address_data("10.70.0.9")}, {"ttl": 3600}])
def test_a_wrong_address_in_technitium_is_changed_in_place(client, sandbox, old):
    take_away(sandbox, ABSENT["technitium A"])
    untouched = edge_state(sandbox)
    stood = {"data": address_data("10.70.0.2"), "ttl": 60, **old}
    sandbox.edge.technitium.put(TechnitiumRecord(HOST, "A", **stood))
    one = client(TN)
    one.apply(wrong(find(one.list_records(), HOST, "A"), content="10.70.0.2"))
    [stands] = sandbox.edge.technitium.named(HOST)
    assert (stands.data, stands.ttl) == (address_data("10.70.0.2"), 60), "the TTL is always sent"
    assert writes(sandbox) == [("POST", "update")]
    sandbox.edge.technitium.remove(stands.key())
    assert edge_state(sandbox) == untouched


def test_a_wrong_srv_record_in_technitium_is_changed_in_place(client, sandbox):
    one = client(TN)
    one.apply(wrong(find(one.list_records(), SRV, "SRV"), content=f"0 0 30123 {HOST}"))
    [stands] = sandbox.edge.technitium.named(SRV)
    assert dict(stands.data) == {"priority": 0, "weight": 0, "port": 30123, "target": HOST}


@pytest.mark.parametrize("surface", [CF, TN])
def test_an_srv_record_is_written_as_it_was_listed(surface):
    """A target is whatever stands behind the third space; a revert writes it back."""
    seen = []

    def answer(request):
        seen.append(request)
        return httpx.Response(200, json={"success": True, "status": "ok"})

    client = make_client_of(surface, answer)
    odd = Record(surface, SRV, "SRV", "0 0 1 a b", ttl=60, record_id="1")
    ours = Record(surface, SRV, "SRV", SRV_CONTENT, ttl=60, record_id="1")
    client.apply(Change(DriftKind.WRONG, ours, odd))
    client.apply(Change(DriftKind.WRONG, odd, ours))
    client.close()
    there, back = (request.content.decode() for request in seen)
    if surface is TN:
        assert "&target=a+b&" in there
        assert "&newTarget=a+b&" in back
    assert HOST in there
    assert json.loads(back)["data"]["target"] == "a b" if surface is CF else "a+b" in back


@pytest.mark.parametrize("surface", [CF, TN])
@pytest.mark.parametrize("content", ["", "0 0 1", "0 0 x mc", "0.5 0 1 mc", None])
def test_an_srv_record_that_cannot_be_read_is_refused_before_anything_is_sent(surface, content):
    seen = []
    client = make_client_of(surface, seen.append)
    wanted = Record(surface, SRV, "SRV", content, ttl=60)
    with pytest.raises(Rejected, match="is not 'priority weight port target'"):
        client.apply(Change(DriftKind.MISSING, wanted, None))
    client.close()
    assert seen == []


@pytest.mark.parametrize("address", ["10.70.0.2", "10.70.0.9"])
def test_a_disabled_record_is_enabled_and_put_right(client, sandbox, address):
    take_away(sandbox, ABSENT["technitium A"])
    sandbox.edge.technitium.put(
        TechnitiumRecord(HOST, "A", address_data(address), ttl=60, disabled=True)
    )
    one = client(TN)
    found = find(one.list_records(), HOST, "A")
    assert found.disabled
    one.apply(Change(DriftKind.DISABLED, ABSENT["technitium A"].wanted, found))
    [stands] = sandbox.edge.technitium.named(HOST)
    assert (stands.disabled, stands.data) == (False, address_data("10.70.0.2"))


@pytest.mark.parametrize("kind", [DriftKind.WRONG, DriftKind.DISABLED])
@pytest.mark.parametrize("surface", [CF, TN])
def test_without_knowing_what_stands_there_nothing_is_sent(client, sandbox, surface, kind):
    wanted = next(c.wanted for c in ABSENT.values() if c.surface is surface)
    with pytest.raises(Rejected, match="no record to change is known"):
        client(surface).apply(Change(kind, wanted, None))
    assert writes(sandbox) == []


@pytest.mark.parametrize("kind", [kind for kind in DriftKind if kind is not DriftKind.MISSING])
def test_only_absent_backends_are_ever_registered(client, sandbox, kind):
    wanted = ABSENT["velocity BACKEND"].wanted
    with pytest.raises(Rejected, match="only absent backends"):
        client(VE).apply(Change(kind, wanted, wanted))
    assert writes(sandbox) == []


def test_technitium_is_never_asked_to_overwrite(client, sandbox):
    """With ``overwrite`` a second address at the same name would vanish."""
    twin = TechnitiumRecord(HOST, "A", address_data("10.70.0.77"), ttl=60)
    take_away(sandbox, ABSENT["technitium A"])
    sandbox.edge.technitium.put(twin)
    client(TN).apply(ABSENT["technitium A"])
    assert twin in sandbox.edge.technitium.named(HOST)
    assert len(sandbox.edge.technitium.named(HOST)) == 2


# --- failing writes ------------------------------------------------------------------------------

FAULTS = [
    ("status", {"code": 500}, Unreachable, 1),
    ("status", {"code": 429, "retry_after": 1}, RateLimited, 1),
    ("status", {"code": 400}, Rejected, 1),
    ("hang", {"seconds": 5}, Unreachable, 1),
    ("disconnect", {}, Unreachable, 1),
    ("html", {}, Unreachable, 1),
    ("invalid_token", {}, Unauthorized, None),
    ("write_answer_lost", {}, Unreachable, 1),
]


@one_of_each
@pytest.mark.parametrize(("kind", "options", "error", "calls"), FAULTS)
def test_a_write_that_fails_is_not_repeated(
    client, sandbox, no_pauses, change, kind, options, error, calls
):
    """A lost answer does not tell whether it was done; the next look does."""
    take_away(sandbox, change)
    sandbox.edge.faults.switch_on(change.surface.value, kind, **options)
    with pytest.raises(error) as failed:
        client(change.surface).apply(change)
    if calls is not None:
        assert len(writes(sandbox)) == calls
    for token in TOKENS:
        assert token not in str(failed.value)


@one_of_each
def test_a_write_whose_answer_is_lost_may_be_done(client, sandbox, no_pauses, change):
    before = edge_state(sandbox)
    take_away(sandbox, change)
    sandbox.edge.faults.switch_on(change.surface.value, "write_answer_lost")
    with pytest.raises(EdgeError):
        client(change.surface).apply(change)
    assert edge_state(sandbox) == before


@one_of_each
def test_a_write_that_is_taken_and_ignored_shows_only_at_the_next_look(client, sandbox, change):
    take_away(sandbox, change)
    before = edge_state(sandbox)
    sandbox.edge.faults.switch_on(change.surface.value, "write_ignored")
    client(change.surface).apply(change)
    assert edge_state(sandbox) == before


@pytest.mark.parametrize("surface", list(Surface))
def test_every_call_counts(client, surface, sandbox):
    one = client(surface)
    one.list_records()
    change = next(c for c in ABSENT.values() if c.surface is surface)
    take_away(sandbox, change)
    one.apply(change)
    assert one.requests == 2


# --- failing changes in place --------------------------------------------------------------------

STANDS = {
    "cloudflare A": (CF, HOST, "A", {"content": "203.0.113.99", "proxied": False}),
    "cloudflare SRV": (CF, SRV, "SRV", {"content": f"0 0 30123 {HOST}"}),
    "technitium A": (TN, HOST, "A", {"content": "10.70.0.99"}),
    "technitium SRV": (TN, SRV, "SRV", {"content": f"0 0 30123 {HOST}"}),
}


@pytest.mark.parametrize("stands", STANDS.values(), ids=STANDS.keys())
@pytest.mark.parametrize(("kind", "options", "error", "calls"), FAULTS)
def test_a_change_in_place_that_fails_is_not_repeated(
    client, sandbox, no_pauses, stands, kind, options, error, calls
):
    """A second try could undo what somebody else wrote after the first one had worked."""
    surface, name, type_, wanted = stands
    one = client(surface)
    change = wrong(find(one.list_records(), name, type_), **wanted)
    sandbox.edge.faults.switch_on(surface.value, kind, **options)
    with pytest.raises(error) as failed:
        one.apply(change)
    assert len(writes(sandbox)) == (calls or 1)
    for token in TOKENS:
        assert token not in str(failed.value)
