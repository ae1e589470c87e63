"""What a run writes down of what it did not repair: once while it lasts, always by hand."""

from dataclasses import replace

import pytest

from zlh_dagster.core.incidents import Incident
from zlh_dagster.core.model import Action, Surface
from zlh_dagster.core.repair import (
    BREAKER_OPEN,
    CONTROLLER,
    OPERATOR,
    SURFACE_BREAKER_OPEN,
    Finding,
    Refusal,
    RepairRequest,
    Status,
)
from zlh_dagster.core.rules import Severity
from zlh_dagster.resources.batch import Batch, Recorder, converged
from zlh_dagster.resources.ledger import Fenced, Ledger

REQUEST = RepairRequest(5000, Action.DNS_REPUBLISH, (Surface.CLOUDFLARE,), reason="A missing")
OPERATION = RepairRequest(None, Action.FAIL_STUCK_PROVISIONING, target="op-1")
REFUSAL = Refusal("lifecycle", "lifecycle is suspended, not active")
BATCH = Batch(
    repairs=(),
    findings=(),
    requested_by=CONTROLLER,
    run_id="run-1",
    live=True,
    fencing_token=3,
)


@pytest.fixture
def ledger(platform):
    return Ledger(platform.engine)


@pytest.fixture
def recorder(ledger):
    """Makes recorders; ``known`` are names of incidents that are open."""

    def make(*known, severity=Severity.WARNING, **values):
        open_incidents = {name: Incident(name, severity, name, code=REFUSAL.code) for name in known}
        return Recorder(replace(BATCH, **values), ledger, open_incidents)

    return make


def rows(ledger):
    return [(event["action"], event["status"]) for event in ledger.events()]


# --- refusals ------------------------------------------------------------------------------------


def test_a_refusal_is_a_row_an_incident_and_news(recorder, ledger):
    made = recorder()
    outcome = made.refuse(REQUEST, REFUSAL)
    [event] = ledger.events()
    assert (event["status"], event["error"]) == ("refused", REFUSAL.to_json())
    assert (event["vmid"], event["surface"], event["level"]) == (5000, "cloudflare", 1)
    assert (event["reason"], event["runId"], event["fencingToken"]) == ("A missing", "run-1", 3)
    assert (outcome.status, outcome.code, outcome.is_news) == (Status.REFUSED, "lifecycle", True)
    assert outcome.event_id == event["id"]
    [opened] = made.opened
    assert opened.incident == outcome.incident == "refused:5000:edge"
    assert (opened.severity, opened.text) == (Severity.WARNING, REFUSAL.message)
    assert set(opened.sources) == {"cloudflare_records", "persisted_payloads"}


def test_a_refusal_that_lasts_is_neither_written_nor_told_again(recorder, ledger):
    made = recorder(REQUEST.refusal_incident)
    outcome = made.refuse(REQUEST, REFUSAL)
    assert (outcome.status, outcome.is_news, outcome.event_id) == (Status.REFUSED, False, None)
    assert rows(ledger) == []
    assert made.opened == []


@pytest.mark.parametrize(("code", "news"), [("maintenance", False), (SURFACE_BREAKER_OPEN, True)])
def test_a_refusal_for_another_reason_is_a_row_and_is_told_only_when_it_is_worse(
    recorder, ledger, code, news
):
    made = recorder(REQUEST.refusal_incident)
    outcome = made.refuse(REQUEST, Refusal(code, "for another reason"))
    [event] = ledger.events()
    assert (event["status"], event["error"]["code"]) == ("refused", code)
    assert (outcome.event_id, outcome.is_news) == (event["id"], news)
    assert made.opened == []
    [changed] = made.changed
    assert (changed.incident, changed.text) == (REQUEST.refusal_incident, "for another reason")
    assert made.codes == {REQUEST.refusal_incident: code}
    assert changed.severity is (Severity.CRITICAL if news else Severity.WARNING)


def test_what_became_worse_stays_so(recorder, ledger):
    """The channel of what follows is that of the worst that was told."""
    made = recorder(REQUEST.refusal_incident, severity=Severity.CRITICAL)
    assert not made.refuse(REQUEST, Refusal("maintenance", "locked")).is_news
    assert made.changed[0].severity is Severity.CRITICAL


def test_an_open_breaker_calls_the_operator_under_the_breakers_own_name(recorder):
    """The tick that finds the breaker open must not tell it a second time."""
    made = recorder()
    outcome = made.refuse(REQUEST, Refusal(BREAKER_OPEN, "3 repairs within an hour"))
    assert outcome.incident == "breaker:server:5000"
    assert outcome.escalated
    assert made.opened[0].severity is Severity.CRITICAL


def test_a_surfaces_open_breaker_calls_the_operator_too(recorder):
    made = recorder()
    outcome = made.refuse(REQUEST, Refusal(SURFACE_BREAKER_OPEN, "5 failures in a row"))
    assert (outcome.incident, outcome.escalated) == (REQUEST.refusal_incident, True)
    assert made.opened[0].severity is Severity.CRITICAL


