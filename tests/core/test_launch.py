"""What is asked for now, and what was told already."""

import pytest

from zlh_dagster.core.launch import choose
from zlh_dagster.core.model import Action
from zlh_dagster.core.repair import Decisions, Finding, RepairRequest, Severity

REQUEST = RepairRequest(5000, Action.DNS_REPUBLISH)
OTHER = RepairRequest(5001, Action.EDGE_REPUBLISH)
FINDING = Finding("mass_drift:cloudflare", Severity.CRITICAL, "t", "x")
BOTH = Decisions(repairs=(REQUEST, OTHER), findings=(FINDING,))


def chosen(decisions=BOTH, *, already_open=(), live=True, all_seen=True):
    return choose(decisions, already_open=already_open, live=live, all_seen=all_seen)


@pytest.mark.parametrize("live", [True, False])
def test_what_is_new_is_asked_for_and_told(live):
    made = chosen(live=live)
    assert (made.repairs, made.findings, made.over) == ((REQUEST, OTHER), (FINDING,), ())
    assert made


def test_a_dry_run_is_asked_for_once_while_its_drift_lasts():
    made = chosen(already_open={REQUEST.dry_run_incident}, live=False)
    assert made.repairs == (OTHER,)


def test_a_live_repair_is_asked_for_at_every_tick_while_its_drift_lasts():
    """Budget and guards decide in the repair; an earlier refusal must not give up for ever."""
    told = {*REQUEST.incidents, *OTHER.incidents}
    assert chosen(already_open=told, live=True).repairs == (REQUEST, OTHER)


def test_a_dry_run_told_for_one_action_does_not_silence_another():
    wider = RepairRequest(5000, Action.EDGE_REPUBLISH)
    made = chosen(Decisions(repairs=(wider,)), already_open={REQUEST.dry_run_incident}, live=False)
    assert made.repairs == (wider,)


def test_a_finding_is_told_once_while_it_lasts():
    made = chosen(Decisions(findings=(FINDING,)), already_open={FINDING.incident})
    assert not made
    assert made.over == ()


def test_what_is_no_longer_there_is_over():
    stale = {"orphan:velocity", "dry_run:5007:dns_republish", FINDING.incident}
    assert chosen(already_open=stale).over == ("dry_run:5007:dns_republish", "orphan:velocity")


def test_while_something_is_unseen_nothing_is_taken_for_over():
    """An incident on a surface that could not be read has not ended, it is unknown."""
    assert chosen(Decisions(), already_open={"orphan:velocity"}, all_seen=False).over == ()


@pytest.mark.parametrize("live", [True, False])
def test_incidents_of_a_repair_that_is_still_wanted_stay_open(live):
    assert chosen(already_open=REQUEST.incidents, live=live).over == ()


def test_nothing_decided_is_nothing_to_launch():
    assert not chosen(Decisions())
