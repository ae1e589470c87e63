"""What is asked for now, and what was told already."""

from dataclasses import replace

import pytest

from zlh_dagster.core.incidents import REMINDERS, RETRY_SECONDS, Incident
from zlh_dagster.core.launch import REPAIR_RUN_FAILED, choose
from zlh_dagster.core.model import Action
from zlh_dagster.core.repair import Decisions, Finding, Refusal, RepairRequest
from zlh_dagster.core.rules import Severity

NOW = 1_900_000_000.0
REQUEST = RepairRequest(5000, Action.DNS_REPUBLISH)
OTHER = RepairRequest(5001, Action.EDGE_REPUBLISH)
SOURCES = ("cloudflare_records", "persisted_payloads")
FINDING = Finding("mass_drift:cloudflare", Severity.CRITICAL, "t", "x", sources=SOURCES)
BOTH = Decisions(repairs=(REQUEST, OTHER), findings=(FINDING,))


def known(*names, absent=False, sources=SOURCES):
    """Open incidents; ``absent`` says that the tick before did not find them either."""
    return {
        name: Incident(
            name,
            Severity.WARNING,
            name,
            opened_at=NOW - 90,
            sources=sources,
            absent_since=NOW - 60 if absent else None,
        )
        for name in names
    }


def chosen(decisions=BOTH, *, open_incidents=None, live=True, unseen=()):
    return choose(decisions, open_incidents=open_incidents or {}, unseen=unseen, live=live, now=NOW)


@pytest.mark.parametrize("live", [True, False])
def test_what_is_new_is_asked_for_and_told(live):
    made = chosen(live=live)
    assert (made.repairs, made.findings) == ((REQUEST, OTHER), (FINDING,))
    assert made.incidents.over == ()
    assert made


def test_a_dry_run_is_asked_for_once_while_its_drift_lasts():
    made = chosen(open_incidents=known(REQUEST.dry_run_incident), live=False)
    assert made.repairs == (OTHER,)


def test_a_live_repair_is_asked_for_at_every_tick_while_its_drift_lasts():
    """Budget and guards decide in the repair; an earlier refusal must not give up for ever."""
    told = known(*REQUEST.incidents, *OTHER.incidents)
    assert chosen(open_incidents=told, live=True).repairs == (REQUEST, OTHER)


STALE = RepairRequest(5000, Action.CLEAR_STALE_OPERATION_LOCK, target="op-1")


@pytest.mark.parametrize("name", [STALE.refusal_incident, STALE.failure_incident])
def test_a_repair_beside_the_edge_that_was_refused_or_failed_waits_before_the_next_try(name):
    """It would be refused again every minute, a run each time."""
    told = known(name)
    assert chosen(Decisions(repairs=(STALE,)), open_incidents=told).repairs == ()
    old = {name: replace(told[name], opened_at=NOW - RETRY_SECONDS)}
    made = chosen(Decisions(repairs=(STALE,)), open_incidents=old)
    assert (made.repairs, made.incidents.tried) == ((STALE,), (name,))
    tried = {name: replace(old[name], tried_at=NOW - RETRY_SECONDS + 1)}
    made = chosen(Decisions(repairs=(STALE,)), open_incidents=tried)
    assert (made.repairs, made.incidents.tried, made.incidents.over) == ((), (), ())
    ahead = {name: replace(old[name], tried_at=NOW + 5)}
    assert chosen(Decisions(repairs=(STALE,)), open_incidents=ahead).repairs == (STALE,)


@pytest.mark.parametrize("request_", [REQUEST, STALE])
def test_in_dry_run_what_is_refused_is_not_asked_for_every_minute(request_):
    told = known(request_.refusal_incident)
    made = chosen(Decisions(repairs=(request_,)), open_incidents=told, live=False)
    assert made.repairs == ()


def test_a_dry_run_told_for_one_action_does_not_silence_another():
    wider = RepairRequest(5000, Action.EDGE_REPUBLISH)
    told = known(REQUEST.dry_run_incident)
    made = chosen(Decisions(repairs=(wider,)), open_incidents=told, live=False)
    assert made.repairs == (wider,)


