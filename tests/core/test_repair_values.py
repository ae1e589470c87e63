"""What goes through Redis, run configs and metadata as JSON comes back as it was."""

import json

from hypothesis import given, settings
from hypothesis import strategies as st

from zlh_dagster.core.incidents import Incident
from zlh_dagster.core.model import Action, Surface
from zlh_dagster.core.repair import Finding, RepairOutcome, RepairRequest, Status
from zlh_dagster.core.result import BatchResult
from zlh_dagster.core.rules import Severity

text = st.text(max_size=30)
vmids = st.integers(min_value=1, max_value=99_999)

findings = st.builds(
    Finding,
    incident=text,
    severity=st.sampled_from(Severity),
    title=text,
    text=text,
    action=st.none() | st.sampled_from(Action),
    vmid=st.none() | vmids,
    surface=st.none() | st.sampled_from(Surface),
    sources=st.lists(text, max_size=2).map(tuple),
)
requests = st.builds(
    RepairRequest, vmid=st.none() | vmids, action=st.sampled_from(Action), target=st.none() | text
)
outcomes = st.builds(
    RepairOutcome,
    request=requests,
    status=st.none() | st.sampled_from(Status),
    reason=text,
    changes=st.lists(text, max_size=3).map(tuple),
    event_id=st.none() | text,
    code=text,
    incident=st.none() | text,
    is_news=st.booleans(),
)
times = st.floats(min_value=0, max_value=4e9)
incidents = st.builds(
    Incident,
    name=text,
    severity=st.sampled_from(Severity),
    title=text,
    text=text,
    opened_at=times,
    sources=st.lists(text, max_size=2).map(tuple),
    reminded=st.integers(min_value=0, max_value=3),
    absent_since=st.none() | times,
    message=st.none() | text,
)
results = st.builds(
    BatchResult,
    outcomes=st.lists(outcomes, max_size=3).map(tuple),
    findings=st.lists(findings, max_size=3).map(tuple),
    interrupted=st.lists(text, max_size=3).map(tuple),
    due=st.lists(incidents, max_size=2).map(tuple),
    over=st.lists(incidents, max_size=2).map(tuple),
    live=st.booleans(),
    seconds=st.floats(min_value=0, max_value=1e6),
    writes=st.integers(min_value=0, max_value=10_000),
)


def through_json(value):
    return json.loads(json.dumps(value.to_json()))


@settings(max_examples=60, deadline=None)
@given(findings)
def test_a_finding_comes_back_as_it_was(finding):
    assert Finding.from_json(through_json(finding)) == finding


@settings(max_examples=60, deadline=None)
@given(outcomes)
def test_an_outcome_comes_back_as_it_was(outcome):
    assert RepairOutcome.from_json(through_json(outcome)) == outcome


@settings(max_examples=60, deadline=None)
@given(results)
def test_a_result_comes_back_as_it_was(result):
    assert BatchResult.from_json(through_json(result)) == result


def test_a_request_covers_what_it_names_and_what_its_action_may_write():
    every = (Surface.CLOUDFLARE, Surface.TECHNITIUM, Surface.VELOCITY)
    assert RepairRequest(1, Action.EDGE_REPUBLISH).covers == every
    assert RepairRequest(1, Action.DNS_REPUBLISH).covers == every[:2]
    assert RepairRequest(1, Action.VELOCITY_REREGISTER).covers == every[2:]
    narrow = RepairRequest(1, Action.EDGE_REPUBLISH, (Surface.VELOCITY,))
    assert narrow.covers == (Surface.VELOCITY,)
    beyond = RepairRequest(1, Action.DNS_REPUBLISH, (Surface.VELOCITY, Surface.CLOUDFLARE))
    assert beyond.covers == (Surface.CLOUDFLARE,), "never wider than the action"
    assert RepairRequest(1, Action.EDGE_REPUBLISH, ()).covers == ()


def test_what_is_wrong_at_the_edge_has_one_name_whichever_action_is_asked_for():
    """A dry run tells what would be done, so its name says the action."""
    dns, edge = (RepairRequest(5000, a) for a in (Action.DNS_REPUBLISH, Action.EDGE_REPUBLISH))
    assert dns.failure_incident == edge.failure_incident == "failed:5000:edge"
    assert dns.refusal_incident == edge.refusal_incident == "refused:5000:edge"
    assert dns.dry_run_incident != edge.dry_run_incident


def test_incidents_of_a_request_are_told_apart_by_server_and_action():
    one = RepairRequest(5000, Action.DNS_REPUBLISH)
    names = {
        *one.incidents,
        *RepairRequest(5001, Action.DNS_REPUBLISH).incidents,
        *RepairRequest(5000, Action.STOP_SUSPENDED_WORKLOAD).incidents,
    }
    assert len(names) == 9
    assert one.incidents == RepairRequest(5000, Action.DNS_REPUBLISH, (Surface.VELOCITY,)).incidents


def test_outcomes_can_be_asked_for_by_status():
    done = RepairOutcome(RepairRequest(1, Action.DNS_REPUBLISH), Status.SUCCEEDED, "")
    converged = RepairOutcome(RepairRequest(2, Action.DNS_REPUBLISH), None, "")
    result = BatchResult((done, converged))
    assert result.with_status(Status.SUCCEEDED) == (done,)
    assert result.with_status(Status.FAILED) == ()
