"""Putting back what a repair overwrote, on a real edge, with a real ledger, lease and gate."""

from dataclasses import replace

import pytest

from tests.harness import edge_state, writes
from tests.resources.repairing import bench, code
from zlh_dagster.core.holds import Pause
from zlh_dagster.core.messages import batch_message
from zlh_dagster.core.model import Action, Surface
from zlh_dagster.core.repair import CONTROLLER, OPERATOR, RepairRequest
from zlh_dagster.core.result import BatchResult
from zlh_dagster.core.rules import Severity
from zlh_dagster.resources import http, publisher
from zlh_dagster.resources.database import DatabaseError
from zlh_dagster.resources.edge_repairs import EdgeRepairs
from zlh_dagster.resources.ledger import Ledger
from zlh_dagster.resources.publisher import EdgePublisher
from zlh_dagster.resources.redis import RedisUnavailable
from zlh_dagster.resources.reverts import Reverts
from zlh_dagster.sandbox.platform_rows import change_server

HOST = "mc-5000.example.gg"
OLD = "198.51.100.7"


@pytest.fixture(autouse=True)
def no_pauses_between_looks(monkeypatch):
    monkeypatch.setattr(http, "_BACKOFF_SECONDS", 0.01)
    monkeypatch.setattr(publisher, "VERIFY_PAUSES", (0.0, 0.01, 0.05))


@pytest.fixture
def services(platform):
    return platform.services()


@pytest.fixture
def made(services):
    with bench(services) as made:
        yield made


def publish(made, parts):
    services = made.services
    return EdgePublisher(
        surfaces=services.surfaces,
        ledger=services.ledger,
        lease=made.lease,
        gate=services.gate,
    )


@pytest.fixture
def repaired(made, sandbox):
    """The event of a repair that overwrote one record, and the edge as it was before it."""
    change_record(sandbox, content=OLD)
    before = edge_state(sandbox)
    return repair_edge(made, sandbox), before


def repair_edge(made, sandbox):
    """Has the loop mend the server's DNS; returns the event."""
    request = RepairRequest(5000, Action.DNS_REPUBLISH)
    batch = made.batch(request)
    parts = made.parts(batch)
    repairs = EdgeRepairs(
        publisher=publish(made, parts),
        read_payloads=made.services.read_payloads,
        edge=made.services.settings.edge,
        gate=made.services.gate,
        checks=parts["checks"],
        recorder=parts["recorder"],
    )
    [[outcome]] = repairs.run(batch, [request])
    assert code(outcome) == ("succeeded", "")
    sandbox.edge.journal.clear()
    return outcome.event_id


def change_record(sandbox, **values):
    [record] = [r for r in sandbox.edge.cloudflare.named(HOST) if r.type == "A"]
    sandbox.edge.cloudflare.put(replace(record, **values))


@pytest.fixture
def revert(made):
    def revert(event_id, **values):
        request = RepairRequest(None, Action.REVERT, target=event_id)
        batch = made.batch(request, **{"requested_by": OPERATOR, "decided_at": None, **values})
        parts = made.parts(batch)
        reverts = Reverts(
            publisher=publish(made, parts),
            read_payloads=made.services.read_payloads,
            edge=made.services.settings.edge,
            gate=made.services.gate,
            **parts,
        )
        return reverts.repair(batch, request)

    return revert


def refused(outcome, sandbox):
    assert outcome.status.value == "refused"
    assert writes(sandbox) == []
    return outcome.code


# --- put back ------------------------------------------------------------------------------------


def test_the_record_is_as_it_was_and_the_loop_does_not_undo_it(
    revert, repaired, made, sandbox, services
):
    event_id, before = repaired
    outcome = revert(event_id)
    assert code(outcome) == ("succeeded", "")
    assert edge_state(sandbox) == before
    assert [(e.surface, e.method) for e in writes(sandbox)] == [("cloudflare", "PATCH")]
    event = made.events()[-1]
    assert (event["action"], event["status"], event["vmid"]) == ("revert", "succeeded", 5000)
    assert event["requestedBy"] == "operator"
    assert event["reason"] == f"revert of dns_republish {event_id}"
    assert event["before"][0]["records"][0]["content"] == "203.0.113.10"
    assert event["after"][0]["records"][0]["content"] == OLD
    pause = services.gate.pauses()["server:5000"]
    assert pause.until is None
    assert event_id in pause.reason