def test_a_finding_is_told_once_while_it_lasts():
    made = chosen(Decisions(findings=(FINDING,)), open_incidents=known(FINDING.incident))
    assert not made
    assert made.incidents.over == ()


def test_what_is_no_longer_there_at_two_ticks_is_over():
    stale = ("orphan:velocity", "dry_run:5007:dns_republish", FINDING.incident)
    once = chosen(open_incidents=known(*stale)).incidents
    assert (once.over, once.absent) == ((), ("dry_run:5007:dns_republish", "orphan:velocity"))
    twice = chosen(open_incidents=known(*stale, absent=True)).incidents
    assert (twice.over, twice.absent) == (("dry_run:5007:dns_republish", "orphan:velocity"), ())


@pytest.mark.parametrize("unseen", SOURCES)
def test_while_its_source_is_unseen_nothing_is_taken_for_over(unseen):
    """An incident on a surface that could not be read has not ended, it is unknown."""
    gone = known("duplicate:cloudflare:5000:A", absent=True)
    made = chosen(Decisions(), open_incidents=gone, unseen={unseen})
    assert made.incidents.over == made.incidents.absent == ()
    assert not made


def test_what_another_source_says_does_not_keep_an_incident_open():
    gone = known("duplicate:cloudflare:5000:A", absent=True)
    made = chosen(Decisions(), open_incidents=gone, unseen={"containers", "velocity_backends"})
    assert made.incidents.over == ("duplicate:cloudflare:5000:A",)


@pytest.mark.parametrize("live", [True, False])
@pytest.mark.parametrize("absent", [True, False])
def test_incidents_of_a_repair_that_is_still_wanted_stay_open(live, absent):
    told = known(*REQUEST.incidents, absent=absent)
    assert chosen(open_incidents=told, live=live).incidents.over == ()


def test_what_a_pause_keeps_back_is_not_asked_for_and_its_incidents_stay_open():
    """Nothing was repaired meanwhile: the drift is still there."""
    held = Decisions(kept_back=((REQUEST, Refusal("paused", "repairs are paused")),))
    made = chosen(held, open_incidents=known(*REQUEST.incidents, absent=True))
    assert made.repairs == ()
    assert made.incidents.over == ()
    assert set(made.incidents.back) == set(REQUEST.incidents)


def test_what_is_held_back_is_not_asked_for_and_its_incidents_are_not_over():
    """Mass drift or a guard hides the fault, and ends it not."""
    told = known(*REQUEST.incidents, absent=True)
    made = chosen(Decisions(lasting=(REQUEST,)), open_incidents=told)
    assert made.repairs == ()
    assert made.incidents.over == ()


def test_a_failure_to_begin_lasts_until_a_run_can_begin_or_none_is_needed():
    failed = known(REPAIR_RUN_FAILED, absent=True, sources=())
    assert chosen(Decisions(repairs=(REQUEST,)), open_incidents=failed).incidents.over == ()
    assert chosen(Decisions(findings=(FINDING,)), open_incidents=failed).incidents.over == ()
    assert chosen(Decisions(), open_incidents=failed).incidents.over == (REPAIR_RUN_FAILED,)


@pytest.mark.parametrize("name", ["run_failed:digest", "run_failed:retention"])
def test_a_failed_job_lasts_until_its_own_next_success_calls_it_absent(name):
    made = chosen(Decisions(), open_incidents=known(name, sources=())).incidents
    assert (made.over, made.absent) == ((), ())
    made = chosen(Decisions(), open_incidents=known(name, absent=True, sources=())).incidents
    assert (made.over, made.back) == ((name,), ())


def test_a_reminder_alone_is_worth_a_run():
    told = known(FINDING.incident)
    old = replace(told[FINDING.incident], opened_at=NOW - REMINDERS[0])
    made = chosen(Decisions(findings=(FINDING,)), open_incidents={FINDING.incident: old})
    assert made
    assert (made.repairs, made.findings, made.incidents.due) == ((), (), (FINDING.incident,))


def test_an_incident_absent_for_the_first_time_is_no_reason_for_a_run():
    assert not chosen(Decisions(), open_incidents=known("orphan:velocity"))


def test_nothing_decided_is_nothing_to_launch():
    assert not chosen(Decisions())
