"""The laws of the fault suite can be broken."""

from datetime import datetime, timedelta, timezone
from types import SimpleNamespace

import pytest

from tests.faults.laws import check_rows, check_told, check_writes
from tests.faults.usage import Use, judge

NOW = datetime(2026, 11, 1, 12, tzinfo=timezone.utc)


def row(vmid=5000, surface="cloudflare", status="succeeded", token=1, at=0.0):
    began = NOW + timedelta(seconds=at)
    return {
        "vmid": vmid,
        "surface": surface,
        "status": status,
        "fencingToken": token,
        "createdAt": began,
        "finishedAt": began + timedelta(seconds=1),
    }


def write(surface="cloudflare", method="POST", at=0.5):
    moment = (NOW + timedelta(seconds=at)).isoformat()
    return SimpleNamespace(surface=surface, method=method, at=moment)


def test_one_repair_of_what_was_broken_breaks_none():
    rows = [row(status="interrupted"), row(token=2, at=60), row(4711, "agents", "refused")]
    check_rows(rows, "cloudflare", {5000})
    check_writes([write(), write(at=60.5)], rows, "cloudflare")


@pytest.mark.parametrize(
    ("rows", "law"),
    [
        ([], "nothing was repaired"),
        ([row(status="refused")], "nothing was repaired"),
        ([row(), row(5001)], "nobody broke it"),
        ([row(), row(surface="velocity")], "repaired on {'velocity'}"),
        ([row(token=2), row(token=1, at=60)], "older lease"),
        ([row(at=60 * n) for n in range(4)], "over the budget"),
    ],
)
def test_rows_that_break_a_law(rows, law):
    with pytest.raises(AssertionError, match=law):
        check_rows(rows, "cloudflare", {5000})


@pytest.mark.parametrize(
    ("writes", "law"),
    [
        ([write(), write()], "no ledger row"),
        ([write(at=30)], "no ledger row"),
        ([write("velocity")], "nothing was broken"),
        ([write(method="DELETE")], "deleted"),
    ],
)
def test_writes_that_break_a_law(writes, law):
    with pytest.raises(AssertionError, match=law):
        check_writes(writes, [row(), row(status="refused")], "cloudflare")


def test_what_grows_is_told_and_what_was_never_measured_too():
    flat = [{"daemon": Use(7, 100_000, 40), "worker": Use(n, 1, 1)} for n in range(50)]
    assert [text for text, bad in judge(flat) if bad] == ["worker lived through 1 faults at most"]
    leaking = [{"daemon": Use(7, 100_000 + 1_000 * n, 40 + n)} for n in range(50)]
    assert [text for text, bad in judge(leaking) if bad] == [
        "daemon, 50 faults: from 100 to 144 MiB",
        "daemon, 50 faults: from 42 to 87 open files",
    ]


def test_a_row_that_nobody_was_told_of():
    told = [{"title": "Repaired server 5000"}]
    check_told({"succeeded", "refused"}, told)
    for statuses, embeds in (({"succeeded"}, []), ({"failed"}, told), ({"interrupted"}, told)):
        with pytest.raises(AssertionError, match="nobody was told"):
            check_told(statuses, embeds)