def test_a_revert_can_be_reverted(revert, repaired, made, sandbox, services):
    event_id, _ = repaired
    revert(event_id)
    services.gate.resume("server:5000")
    outcome = revert(made.events()[-1]["id"])
    assert code(outcome) == ("succeeded", "")
    [record] = [r for r in sandbox.edge.cloudflare.named(HOST) if r.type == "A"]
    assert record.content == "203.0.113.10"


def test_what_is_as_it_was_already_needs_nothing(revert, repaired, sandbox, services):
    event_id, _ = repaired
    change_record(sandbox, content=OLD)
    assert revert(event_id).status is None
    assert writes(sandbox) == []
    assert services.gate.pauses() == {}


# --- refused -------------------------------------------------------------------------------------


def test_only_the_operator_reverts(revert, repaired, sandbox):
    assert refused(revert(repaired[0], requested_by=CONTROLLER), sandbox) == "by_hand_only"


@pytest.mark.parametrize("event_id", ["nobody", None])
def test_an_unknown_row_is_refused(revert, sandbox, event_id):
    expected = "by_hand_only" if event_id is None else "no_such_event"
    assert refused(revert(event_id), sandbox) == expected


@pytest.mark.parametrize(
    ("values", "why"),
    [
        ({"lifecycle": "deleting"}, "lifecycle"),
        ({"billingStatus": "suspended"}, "billing"),
        ({"maintenanceReason": "moving"}, "maintenance"),
        ({"hostname": "renamed"}, "not_revertible"),
    ],
)
def test_the_row_as_it_is_now_decides(revert, repaired, platform, sandbox, values, why):
    change_server(platform.engine, 5000, **values)
    assert refused(revert(repaired[0]), sandbox) == why


def test_what_somebody_changed_since_is_theirs(revert, repaired, sandbox):
    change_record(sandbox, content="192.0.2.1")
    outcome = revert(repaired[0])
    assert refused(outcome, sandbox) == "not_revertible"
    assert "somebody has changed it since to 192.0.2.1" in outcome.reason


def test_a_surface_that_cannot_be_read_is_not_written_to(revert, repaired, sandbox):
    sandbox.edge.faults.switch_on("cloudflare", "status", code=500)
    assert refused(revert(repaired[0]), sandbox) == "unobserved"


def test_half_a_revert_is_none_while_the_other_half_cannot_be_read(revert, sandbox, made):
    """Of a surface that cannot be read it is not known whether there is anything to put back."""
    change_record(sandbox, content=OLD)
    [internal] = [r for r in sandbox.edge.technitium.named(HOST) if r.type == "A"]
    sandbox.edge.technitium.put(replace(internal, ttl=999))
    event_id = repair_edge(made, sandbox)
    sandbox.edge.faults.switch_on("cloudflare", "status", code=500)
    outcome = revert(event_id)
    assert refused(outcome, sandbox) == "unobserved"
    assert "cloudflare" in outcome.reason


def test_a_surface_that_the_repair_did_not_touch_need_not_be_read(revert, repaired, sandbox):
    sandbox.edge.faults.switch_on("technitium", "status", code=500)
    assert code(revert(repaired[0])) == ("succeeded", "")


def test_a_paused_server_is_refused(revert, repaired, services, sandbox):
    services.gate.pause(Pause("server:5000", "x", 1.0))
    assert refused(revert(repaired[0]), sandbox) == "paused"


def test_a_paused_surface_is_refused(revert, repaired, services, sandbox):
    services.gate.pause(Pause("surface:cloudflare", "DNS move", 1.0))
    assert refused(revert(repaired[0]), sandbox) == "paused"
    assert set(services.gate.pauses()) == {"surface:cloudflare"}


def test_a_surface_whose_breaker_is_open_is_refused(revert, repaired, services, sandbox):
    services.gate.failed(Surface.CLOUDFLARE, "HTTP 500", at_once=True)
    assert refused(revert(repaired[0]), sandbox) == "surface_breaker_open"
    assert services.gate.pauses() == {}


