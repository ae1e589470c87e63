"""Guards at the last moment."""

import pandas as pd
import pytest

from tests.core.builders import container, desired
from zlh_dagster.core.guards import refusals
from zlh_dagster.core.model import Action
from zlh_dagster.core.repair import RepairRequest


def why(*requests, rows, spent=None, budget=3):
    made = desired(*rows)
    return refusals(
        requests, desired=made.records, invalid=made.invalid, spent=spent or {}, budget=budget
    )


def request(vmid=5000, action=Action.DNS_REPUBLISH):
    return RepairRequest(vmid, action)


@pytest.mark.parametrize(
    "action", [Action.DNS_REPUBLISH, Action.EDGE_REPUBLISH, Action.VELOCITY_REREGISTER]
)
def test_an_active_server_within_its_budget_is_not_refused(action):
    assert why(request(action=action), rows=[container()], spent={5000: 2}) == {}


@pytest.mark.parametrize(
    ("values", "reason"),
    [
        ({"lifecycle": "suspended"}, "lifecycle is suspended"),
        ({"lifecycle": "deleting"}, "lifecycle is deleting"),
        ({"lifecycle": "provisioning"}, "lifecycle is provisioning"),
        ({"billingStatus": "suspended"}, "billing is suspended"),
        ({"maintenanceReason": "moving"}, "locked for maintenance"),
        ({"payload": "rubbish"}, "payload: is not JSON"),
        ({"ctype": "dev"}, "no game server with that VMID"),
    ],
)
def test_the_row_as_it_is_now_refuses(values, reason):
    [(vmid, said)] = why(request(), rows=[container(**values)]).items()
    assert vmid == 5000
    assert said.startswith(reason)


def test_an_unknown_vmid_is_refused():
    assert why(request(4999), rows=[container()]) == {
        4999: "no game server with that VMID is published"
    }


def test_a_shared_hostname_refuses_both():
    rows = [container(5000, hostname="mc"), container(5001, hostname="mc")]
    assert set(why(request(5000), request(5001), rows=rows)) == {5000, 5001}


def test_level_2_is_refused_whoever_asks():
    [said] = why(request(action=Action.VELOCITY_REPOINT), rows=[container()]).values()
    assert said == "velocity_repoint is level 2, which is off"


@pytest.mark.parametrize(("spent", "refused"), [(0, False), (2, False), (3, True), (4, True)])
def test_the_budget_is_a_number_of_repairs_that_may_not_be_exceeded(spent, refused):
    said = why(request(), rows=[container()], spent={5000: spent})
    assert bool(said) is refused
    if refused:
        assert "ZLH_MAX_REPAIRS_PER_SERVER_HOUR" in said[5000]
        assert f"{spent} repairs" in said[5000]


def test_one_refusal_does_not_touch_the_others():
    rows = [container(5000), container(5001, lifecycle="suspended"), container(5002)]
    asked = [request(5000), request(5001), request(5002)]
    assert set(why(*asked, rows=rows, spent={5002: 9})) == {5001, 5002}


def test_nothing_asked_is_nothing_refused():
    assert why(rows=[container()]) == {}
    nobody = pd.DataFrame(columns=["vmid", "reason"])
    made = desired().records
    assert set(refusals([request()], desired=made, invalid=nobody, spent={}, budget=3)) == {5000}
