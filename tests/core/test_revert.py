"""What a revert puts back, and what it leaves alone and why."""

from dataclasses import replace

import pytest

from tests.core.builders import container, desired, in_step, listing
from zlh_dagster.core.changes import Plan
from zlh_dagster.core.model import DriftKind, Record, Surface
from zlh_dagster.core.repair import Status
from zlh_dagster.core.revert import event_refusal, plan_revert

HOST = "mc-5000.example.gg"
WANTED = desired(container()).records
NOW_A = Record(Surface.CLOUDFLARE, HOST, "A", "203.0.113.10", 60, False, record_id="id-0")
OLD_A = replace(NOW_A, content="198.51.100.7", ttl=300, record_id="old")


def entry(record, *records):
    return {
        "surface": record.surface.value,
        "name": record.name,
        "type": record.type,
        "records": [r.to_json() for r in records],
    }


def event(before=(OLD_A,), after=(NOW_A,), **values):
    return {
        "action": "dns_republish",
        "status": "succeeded",
        "before": [entry(NOW_A, *before)],
        "after": None if after is None else [entry(NOW_A, *after)],
        **values,
    }


def rows(*records):
    """The edge of the server, its public A record as given."""
    kept = [
        row
        for row in in_step(WANTED)
        if not (row["surface"] == "cloudflare" and row["type"] == "A")
    ]
    return listing([*kept, *(record.to_json() for record in records)])


def planned(given=None, *records, wanted=WANTED):
    return plan_revert(given or event(), desired=wanted, observed=rows(*records))


# --- which rows ----------------------------------------------------------------------------------


@pytest.mark.parametrize("action", ["dns_republish", "edge_republish", "revert"])
@pytest.mark.parametrize("status", [Status.SUCCEEDED, Status.FAILED, Status.INTERRUPTED])
def test_a_row_that_may_have_written_records_can_be_reverted(action, status):
    assert event_refusal({"action": action, "status": status.value}, "x") is None


@pytest.mark.parametrize(
    ("action", "status", "code"),
    [
        ("velocity_reregister", "succeeded", "not_revertible"),
        ("clear_stale_operation_lock", "succeeded", "not_revertible"),
        ("stop_suspended_workload", "succeeded", "not_revertible"),
        ("dns_republish", "dry_run", "not_revertible"),
        ("dns_republish", "refused", "not_revertible"),
        ("dns_republish", "running", "not_revertible"),
    ],
)
def test_a_row_that_overwrote_nothing_cannot(action, status, code):
    assert event_refusal({"action": action, "status": status}, "x").code == code


def test_an_unknown_row_cannot_and_the_message_says_where_they_are_listed():
    refusal = event_refusal(None, "abc")
    assert refusal.code == "no_such_event"
    assert "abc" in refusal.message
    assert "zlh events" in refusal.message


# --- what is put back ----------------------------------------------------------------------------


def test_what_was_overwritten_is_put_back_in_place():
    plan = planned(event(), NOW_A)
    [change] = plan.changes
    assert plan.left_alone == ()
    assert (change.kind, change.wanted, change.found) == (DriftKind.WRONG, OLD_A, NOW_A)


def test_what_is_as_it_was_already_needs_nothing():
    assert planned(event(), replace(OLD_A, record_id="other")) == Plan()


@pytest.mark.parametrize(
    ("given", "there", "why"),
    [
        (event(before=()), [NOW_A], "the repair created it; nothing is deleted"),
        (event(), [], "0 records are there where one is expected"),
        (event(), [NOW_A, replace(NOW_A, content="198.51.100.9")], "2 records are there"),
        (event(), [replace(NOW_A, content="198.51.100.9")], "somebody has changed it since"),
        (event(), [replace(NOW_A, ttl=120)], "somebody has changed it since"),
        (event(), [replace(NOW_A, proxied=True)], "somebody has changed it since"),
        (event(before=(replace(NOW_A, disabled=True),)), [NOW_A], "it was disabled before"),
    ],
)
def test_what_is_not_as_the_repair_left_it_is_left_alone(given, there, why):
    plan = planned(given, *there)
    assert plan.changes == ()
    [reason] = plan.left_alone
    assert reason.startswith(f"cloudflare A {HOST}: ")
    assert why in reason


@pytest.mark.parametrize("after", [None, ()])
@pytest.mark.parametrize(("now", "written"), [(NOW_A, True), (replace(NOW_A, ttl=90), False)])
def test_without_a_read_after_it_what_the_payload_asks_for_is_what_the_repair_made(
    after, now, written
):
    """An interrupted repair never saw what it made; what somebody changed since is still theirs."""
    plan = planned(event(after=after, status="interrupted"), now)
    assert bool(plan.changes) is written
    assert bool(plan.left_alone) is not written


def test_a_name_that_the_payload_does_not_ask_for_any_more_is_left_alone():
    renamed = desired(container(hostname="other")).records
    plan = planned(event(), NOW_A, wanted=renamed)
    assert plan.changes == ()
    assert "does not ask for that name any more" in plan.left_alone[0]


def test_a_name_of_another_server_is_not_its_own():
    plan = planned(event(), NOW_A, wanted=desired(container(5001)).records)
    assert plan.changes == ()


def test_each_record_is_decided_by_itself():
    srv = Record(
        Surface.CLOUDFLARE, f"_minecraft._tcp.{HOST}", "SRV", f"0 0 25565 {HOST}", 60, record_id="s"
    )
    both = event()
    both["before"].append(entry(srv))
    both["after"].append(entry(srv, srv))
    plan = planned(both, NOW_A)
    assert [change.wanted for change in plan.changes] == [OLD_A]
    assert plan.left_alone == (
        f"cloudflare SRV _minecraft._tcp.{HOST}: the repair created it; nothing is deleted",
    )


@pytest.mark.parametrize("before", [None, []])
def test_a_row_without_records_puts_nothing_back(before):
    assert planned(event() | {"before": before}, NOW_A) == Plan()