def test_a_server_to_which_nothing_was_sent_is_not_paused(
    revert, repaired, made, services, sandbox, monkeypatch
):
    real = Ledger.open_all

    def and_then_pause(self, entries):
        ids = real(self, entries)
        services.gate.pause(Pause("surface:cloudflare", "DNS move", 1.0))
        return ids

    monkeypatch.setattr(Ledger, "open_all", and_then_pause)
    assert refused(revert(repaired[0]), sandbox) == "paused"
    assert made.events()[-1]["status"] == "refused"
    assert set(services.gate.pauses()) == {"surface:cloudflare"}


# --- dry run, lease, failures --------------------------------------------------------------------


def test_a_dry_run_changes_nothing_and_pauses_nothing(revert, repaired, made, sandbox, services):
    state = edge_state(sandbox)
    outcome = revert(repaired[0], live=False)
    assert code(outcome) == ("dry_run", "")
    assert edge_state(sandbox) == state
    assert writes(sandbox) == []
    assert services.gate.pauses() == {}
    event = made.events()[-1]
    assert (event["status"], event["after"][0]["records"][0]["content"]) == ("dry_run", OLD)


def test_without_the_lease_nothing_is_put_back(revert, repaired, made, sandbox, services):
    made.take_lease_away()
    outcome = revert(repaired[0])
    assert code(outcome) == ("failed", "not_tried")
    assert writes(sandbox) == []
    assert services.gate.pauses() == {}
    assert [e["action"] for e in made.events()] == ["dns_republish"]


def test_a_replaced_controller_puts_nothing_back(revert, repaired, made, sandbox):
    made.be_replaced()
    outcome = revert(repaired[0])
    assert code(outcome) == ("failed", "not_tried")
    assert writes(sandbox) == []


def test_a_write_that_fails_is_told_and_the_server_stays_paused(
    revert, repaired, made, sandbox, services
):
    """Whether it was put back is for the operator to look at, undisturbed by the loop."""
    sandbox.edge.faults.switch_on("cloudflare", "status", code=500, reads=False)
    outcome = revert(repaired[0])
    assert outcome.status.value == "failed"
    assert made.events()[-1]["status"] == "failed"
    assert "server:5000" in services.gate.pauses()


def test_a_pause_that_redis_does_not_take_is_kept_in_the_database(
    revert, repaired, services, sandbox, monkeypatch
):
    def lost(pause):
        raise RedisUnavailable("Redis cannot be reached")

    monkeypatch.setattr(services.gate, "pause", lost)
    event_id, before = repaired
    outcome = revert(event_id)
    assert edge_state(sandbox) == before
    assert code(outcome) == ("succeeded", "")
    assert services.gate.pauses() == {}
    assert event_id in services.gate.kept_pauses()["server:5000"].reason


def test_a_pause_that_cannot_be_set_is_told_and_the_row_is_closed(
    revert, repaired, made, sandbox, services, monkeypatch
):
    """Written is written: the proof and the ledger come first, and the operator hears the rest."""

    def redis_lost(pause):
        raise RedisUnavailable("Redis cannot be reached")

    def database_lost(pause):
        raise DatabaseError("not paused: locked")

    monkeypatch.setattr(services.gate, "pause", redis_lost)
    monkeypatch.setattr(services.gate, "keep", database_lost)
    event_id, before = repaired
    outcome = revert(event_id)
    assert edge_state(sandbox) == before
    assert made.events()[-1]["status"] == "succeeded"
    assert code(outcome) == ("succeeded", "not_paused")
    message = batch_message(
        BatchResult((outcome,)), run_id="0123456789", requested_by="operator", now=1.0
    )
    assert message.severity is Severity.WARNING
    assert message.title == "Reverted server 5000, its pause failed"
    assert "(not paused: locked): zlh pause --vmid 5000" in message.lines[0]
    assert message.topics == ("paused",)


def test_a_pause_that_the_database_does_not_keep_is_told(
    revert, repaired, services, sandbox, monkeypatch
):
    def half(pause):
        raise DatabaseError("paused, but only in Redis: locked")

    monkeypatch.setattr(services.gate, "pause", half)
    outcome = revert(repaired[0])
    assert code(outcome) == ("succeeded", "not_paused")
    assert "paused, but only in Redis" in outcome.reason


def test_the_ledger_knows_its_rows_by_name(platform, repaired):
    assert Ledger(platform.engine).event(repaired[0])["action"] == "dns_republish"
    assert Ledger(platform.engine).event("nobody") is None
