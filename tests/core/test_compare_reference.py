"""The vectorised comparison against one in plain dictionaries, over random small worlds."""

from collections import defaultdict
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from zlh_dagster.core import pairing
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


@contextmanager
def hashed(hash_of: Callable[[str], int]) -> Iterator[None]:
    """Names have these hashes."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(
            pairing,
            "_hashes",
            lambda names: np.array([hash_of(name) for name in names], dtype=np.int64),
        )
        yield


@settings(max_examples=150, deadline=None)
@given(
    wanted=wanted_rows(),
    found=found_rows(),
    hashes=st.fixed_dictionaries({name: st.integers(-(2**63), -(2**63) + 3) for name in NAMES}),
)
def test_names_that_share_a_hash_never_make_a_drift(wanted, found, hashes):
    """Whatever is told is so, by name; only what another name stands in for goes unseen."""
    desired, observed = desired_frame(wanted), records_frame(found)
    expected = [str(row) for row in rows_of(compare(desired, observed))]
    with hashed(hashes.__getitem__):
        told = [str(row) for row in rows_of(compare(desired, observed))]
    assert set(told) <= set(expected)
    alone = {row["name"] for row in (*wanted, *found)}
    if len({hashes[name] for name in alone}) == len(alone):
        assert told == expected


@pytest.mark.parametrize("found", [["other"], ["a", "other"], ["a", "b", "other"], ["b"]])
def test_a_drift_that_shares_a_hash_is_judged_by_name(found):
    """`a` and `b` are wanted and hash alike, and so does `other`, which nobody asks for."""
    desired = desired_frame([server("a", 5000), server("b", 5001)])
    observed = records_frame([record(name, "2") for name in found])
    expected = compare(desired, observed)
    assert len(expected) == 2, "each is missing or wrong"
    with hashed(lambda name: 1):
        pd.testing.assert_frame_equal(compare(desired, observed), expected)


def test_a_missing_record_hides_behind_one_of_the_same_hash_until_anything_shows_it():
    desired = desired_frame([server("a", 5000), server("b", 5001)])
    observed = records_frame([record("b", "1")])
    assert list(compare(desired, observed)["kind"]) == ["missing"]
    with hashed(lambda name: 1):
        assert compare(desired, observed).empty


def server(name: str, vmid: int) -> dict[str, Any]:
    return {**an_a_record(name, "1"), "vmid": vmid, "guard": None}


def record(name: str, content: str) -> dict[str, Any]:
    return {**an_a_record(name, content), "disabled": False, "record_id": f"id-{name}"}


def an_a_record(name: str, content: str) -> dict[str, Any]:
    """What a desired and an observed record have in common."""
    return {
        "surface": "cloudflare",
        "name": name,
        "type": "A",
        "content": content,
        "ttl": 60,
        "proxied": False,
    }
