"""Guards at the last moment."""

import pytest

from tests.core.builders import container, desired, platform
from zlh_dagster.core.desired import MAINTENANCE
from zlh_dagster.core.guards import (
    budget_refusal,
    changed_refusal,
    edge_refusals,
    level_refusal,
    operation_refusal,
    row_of,
    suspended_refusal,
)
from zlh_dagster.core.model import EDGE_ACTIONS, Action
from zlh_dagster.core.repair import RepairRequest

STOP, CLEAR, FAIL = (
    Action.STOP_SUSPENDED_WORKLOAD,
    Action.CLEAR_STALE_OPERATION_LOCK,
    Action.FAIL_STUCK_PROVISIONING,
)
EVERY_NAME = tuple(action.value for action in Action)


def why(*requests, rows):
    made = desired(*rows)
    return edge_refusals(
        requests, payloads=platform(*rows), desired=made.records, invalid=made.invalid
    )


def request(vmid=5000, action=Action.DNS_REPUBLISH):
    return RepairRequest(vmid, action)


def said(refusal):
    return None if refusal is None else (refusal.code, refusal.message)


# --- the edge ------------------------------------------------------------------------------------


@pytest.mark.parametrize("action", sorted(EDGE_ACTIONS))
def test_an_active_server_is_not_refused(action):
    assert why(request(action=action), rows=[container()]) == {}


@pytest.mark.parametrize(
    ("values", "code", "reason"),
    [
        ({"lifecycle": "suspended"}, "lifecycle", "lifecycle is suspended, not active"),
        ({"lifecycle": "deleting"}, "lifecycle", "lifecycle is deleting, not active"),
        ({"lifecycle": "provisioning"}, "lifecycle", "lifecycle is provisioning, not active"),
        ({"billingStatus": "suspended"}, "billing", "billing is suspended"),
        ({"maintenanceReason": "moving"}, "maintenance", MAINTENANCE),
        ({"payload": "rubbish"}, "row_unusable", "payload: is not JSON"),
        ({"ctype": "dev"}, "server_type", "5000 is of type dev, not game"),
    ],
)
def test_the_row_as_it_is_now_refuses(values, code, reason):
    [(vmid, refusal)] = why(request(), rows=[container(**values)]).items()
    assert vmid == 5000
    assert said(refusal) == (code, reason)


def test_an_unknown_vmid_is_refused():
    [(vmid, refusal)] = why(request(4999), rows=[container()]).items()
    assert vmid == 4999
    assert said(refusal) == ("not_published", "no game server with that VMID is published")


def test_a_shared_hostname_refuses_both():
    rows = [container(5000, hostname="mc"), container(5001, hostname="mc")]
    refused = why(request(5000), request(5001), rows=rows)
    assert {vmid: refusal.code for vmid, refusal in refused.items()} == {
        5000: "row_unusable",
        5001: "row_unusable",
    }


def test_one_refusal_does_not_touch_the_others():
    rows = [container(5000), container(5001, lifecycle="suspended"), container(5002)]
    assert set(why(request(5000), request(5001), request(5002), rows=rows)) == {5001}


def test_nothing_asked_is_nothing_refused_and_an_empty_platform_refuses_all():
    assert why(rows=[container()]) == {}
    assert set(why(request(), rows=[])) == {5000}


# --- between the look and the write ------------------------------------------------------------


def test_a_row_that_is_as_it_was_is_no_reason():
    assert changed_refusal(container(), container()) is None


@pytest.mark.parametrize(
    ("now", "code"),
    [
        (None, "not_published"),
        ({"lifecycle": "deleting"}, "lifecycle"),
        ({"billingStatus": "suspended"}, "billing"),
        ({"maintenanceReason": "moving"}, "maintenance"),
        ({"ip": "10.60.0.99"}, "changed_meanwhile"),
        ({"hostname": "other"}, "changed_meanwhile"),
        ({"ctype": "dev"}, "changed_meanwhile"),
    ],
)
def test_a_row_that_changed_just_now_is_left_to_the_next_tick(now, code):
    row = None if now is None else container(**now)
    assert changed_refusal(container(), row).code == code


def test_a_server_that_appeared_just_now_is_left_to_the_next_tick():
    assert changed_refusal(None, container()).code == "changed_meanwhile"


# --- levels --------------------------------------------------------------------------------------


@pytest.mark.parametrize("action", [a for a in Action if a.level == 1])
@pytest.mark.parametrize("level2", [(), EVERY_NAME])
def test_level_1_is_on(action, level2):
    assert level_refusal(action, level2) is None


@pytest.mark.parametrize("action", [a for a in Action if a.level == 3])
@pytest.mark.parametrize("level2", [(), EVERY_NAME])
def test_level_3_is_refused_whatever_was_switched_on(action, level2):
    assert level_refusal(action, level2).code == "not_built"


