"""The vectorised comparison against one in plain dictionaries, over random small worlds."""

from collections import defaultdict
from typing import Any

import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from zlh_dagster.core import compare as compare_module
from zlh_dagster.core.compare import compare
from zlh_dagster.core.desired import desired_frame
from zlh_dagster.core.model import records_frame, rows_of

SURFACES = ("cloudflare", "technitium", "velocity")
TYPES = ("A", "SRV", "BACKEND")
NAMES = ("a", "b", "a.b", "A|a")
CONTENTS = ("1", "2", None)
TTLS = (60, 300, None)
PROXIED = (True, False, None)

keys = st.tuples(st.sampled_from(SURFACES), st.sampled_from(NAMES), st.sampled_from(TYPES))
values = st.tuples(
    st.sampled_from(CONTENTS), st.sampled_from(TTLS), st.sampled_from(PROXIED), st.booleans()
)


@st.composite
def wanted_rows(draw) -> list[dict[str, Any]]:
    """Desired records, each key once, as two servers never share a name."""
    chosen = draw(st.lists(keys, unique=True, max_size=8))
    rows = []
    for n, (surface, name, kind) in enumerate(chosen):
        content, ttl, proxied, _ = draw(values)
        rows.append(
            {
                "surface": surface,
                "name": name,
                "type": kind,
                "content": content,
                "ttl": ttl,
                "proxied": proxied,
                "vmid": 5000 + n,
                "guard": draw(st.sampled_from([None, "suspended"])),
            }
        )
    return rows


@st.composite
def found_rows(draw) -> list[dict[str, Any]]:
    """Listings with anything in them: duplicates, disabled ones, CNAMEs."""
    rows = []
    for n, (surface, name, kind) in enumerate(draw(st.lists(keys, max_size=14))):
        content, ttl, proxied, disabled = draw(values)
        rows.append(
            {
                "surface": surface,
                "name": name,
                "type": draw(st.sampled_from([kind, kind, kind, "CNAME"])),
                "content": content,
                "ttl": ttl,
                "proxied": proxied,
                "disabled": disabled,
                "record_id": f"id-{n}",
            }
        )
    return rows


def reference(
    wanted: list[dict[str, Any]], found: list[dict[str, Any]]
) -> dict[tuple[str, str, str], str]:
    """Kinds of drift by key, one record at a time."""
    by_key = defaultdict(list)
    cnames = set()
    for row in found:
        by_key[row["surface"], row["name"], row["type"]].append(row)
        if row["type"] == "CNAME" and not row["disabled"]:
            cnames.add((row["surface"], row["name"]))
    kinds = {}
    for want in wanted:
        key = (want["surface"], want["name"], want["type"])
        there = by_key[key]
        served = [row for row in there if not row["disabled"]]
        if not there:
            kinds[key] = "conflict" if key[:2] in cnames else "missing"
        elif len(there) == 1:
            if not served:
                kinds[key] = "disabled"
            elif not same(want, served[0]):
                kinds[key] = "wrong"
        elif len(served) != 1 or not same(want, served[0]):
            kinds[key] = "duplicate"
    return kinds


def same(want: dict[str, Any], row: dict[str, Any]) -> bool:
    """Whether what is told of a record is what is wanted of it."""
    return all(
        want[field] is None or row[field] is None or want[field] == row[field]
        for field in ("content", "ttl", "proxied")
    )


def kinds_of(frame: pd.DataFrame) -> dict[tuple[str, str, str], str]:
    rows = rows_of(frame)
    kinds = {(r["surface"], r["name"], r["type"]): r["kind"] for r in rows}
    assert len(kinds) == len(rows), "a desired record drifts once at the most"
    return kinds


@settings(max_examples=100, deadline=None)
@given(wanted=wanted_rows(), found=found_rows())
def test_compare_agrees_with_the_slow_reference(wanted, found):
    frame = compare(desired_frame(wanted), records_frame(found))
    assert kinds_of(frame) == reference(wanted, found)


@settings(max_examples=40, deadline=None)
@given(wanted=wanted_rows(), found=found_rows(), chance=st.randoms(use_true_random=False))
def test_no_order_changes_what_drifts(wanted, found, chance):
    before = kinds_of(compare(desired_frame(wanted), records_frame(found)))
    chance.shuffle(wanted)
    chance.shuffle(found)
    assert kinds_of(compare(desired_frame(wanted), records_frame(found))) == before


@settings(max_examples=40, deadline=None)
@given(wanted=wanted_rows())
def test_what_is_exactly_as_desired_never_drifts(wanted):
    records = desired_frame(wanted)
    assert compare(records, records).empty


@settings(max_examples=50, deadline=None)
@given(wanted=wanted_rows(), found=found_rows())
def test_what_is_shown_as_found_was_really_found(wanted, found):
    """The identifier that a repair would change belongs to a record of that very key."""
    by_id = {row["record_id"]: row for row in found}
    by_key = {(row["surface"], row["name"], row["type"]): row for row in wanted}
    for row in rows_of(compare(desired_frame(wanted), records_frame(found))):
        key = (row["surface"], row["name"], row["type"])
        assert row["vmid"] == by_key[key]["vmid"]
        if row["kind"] in ("missing", "conflict"):
            assert row["record_id"] is None or pd.isna(row["record_id"])
        else:
            there = by_id[row["record_id"]]
            assert (there["surface"], there["name"], there["type"]) == key
            assert row["found"] == there["content"] or pd.isna(row["found"])


@settings(max_examples=60, deadline=None)
@given(wanted=wanted_rows(), found=found_rows(), hashes=st.integers(1, 3))
def test_names_that_share_a_hash_are_still_told_apart(wanted, found, hashes):
    desired, observed = desired_frame(wanted), records_frame(found)
    expected = compare(desired, observed)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(compare_module, "hash", lambda name: len(name) % hashes, raising=False)
        found_again = compare(desired, observed)
    pd.testing.assert_frame_equal(found_again, expected)
