"""Every way in which a surface can differ from what the payloads ask for."""

import random
import time

import pytest

from tests.core.builders import changed, container, desired, fleet, in_step, listing, without
from zlh_dagster.core.compare import DRIFT_COLUMNS, compare, empty_drift
from zlh_dagster.core.desired import desired_frame
from zlh_dagster.core.model import rows_of

HOST = "mc-5000.example.gg"
SRV = f"_minecraft._tcp.{HOST}"
PUBLIC_A = {"surface": "cloudflare", "type": "A", "name": HOST}
PUBLIC_SRV = {"surface": "cloudflare", "type": "SRV", "name": SRV}
INNER_A = {"surface": "technitium", "type": "A", "name": HOST}
BACKEND = {"surface": "velocity", "type": "BACKEND", "name": "mc-5000"}


def drifts(wanted, rows) -> list[tuple]:
    frame = compare(wanted, listing(rows))
    assert dict(frame.dtypes.astype(str)) == DRIFT_COLUMNS
    return [(r["surface"], r["type"], r["kind"], r["vmid"]) for r in rows_of(frame)]


@pytest.fixture
def wanted():
    return fleet(3)


@pytest.fixture
def rows(wanted):
    return in_step(wanted)


def test_an_edge_in_step_has_no_drift(wanted, rows):
    frame = compare(wanted, listing(rows))
    assert frame.empty
    assert dict(frame.dtypes.astype(str)) == DRIFT_COLUMNS == dict(empty_drift().dtypes.astype(str))


@pytest.mark.parametrize("key", [PUBLIC_A, PUBLIC_SRV, INNER_A, BACKEND])
def test_a_record_that_is_gone_is_missing(wanted, rows, key):
    left = without(rows, **key)
    assert drifts(wanted, left) == [(key["surface"], key["type"], "missing", 5000)]
    [row] = rows_of(compare(wanted, listing(left)))
    assert row["found"] is None or row["found"] != row["found"]
    assert row["wanted"] == next(r["content"] for r in rows if r not in left)


@pytest.mark.parametrize(
    ("key", "values"),
    [
        (PUBLIC_A, {"content": "198.51.100.1"}),
        (PUBLIC_A, {"ttl": 300}),
        (PUBLIC_A, {"proxied": True}),
        (PUBLIC_SRV, {"content": f"0 0 25566 {HOST}"}),
        (PUBLIC_SRV, {"content": f"0 5 25565 {HOST}"}),
        (PUBLIC_SRV, {"content": "0 0 25565 elsewhere.example.gg"}),
        (PUBLIC_SRV, {"ttl": 61}),
        (INNER_A, {"content": "10.70.0.3"}),
        (BACKEND, {"content": "10.60.0.1:25566"}),
    ],
)
def test_the_only_record_of_a_name_with_another_value_is_wrong(wanted, rows, key, values):
    assert drifts(wanted, changed(rows, key, **values)) == [
        (key["surface"], key["type"], "wrong", 5000)
    ]


def test_a_wrong_record_is_shown_as_it_was_found(wanted, rows):
    found = changed(rows, PUBLIC_A, content="198.51.100.1", ttl=300, proxied=True)
    [row] = rows_of(compare(wanted, listing(found)))
    record_id = next(r["record_id"] for r in found if r["content"] == "198.51.100.1")
    assert (row["wanted"], row["wanted_ttl"]) == ("203.0.113.10", 60)
    assert (row["found"], row["found_ttl"], row["found_proxied"]) == ("198.51.100.1", 300, True)
    assert row["record_id"] == record_id


@pytest.mark.parametrize(
    ("key", "values"),
    [
        (PUBLIC_A, {"ttl": None}),  # automatic: the provider's own choice
        (PUBLIC_A, {"proxied": None}),
        (INNER_A, {"proxied": True}),  # nothing is wanted of it there
        (BACKEND, {"content": None}),  # an older bridge tells no address
        (PUBLIC_A, {"record_id": None}),
    ],
)
def test_what_a_provider_does_not_tell_is_no_drift(wanted, rows, key, values):
    assert drifts(wanted, changed(rows, key, **values)) == []


def test_a_disabled_record_is_not_served_and_so_is_drift(wanted, rows):
    off = changed(rows, INNER_A, disabled=True)
    assert drifts(wanted, off) == [("technitium", "A", "disabled", 5000)]
    also_wrong = changed(off, INNER_A, content="10.70.0.9")
    assert drifts(wanted, also_wrong) == [("technitium", "A", "disabled", 5000)]


@pytest.mark.parametrize(
    ("more", "kind"),
    [
        ([{"disabled": True}], None),
        ([{"disabled": True, "content": "10.70.0.9"}], None),
        ([{"disabled": True}, {"disabled": True, "ttl": 5}], None),
        ([{"content": "10.70.0.9"}], "duplicate"),
        ([{}], "duplicate"),
        ([{"content": "10.70.0.9"}, {"disabled": True}], "duplicate"),
    ],
)
@pytest.mark.parametrize("first", [True, False])
def test_what_stands_beside_a_right_record(wanted, rows, more, kind, first):
    """A disabled record beside it is not served, so the name is as it should be."""
    [right] = [r for r in rows if all(r[k] == v for k, v in INNER_A.items())]
    extra = [{**right, **values} for values in more]
    found = [*extra, *rows] if first else [*rows, *extra]
    expected = [("technitium", "A", kind, 5000)] if kind else []
    assert drifts(wanted, found) == expected