@pytest.mark.parametrize("action", [Action.VELOCITY_REPOINT, Action.RESTART_AGENT])
def test_a_name_without_code_is_refused_though_it_was_switched_on(action):
    refusal = level_refusal(action, EVERY_NAME)
    assert said(refusal) == (
        "not_built",
        f"{action.value} is a name only: no code carries it out",
    )


@pytest.mark.parametrize(
    ("level2", "refused"),
    [
        ((), True),
        (("restart_agent",), True),
        (("STOP_SUSPENDED_WORKLOAD",), True),
        (("stop",), True),
        ((STOP.value,), False),
    ],
)
def test_level_2_is_off_until_that_one_action_is_named(level2, refused):
    refusal = level_refusal(STOP, level2)
    assert (refusal is not None) is refused
    if refused:
        assert refusal.code == "level_off"
        assert f"ZLH_LEVEL2_ACTIONS={STOP.value}" in refusal.message


# --- operations ----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("values", "clearing", "failing"),
    [
        ({}, None, "lifecycle"),
        ({"lifecycle": "provisioning"}, None, None),
        ({"lifecycle": "suspended"}, "lifecycle", "lifecycle"),
        ({"lifecycle": "deleting"}, "lifecycle", "lifecycle"),
        ({"lifecycle": "provisioning", "billingStatus": "past_due"}, None, None),
        ({"lifecycle": "provisioning", "billingStatus": "suspended"}, "billing", "billing"),
        ({"lifecycle": "provisioning", "billingStatus": None}, "billing", "billing"),
        ({"lifecycle": "provisioning", "maintenanceReason": "x"}, "maintenance", "maintenance"),
        ({"lifecycle": "provisioning", "maintenanceReason": ""}, "maintenance", "maintenance"),
        ({"lifecycle": "provisioning", "ctype": "dev"}, "server_type", "server_type"),
    ],
)
def test_the_operation_of_a_server_is_closed_only_in_its_states(values, clearing, failing):
    rows = platform(container(**values))
    for action, code in ((CLEAR, clearing), (FAIL, failing)):
        refusal = operation_refusal(RepairRequest(5000, action, target="op"), rows)
        assert (None if refusal is None else refusal.code) == code, action


@pytest.mark.parametrize("vmid", [None, 5999])
def test_an_operation_without_a_row_of_a_server_is_guarded_by_nothing_here(vmid):
    """A server that is still being made has no row; what holds its VMID is looked at elsewhere."""
    request = RepairRequest(vmid, FAIL, target="op")
    assert operation_refusal(request, platform(container())) is None


# --- suspended workloads -------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("values", "code"),
    [
        ({"billingStatus": "suspended"}, None),
        ({"billingStatus": "suspended", "lifecycle": "suspended"}, None),
        ({"billingStatus": "active"}, "billing"),
        ({"billingStatus": "past_due"}, "billing"),
        ({"billingStatus": None}, "billing"),
        ({"billingStatus": "suspended", "lifecycle": "deleting"}, "lifecycle"),
        ({"billingStatus": "suspended", "lifecycle": "provisioning"}, "lifecycle"),
        ({"billingStatus": "suspended", "maintenanceReason": "x"}, "maintenance"),
        ({"billingStatus": "suspended", "ctype": "dev"}, "server_type"),
    ],
)
def test_only_the_workload_of_a_server_that_is_suspended_now_is_stopped(values, code):
    refusal = suspended_refusal(request(action=STOP), platform(container(**values)))
    assert (None if refusal is None else refusal.code) == code


@pytest.mark.parametrize("vmid", [None, 4999])
def test_a_workload_without_a_row_is_not_stopped(vmid):
    refusal = suspended_refusal(RepairRequest(vmid, STOP), platform(container()))
    assert refusal.code == "not_published"


# --- the budget ----------------------------------------------------------------------------------


@pytest.mark.parametrize(("spent", "refused"), [(0, False), (2, False), (3, True), (4, True)])
def test_the_budget_is_a_number_of_repairs_that_may_not_be_exceeded(spent, refused):
    refusal = budget_refusal(5000, {5000: spent, 5001: 99}, 3)
    assert (refusal is not None) is refused
    if refused:
        assert refusal.code == "breaker_open"
        assert "ZLH_MAX_REPAIRS_PER_SERVER_HOUR" in refusal.message
        assert f"{spent} repairs" in refusal.message
        assert "zlh breakers reset server:5000" in refusal.message


def test_a_server_without_repairs_has_its_whole_budget():
    assert budget_refusal(5000, {}, 1) is None


def test_a_row_is_found_by_its_vmid():
    rows = platform(container(5000), container(5001))
    assert row_of(rows, 5001)["hostname"] == "mc-5001"
    assert row_of(rows, 5002) is row_of(rows, None) is row_of(platform(), 5000) is None