def test_a_budget_that_a_dry_run_finds_spent_is_no_open_breaker(recorder):
    """No tick would find such a breaker, so it would be over, and told again, for ever."""
    outcome = recorder(live=False).refuse(REQUEST, Refusal(BREAKER_OPEN, "3 repairs"))
    assert outcome.incident == REQUEST.refusal_incident


def test_a_refusal_by_hand_is_always_told_and_opens_nothing_that_lasts(recorder, ledger):
    """No tick asks for it, so no tick could find that it is over."""
    made = recorder(REQUEST.refusal_incident, requested_by=OPERATOR)
    for _ in range(2):
        assert made.refuse(REQUEST, REFUSAL).is_news
    assert rows(ledger) == [("dns_republish", "refused")] * 2
    assert {event["requestedBy"] for event in ledger.events()} == {"operator"}
    assert made.opened == []


def test_the_refusal_of_an_operation_is_named_after_it(recorder):
    made = recorder()
    outcome = made.refuse(OPERATION, Refusal("container_exists", "x"))
    assert outcome.incident == "refused:op-1:fail_stuck_provisioning"
    assert outcome.name == "operation op-1"
    assert made.opened[0].title == "Operation op-1: repair refused: fail stuck provisioning"
    assert made.opened[0].sources == ("operations",)


# --- dry runs and failures -----------------------------------------------------------------------


def test_a_dry_run_is_one_row_for_as_long_as_it_lasts(recorder, ledger):
    before, after = [{"records": []}], [{"records": ["x"]}]
    made = recorder()
    outcome = made.dry_run(REQUEST, before=before, after=after, changes=("cloudflare A",))
    [event] = ledger.events()
    assert (event["status"], event["before"], event["after"]) == ("dry_run", before, after)
    assert (outcome.incident, outcome.changes) == (REQUEST.dry_run_incident, ("cloudflare A",))
    assert made.opened[0].severity is Severity.REPAIR
    lasting = recorder(REQUEST.dry_run_incident)
    assert not lasting.dry_run(REQUEST, before=before, after=after, changes=()).is_news
    assert len(ledger.events()) == 1


def test_a_failure_is_told_once_while_it_lasts_and_writes_no_row_of_its_own(recorder, ledger):
    first, lasting = recorder(), recorder(REQUEST.failure_incident)
    outcome = first.failed(REQUEST, "HTTP 500", event_id="row")
    assert (outcome.is_news, outcome.event_id, outcome.code) == (True, "row", "repair_failed")
    assert first.opened[0].severity is Severity.CRITICAL
    assert not lasting.failed(REQUEST, "HTTP 500").is_news
    assert rows(ledger) == []


# --- findings ------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("action", "expected"),
    [(Action.RESTART_AGENT, [("restart_agent", "refused")]), (None, [])],
)
def test_a_finding_is_news_once_and_a_recommended_action_stands_in_the_ledger(
    recorder, ledger, action, expected
):
    finding = Finding("agent_offline:5000", Severity.WARNING, "t", "x", action, 5000)
    made = recorder()
    assert made.finding(finding)
    assert made.opened == [finding]
    assert rows(ledger) == expected
    assert not recorder(finding.incident).finding(finding)
    assert rows(ledger) == expected


def test_a_recommended_action_is_written_with_its_own_level(recorder, ledger):
    recorder().finding(
        Finding("x:1", Severity.WARNING, "t", "x", Action.VELOCITY_REPOINT, 5000, Surface.VELOCITY)
    )
    [event] = ledger.events()
    assert (event["level"], event["surface"]) == (2, "velocity")
    assert event["error"] == {"code": "x", "message": "x"}


# --- the rest ------------------------------------------------------------------------------------


def test_a_controller_that_was_replaced_records_nothing(recorder, ledger):
    later = replace(BATCH, fencing_token=4)
    ledger.record(later.entry(REQUEST), Status.REFUSED)
    with pytest.raises(Fenced):
        recorder().refuse(REQUEST, REFUSAL)
    assert len(ledger.events()) == 1


@pytest.mark.parametrize(
    ("request_", "surface"),
    [
        (REQUEST, "cloudflare"),
        (RepairRequest(5000, Action.EDGE_REPUBLISH), None),
        (RepairRequest(5000, Action.VELOCITY_REREGISTER), "velocity"),
        (OPERATION, None),
    ],
)
def test_a_row_names_its_surface_only_where_there_is_one(request_, surface):
    assert BATCH.entry(request_).surface == surface


def test_a_row_says_why_also_when_nobody_said_so():
    assert BATCH.entry(REQUEST).reason == "A missing"
    assert BATCH.entry(OPERATION).reason == "fail_stuck_provisioning asked for by hand"


def test_nothing_wrong_any_more_is_no_status_and_no_row():
    outcome = converged(REQUEST)
    assert (outcome.status, outcome.event_id) == (None, None)
    assert outcome.reason.startswith("nothing to do")
