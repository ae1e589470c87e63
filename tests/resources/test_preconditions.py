"""What every repair passes before its own guards."""

import time

import pytest

from zlh_dagster.core.breaker import State
from zlh_dagster.core.holds import EVERYTHING, Pause
from zlh_dagster.core.model import Action
from zlh_dagster.core.repair import CONTROLLER, OPERATOR, RepairRequest, Status
from zlh_dagster.resources.batch import Batch
from zlh_dagster.resources.preconditions import Checks
from zlh_dagster.resources.redis import RedisUnavailable

STOP = Action.STOP_SUSPENDED_WORKLOAD
DNS = RepairRequest(5000, Action.DNS_REPUBLISH)
OTHER = RepairRequest(5001, Action.DNS_REPUBLISH)
OPERATION = RepairRequest(None, Action.FAIL_STUCK_PROVISIONING, target="op-1")


@pytest.fixture
def services(platform):
    return platform.services()


@pytest.fixture
def refused(services):
    def refused(*requests, level2=(), budget=3, **values):
        batch = Batch(
            **{
                "repairs": requests,
                "findings": (),
                "requested_by": CONTROLLER,
                "run_id": "run-1",
                "live": True,
                "fencing_token": 1,
                "decided_at": time.time(),
                **values,
            }
        )
        checks = Checks(
            batch, ledger=services.ledger, gate=services.gate, budget=budget, level2=level2
        )
        return {request: why.code for request, why in checks.refusals(requests).items()}

    return refused


@pytest.fixture
def spend(services):
    def spend(vmid, count, status=Status.SUCCEEDED):
        batch = Batch((), (), CONTROLLER, "run-1", True, 1)
        for _ in range(count):
            entry = batch.entry(RepairRequest(vmid, Action.DNS_REPUBLISH))
            services.ledger.close(services.ledger.open(entry), status)

    return spend


def test_nothing_in_the_way_refuses_nothing(refused):
    assert refused(DNS, OTHER, OPERATION) == {}
    assert refused() == {}


# --- levels --------------------------------------------------------------------------------------


@pytest.mark.parametrize("requested_by", [CONTROLLER, OPERATOR])
@pytest.mark.parametrize("action", [a for a in Action if a.level > 1])
def test_what_is_above_the_level_is_refused_whoever_asks(refused, action, requested_by):
    request = RepairRequest(5000, action)
    code = "level_off" if action is STOP else "not_built"
    assert refused(request, DNS, requested_by=requested_by) == {request: code}


def test_an_action_that_was_switched_on_by_name_passes(refused):
    assert refused(RepairRequest(5000, STOP), level2=(STOP.value,)) == {}


# --- age -----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("age", "stale"),
    [(0, False), (110, False), (130, True), (86_400, True), (-110, False), (-130, True)],
)
def test_a_batch_that_waited_longer_than_two_ticks_is_not_carried_out(refused, age, stale):
    decided = time.time() - age
    expected = {DNS: "stale_decision", OPERATION: "stale_decision"} if stale else {}
    assert refused(DNS, OPERATION, decided_at=decided) == expected


def test_a_batch_that_began_in_time_is_carried_out_however_long_it_takes(services, monkeypatch):
    """Its later chunks are looked at and guarded afresh; only its beginning must not be late."""
    batch = Batch((DNS,), (), CONTROLLER, "run-1", True, 1, decided_at=time.time())
    checks = Checks(batch, ledger=services.ledger, gate=services.gate, budget=3, level2=())
    later = time.time() + 600
    monkeypatch.setattr("zlh_dagster.resources.preconditions.time.time", lambda: later)
    assert checks.refusals((DNS,)) == {}


def test_what_is_asked_for_by_hand_was_decided_by_the_operator(refused):
    assert refused(DNS, requested_by=OPERATOR, decided_at=None) == {}
    assert refused(DNS, requested_by=OPERATOR, decided_at=1.0) == {}


# --- pauses and breakers -------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("scope", "expected"),
    [
        (EVERYTHING, {DNS, OTHER, OPERATION}),
        ("server:5000", {DNS}),
        ("surface:cloudflare", set()),
    ],
)
@pytest.mark.parametrize("requested_by", [CONTROLLER, OPERATOR])
def test_a_pause_refuses_its_scope_by_hand_too(refused, services, scope, expected, requested_by):
    services.gate.pause(Pause(scope, "x", time.time()))
    assert refused(DNS, OTHER, OPERATION, requested_by=requested_by) == dict.fromkeys(
        expected, "paused"
    )


def test_an_open_breaker_of_a_server_refuses_it(refused, services):
    services.gate.open_server(5000, "x")
    assert refused(DNS, OTHER) == {DNS: "breaker_open"}


# --- the budget ----------------------------------------------------------------------------------


@pytest.mark.parametrize(("count", "over"), [(0, False), (2, False), (3, True), (7, True)])
def test_a_server_over_its_budget_is_refused_and_its_breaker_opens(
    refused, services, spend, count, over
):
    spend(5000, count)
    assert refused(DNS, OTHER) == ({DNS: "breaker_open"} if over else {})
    breakers = services.gate.breakers()
    assert set(breakers) == ({"server:5000"} if over else set())
    if over:
        assert breakers["server:5000"].state(time.time()) is State.OPEN
        assert breakers["server:5000"].reason == f"{count} repairs within an hour"


@pytest.mark.parametrize(
    ("status", "counts"),
    [
        (Status.SUCCEEDED, True),
        (Status.FAILED, True),
        (Status.INTERRUPTED, True),
        (Status.REFUSED, False),
        (Status.DRY_RUN, False),
    ],
)
def test_only_what_may_have_written_is_spent(refused, spend, status, counts):
    spend(5000, 3, status)
    assert bool(refused(DNS)) is counts


def test_after_a_reset_the_whole_budget_is_there_again(refused, services, spend):
    spend(5000, 3)
    assert refused(DNS)
    services.gate.reset("server:5000")
    assert refused(DNS) == {}
    spend(5000, 3)
    assert refused(DNS) == {DNS: "breaker_open"}


def test_a_repair_without_a_server_has_no_budget(refused, spend):
    spend(None, 9)
    assert refused(OPERATION) == {}


def test_what_is_refused_for_another_reason_opens_no_breaker(refused, services, spend):
    spend(5000, 3)
    assert refused(DNS, decided_at=1.0) == {DNS: "stale_decision"}
    assert services.gate.breakers() == {}


def test_without_redis_nothing_passes(platform, services):
    lost = platform.services(ZLH_REDIS_URL="unix:///nonexistent/redis.sock")
    batch = Batch((DNS,), (), OPERATOR, "run-1", True, 1)
    checks = Checks(batch, ledger=services.ledger, gate=lost.gate, budget=3, level2=())
    with pytest.raises(RedisUnavailable):
        checks.refusals([DNS])
