"""The plan of a repair, what it leaves alone, and the proof that it was done."""

import pytest

from tests.core.builders import PUBLIC, changed, fleet, in_step, listing, without
from zlh_dagster.core.changes import (
    Change,
    before,
    fixable,
    plan_changes,
    read_back,
    unproved,
    wanted,
    why_left_alone,
)
from zlh_dagster.core.model import DriftKind, Record, Surface, records_frame

HOST = "mc-5000.example.gg"
SRV = f"_minecraft._tcp.{HOST}"
INNER_A = {"surface": "technitium", "type": "A", "name": HOST}


@pytest.fixture
def records():
    return fleet(2)


@pytest.fixture
def rows(records):
    return in_step(records)


def only_change(records, rows) -> Change:
    [plan] = plan_changes(records, listing(rows)).values()
    [change] = plan.changes
    return change


@pytest.mark.parametrize(
    ("surface", "kinds"),
    [
        (Surface.CLOUDFLARE, {DriftKind.MISSING, DriftKind.WRONG, DriftKind.DISABLED}),
        (Surface.TECHNITIUM, {DriftKind.MISSING, DriftKind.WRONG, DriftKind.DISABLED}),
        (Surface.VELOCITY, {DriftKind.MISSING}),
    ],
)
def test_level_1_puts_back_and_never_replaces_or_removes(surface, kinds):
    assert {kind for kind in DriftKind if fixable(surface, kind)} == kinds


def test_a_missing_record_is_planned_as_wanted_with_nothing_found(records, rows):
    change = only_change(records, without(rows, surface="cloudflare", name=SRV))
    assert change.kind is DriftKind.MISSING
    assert change.found is None
    assert change.wanted == Record(Surface.CLOUDFLARE, SRV, "SRV", f"0 0 25565 {HOST}", 60)
    assert change.describe() == f"cloudflare SRV {SRV} (was missing)"


def test_a_wrong_record_is_planned_with_what_stands_there(records, rows):
    change = only_change(records, changed(rows, INNER_A, content="10.70.0.9", ttl=300))
    assert (change.kind, change.surface) == (DriftKind.WRONG, Surface.TECHNITIUM)
    assert (change.found.content, change.found.ttl) == ("10.70.0.9", 300)
    assert change.found.record_id == next(
        r["record_id"] for r in rows if all(r[k] == v for k, v in INNER_A.items())
    )
    assert (change.wanted.content, change.wanted.ttl) == ("10.70.0.2", 60)


def test_plans_are_for_the_servers_that_drift_and_no_others(records, rows):
    left = without(rows, surface="velocity", name="mc-5001")
    assert set(plan_changes(records, listing(left))) == {5001}
    assert plan_changes(records, listing(rows)) == {}


def test_what_is_left_alone_says_why_and_the_rest_is_still_planned(records, rows):
    twin = {**rows[0], "content": "198.51.100.1"}
    left = [*changed(rows[1:], {"name": "mc-5000"}, content="10.60.0.9:25565"), rows[0], twin]
    plan = plan_changes(records, listing(without(left, surface="technitium", name=HOST)))[5000]
    assert [c.describe() for c in plan.changes] == [f"technitium A {HOST} (was missing)"]
    assert plan.surfaces == (Surface.TECHNITIUM,)
    assert len(plan.left_alone) == 2
    assert plan.left_alone[0].startswith(f"cloudflare A {HOST}: more than one record")
    assert "velocity_repoint" in plan.left_alone[1]


def test_a_conflict_is_left_alone_with_the_name_of_the_obstacle(records, rows):
    held = {**rows[0], "type": "CNAME", "content": "elsewhere.example.com"}
    plan = plan_changes(records, listing([held, *rows[1:]]))[5000]
    assert plan.changes == ()
    assert plan.left_alone == (f"cloudflare A {HOST}: a CNAME holds that name; remove it by hand",)


@pytest.mark.parametrize("kind", list(DriftKind))
@pytest.mark.parametrize("surface", list(Surface))
def test_every_reason_names_surface_type_and_name(surface, kind):
    assert why_left_alone(surface, kind, "a.example.gg", "A").startswith(
        f"{surface.value} A a.example.gg: "
    )


def test_a_change_is_proved_only_by_exactly_one_record_as_wanted(records, rows):
    change = only_change(records, without(rows, surface="cloudflare", name=SRV))
    key = ("cloudflare", SRV, "SRV")
    there = next(r for r in rows if r["name"] == SRV and r["surface"] == "cloudflare")
    assert unproved([change], listing(rows)) == set()
    assert unproved([change], listing([{**there, "ttl": None}])) == set()
    for not_proof in (
        [],
        [{**there, "content": f"0 0 1 {HOST}"}],
        [{**there, "ttl": 300}],
        [{**there, "disabled": True}],
        [there, {**there, "content": f"0 0 1 {HOST}"}],
        [there, there],
        [{**there, "surface": "technitium"}],
    ):
        assert unproved([change], listing(not_proof)) == {key}


def test_nothing_to_prove_is_proved():
    assert unproved([], listing([])) == set()


def test_the_ledger_gets_what_stood_what_was_wanted_and_what_stands_now(records, rows):
    found = changed(rows, INNER_A, content="10.70.0.9")
    found = without(found, surface="cloudflare", name=SRV)
    plan = plan_changes(records, listing(found))[5000]
    keys = [
        {"surface": "cloudflare", "name": SRV, "type": "SRV"},
        {"surface": "technitium", "name": HOST, "type": "A"},
    ]

    def heads(entries):
        return [{k: e[k] for k in ("surface", "name", "type")} for e in entries]

    def contents(entries):
        return [[r["content"] for r in e["records"]] for e in entries]

    stood, want, now = (
        before(plan.changes),
        wanted(plan.changes),
        read_back(plan.changes, listing(rows)),
    )
    assert heads(stood) == heads(want) == heads(now) == keys
    assert contents(stood) == [[], ["10.70.0.9"]]
    assert contents(want) == contents(now) == [[f"0 0 25565 {HOST}"], ["10.70.0.2"]]
    assert now[1]["records"][0]["record_id"] is not None


def test_reading_back_shows_every_record_of_the_name_and_none_of_another(records, rows):
    change = only_change(records, without(rows, **INNER_A))
    there = next(r for r in rows if all(r[k] == v for k, v in INNER_A.items()))
    twin = {**there, "content": "10.70.0.9", "disabled": True}
    [entry] = read_back((change,), listing([*rows, twin]))
    assert [(r["content"], r["disabled"]) for r in entry["records"]] == [
        ("10.70.0.2", False),
        ("10.70.0.9", True),
    ]
    [entry] = read_back((change,), listing([]))
    assert entry["records"] == []


def test_a_record_survives_the_frame_and_becomes_plain_json():
    record = Record(Surface.CLOUDFLARE, "a", "A", PUBLIC, 60, False, True, "id")
    frame = records_frame([record.to_json()])
    assert Record.from_row(frame.to_dict("records")[0]) == record
    bare = Record(Surface.VELOCITY, "a", "BACKEND", None)
    assert Record.from_row(records_frame([bare.to_json()]).to_dict("records")[0]) == bare
    assert bare.to_json() == {
        "surface": "velocity",
        "name": "a",
        "type": "BACKEND",
        "content": None,
        "ttl": None,
        "proxied": None,
        "disabled": False,
        "record_id": None,
    }