@pytest.mark.parametrize(
    "both",
    [
        ({"content": "10.70.0.9"}, {"disabled": True}),
        ({"disabled": True}, {"disabled": True, "content": "10.70.0.9"}),
        ({"content": "10.70.0.8"}, {"content": "10.70.0.9"}),
    ],
)
def test_two_records_of_which_none_is_right_are_for_the_operator(wanted, rows, both):
    """Which of the two should be changed is not for this program to guess."""
    [right] = [r for r in rows if all(r[k] == v for k, v in INNER_A.items())]
    found = [*without(rows, **INNER_A), *({**right, **values} for values in both)]
    assert drifts(wanted, found) == [("technitium", "A", "duplicate", 5000)]


def cname(name: str, **values):
    return {
        "surface": "cloudflare",
        "type": "CNAME",
        "name": name,
        "content": "elsewhere.example.com",
        "record_id": "cname",
        **values,
    }


def test_a_cname_in_the_way_is_a_conflict_and_not_a_missing_record(wanted, rows):
    found = [*without(rows, **PUBLIC_A), cname(HOST)]
    assert drifts(wanted, found) == [("cloudflare", "A", "conflict", 5000)]
    found = [*without(rows, **PUBLIC_SRV), cname(SRV)]
    assert drifts(wanted, found) == [("cloudflare", "SRV", "conflict", 5000)]


@pytest.mark.parametrize(
    "values", [{"disabled": True}, {"surface": "technitium"}, {"name": "www.example.gg"}]
)
def test_a_cname_that_holds_nothing_up_leaves_the_record_missing(wanted, rows, values):
    found = [*without(rows, **PUBLIC_A), {**cname(HOST), **values}]
    assert drifts(wanted, found) == [("cloudflare", "A", "missing", 5000)]


def test_records_of_one_surface_do_not_count_on_another(wanted, rows):
    """The same name and type stand in both zones; each is judged by its own zone."""
    found = [r for r in rows if r["surface"] != "technitium"]
    kinds = drifts(wanted, found)
    assert {surface for surface, *_ in kinds} == {"technitium"}
    assert len(kinds) == 6


def test_drift_carries_the_guard_of_its_server():
    records = desired(container(5000, lifecycle="suspended"), container(5001)).records
    frame = compare(records, listing([]))
    guards = {(r["vmid"], r["guard"]) for r in rows_of(frame)}
    assert guards == {(5000, "lifecycle is suspended, not active"), (5001, None)}


def test_the_order_of_either_side_does_not_matter(wanted, rows):
    found = changed(without(rows, **PUBLIC_SRV), INNER_A, content="10.70.0.9")
    expected = {tuple(d) for d in drifts(wanted, found)}
    chance = random.Random(7)
    for _ in range(20):
        chance.shuffle(found)
        shuffled = wanted.sample(frac=1, random_state=chance.randrange(1000))
        assert {tuple(d) for d in drifts(shuffled, found)} == expected
        assert len(expected) == 2


def test_drift_comes_in_the_order_of_the_desired_records(wanted):
    frame = compare(wanted, listing([]))
    assert list(zip(frame["surface"], frame["name"], strict=True)) == list(
        zip(wanted["surface"], wanted["name"], strict=True)
    )


def test_neither_side_is_changed(wanted, rows):
    found = listing(changed(rows, PUBLIC_A, content="198.51.100.1"))
    before_wanted, before_found = wanted.copy(deep=True), found.copy(deep=True)
    compare(wanted, found)
    assert wanted.equals(before_wanted)
    assert found.equals(before_found)


def test_nothing_wanted_is_no_drift_whatever_is_there(rows):
    assert drifts(desired_frame([]), rows) == []
    assert drifts(desired_frame([]), []) == []


def test_everything_is_missing_from_an_empty_listing(wanted):
    assert [kind for *_, kind, _ in drifts(wanted, [])] == ["missing"] * 15


def test_a_fleet_of_20_000_is_counted_right_and_soon():
    """100,000 records with one drift of each kind in a hundred servers."""
    wanted = fleet(20_000)
    assert len(wanted) == 100_000
    rows = in_step(wanted)
    kept = []
    for row in rows:
        vmid = int(row["name"].removeprefix("_minecraft._tcp.").split(".")[0].split("-")[1])
        if row["surface"] == "cloudflare" and row["type"] == "A":
            if vmid % 100 == 1:
                continue
            if vmid % 100 == 2:
                row = {**row, "content": "198.51.100.1"}
            if vmid % 100 == 3:
                kept.append({**row, "content": "198.51.100.1"})
        if row["surface"] == "technitium" and row["type"] == "SRV" and vmid % 100 == 4:
            row = {**row, "disabled": True}
        kept.append(row)
    found = listing(kept)
    started = time.process_time()
    frame = compare(wanted, found)
    assert time.process_time() - started < 5
    assert frame["kind"].value_counts().to_dict() == {
        "missing": 200,
        "wrong": 200,
        "duplicate": 200,
        "disabled": 200,
    }
    assert frame["vmid"].nunique() == 800
