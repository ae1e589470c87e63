"""Many repairs in one run: few calls, several at once, and the laws hold for each of them."""

import threading
import time
from dataclasses import replace

import pytest

from tests.harness import Loop, edge_state, statuses, writes
from zlh_dagster.core.breaker import State
from zlh_dagster.core.changes import Change
from zlh_dagster.core.model import Surface
from zlh_dagster.core.repair import Refusal
from zlh_dagster.resources import edge_repairs
from zlh_dagster.resources.cloudflare import Cloudflare
from zlh_dagster.resources.database import DatabaseError
from zlh_dagster.resources.http import Unreachable
from zlh_dagster.resources.lease import KEY as LEASE
from zlh_dagster.resources.ledger import Ledger
from zlh_dagster.resources.writer import EdgeWriter
from zlh_dagster.sandbox.cloudflare_records import new_record

SERVERS = range(5000, 5005)
"""As many as may drift at once without being a mass drift."""


def records(sandbox, vmid):
    """A server's address and service in Cloudflare."""
    every = sandbox.edge.cloudflare.records()
    return [record for record in every if record.name.endswith(f"-{vmid}.example.gg")]


def lose(sandbox, *vmids):
    """Both Cloudflare records of some servers are gone."""
    for vmid in vmids:
        for record in records(sandbox, vmid):
            sandbox.edge.cloudflare.remove(record.id)


def paths(sandbox, surface="cloudflare"):
    return [(e.method, e.path.rsplit("/", 1)[-1]) for e in writes(sandbox, surface)]


def reads(sandbox, surface):
    entries = sandbox.edge.journal.entries()
    return len([e for e in entries if not e.write and e.surface == surface])


def test_the_first_server_is_written_alone_and_the_others_in_one_call(loop, sandbox):
    before = edge_state(sandbox)
    lose(sandbox, *SERVERS)
    sandbox.edge.journal.clear()
    [run] = loop.minute()
    assert run.success
    assert edge_state(sandbox) == before
    assert paths(sandbox) == [("POST", "dns_records")] * 2 + [("POST", "batch")]
    # The tick, the look before and the look after: not one for each record.
    assert reads(sandbox, "cloudflare") == 3
    assert statuses(loop.services) == ["succeeded"] * len(SERVERS)
    events = loop.services.ledger.events()
    assert len({event["runId"] for event in events}) == 1
    for event in events:
        assert [entry["records"] for entry in event["before"]] == [[], []]
        shown = {entry["name"] for entry in event["after"] if entry["records"]}
        assert len(shown) == 2


def test_wrong_and_missing_records_go_into_the_same_call(loop, sandbox):
    before = edge_state(sandbox)
    lose(sandbox, 5000, 5001)
    for vmid in (5002, 5003):
        for record in records(sandbox, vmid):
            sandbox.edge.cloudflare.put(replace(record, ttl=300))
    [run] = loop.minute()
    assert run.success
    assert edge_state(sandbox) == before
    assert paths(sandbox)[-1] == ("POST", "batch")
    assert len(paths(sandbox)) == 3
    changed = next(e for e in loop.services.ledger.events() if e["vmid"] == 5003)
    assert [entry["records"][0]["ttl"] for entry in changed["before"]] == [300, 300]


def test_one_record_that_is_refused_does_not_hold_up_the_others(loop, sandbox, monkeypatch):
    """A CNAME came into the way after the look: Cloudflare refuses the call as a whole."""
    host = min((record.name for record in records(sandbox, 5003)), key=len)
    lose(sandbox, *SERVERS)
    real = Cloudflare.apply_all

    def and_before(self, changes):
        sandbox.edge.cloudflare.put(new_record(host, "CNAME", "elsewhere.example.com"))
        real(self, changes)

    monkeypatch.setattr(Cloudflare, "apply_all", and_before)
    [run] = loop.minute()
    assert not run.success
    assert statuses(loop.services, vmid=5003) == ["failed"]
    assert "81053" in loop.services.ledger.events(vmid=5003)[0]["error"]["message"]
    others = [vmid for vmid in SERVERS if vmid != 5003]
    assert {s for vmid in others for s in statuses(loop.services, vmid=vmid)} == {"succeeded"}
    assert [len(records(sandbox, vmid)) for vmid in others] == [2] * len(others)


def test_a_call_whose_answer_was_lost_is_not_repeated_and_is_proved_by_the_look(
    loop, sandbox, monkeypatch
):
    before = edge_state(sandbox)
    lose(sandbox, *SERVERS)
    real = Cloudflare.apply_all

    def lost(self, changes):
        sandbox.edge.faults.switch_on("cloudflare", "write_answer_lost")
        try:
            real(self, changes)
        finally:
            sandbox.edge.faults.switch_off("cloudflare")

    monkeypatch.setattr(Cloudflare, "apply_all", lost)
    [run] = loop.minute()
    assert run.success
    assert edge_state(sandbox) == before
    assert paths(sandbox).count(("POST", "batch")) == 1
    assert statuses(loop.services) == ["succeeded"] * len(SERVERS)


class Slow:
    """A surface whose writes take a while; knows how many were under way at once."""

    def __init__(self, real, meanwhile=lambda n: None):
        self._real = real
        self._lock = threading.Lock()
        self._meanwhile = meanwhile
        self.under_way = self.most = self.begun = 0

    def __getattr__(self, name):
        return getattr(self._real, name)

    def apply(self, change: Change) -> None:
        with self._lock:
            self.begun += 1
            self.under_way += 1
            self.most = max(self.most, self.under_way)
        self._meanwhile(self.begun)
        time.sleep(0.05)
        self._real.apply(change)
        with self._lock:
            self.under_way -= 1


def test_registrations_go_several_at_once_and_never_more_than_the_bridge_is_given(loop, sandbox):
    velocity = loop.services.surfaces[Surface.VELOCITY]
    slow = loop.services.surfaces[Surface.VELOCITY] = Slow(velocity)
    backends = len(sandbox.edge.velocity.backends())
    sandbox.edge.velocity.restart()
    [run] = loop.minute()
    assert run.success
    assert len(writes(sandbox)) == backends
    assert 1 < slow.most <= velocity.at_once
    assert statuses(loop.services) == ["succeeded"] * backends


def test_a_lease_that_is_lost_in_the_middle_stops_what_was_not_sent(loop, sandbox):
    """Rows were open already: those of what was never sent cost no budget."""
    redis = loop.services.redis

    def lose_it(begun):
        if begun == 2:
            redis.set(LEASE, "somebody else")

    velocity = loop.services.surfaces[Surface.VELOCITY]
    slow = loop.services.surfaces[Surface.VELOCITY] = Slow(velocity, lose_it)
    slow.at_once = 1
    backends = len(sandbox.edge.velocity.backends())
    assert backends > 3
    sandbox.edge.velocity.restart()
    [run] = loop.minute()
    assert not run.success
    assert len(writes(sandbox)) == 2
    events = loop.services.ledger.events()
    assert sorted(e["status"] for e in events) == ["refused"] * (backends - 2) + ["succeeded"] * 2
    refused = [e for e in events if e["status"] == "refused"]
    assert {e["error"]["code"] for e in refused} == {"not_tried"}
    assert "the lease was lost" in refused[0]["error"]["message"]
    assert all(e["finishedAt"] for e in events)


@pytest.mark.parametrize("group", [1, 3, 50])
def test_every_row_is_open_before_its_write_whatever_the_size_of_a_group(
    loop, sandbox, monkeypatch, group
):
    monkeypatch.setattr(edge_repairs, "GROUP", group)
    velocity = loop.services.surfaces[Surface.VELOCITY]
    unwritten = []

    def witness(change):
        running = [e for e in loop.services.ledger.events() if e["status"] == "running"]
        if change.wanted.name not in {e["before"][0]["name"] for e in running}:
            unwritten.append(change.wanted.name)
        type(velocity).apply(velocity, change)

    monkeypatch.setattr(velocity, "apply", witness)
    backends = len(sandbox.edge.velocity.backends())
    sandbox.edge.velocity.restart()
    [run] = loop.minute()
    assert run.success
    assert unwritten == []
    assert len(writes(sandbox)) == backends
    assert reads(sandbox, "velocity") == 3


@pytest.mark.parametrize("where", ["gate", "payloads"])
def test_a_bug_between_two_groups_leaves_no_row_open_and_nothing_unproved(
    loop, sandbox, monkeypatch, where
):
    """An exception that nobody foresaw, after the first server was written."""
    services, asked = loop.services, []
    target = services.gate if where == "gate" else services
    name = "holds" if where == "gate" else "read_payloads"
    real = getattr(target, name)

    def breaks(*arguments):
        if writes(sandbox, "velocity"):
            asked.append(arguments)
            raise ValueError("a bug")
        return real(*arguments)

    sandbox.edge.velocity.restart()
    assert loop.observe().success
    [request] = loop.judge()
    monkeypatch.setattr(target, name, breaks)
    assert not loop.repair(request.run_config).success
    assert asked
    assert len(writes(sandbox)) == 1
    assert statuses(services) == ["succeeded"]


def test_a_limit_in_the_middle_is_not_forgotten_for_what_was_proved_before_it(loop, sandbox):
    """The first server is proved, then the bridge limits: its breaker stays open."""
    velocity = loop.services.surfaces[Surface.VELOCITY]

    def limit(begun):
        if begun == 2:
            sandbox.edge.faults.switch_on("velocity", "status", code=429, reads=False)

    loop.services.surfaces[Surface.VELOCITY] = Slow(velocity, limit)
    sandbox.edge.velocity.restart()
    [run] = loop.minute()
    assert not run.success
    assert "succeeded" in statuses(loop.services)
    assert "velocity" in loop.services.gate.breakers()
    assert loop.services.gate.limited(Surface.VELOCITY) is not None
    assert loop.services.gate.breakers()["velocity"].state(time.time()) is State.OPEN
    sandbox.edge.faults.clear()
    sandbox.edge.journal.clear()
    loop.minute()
    assert [e for e in sandbox.edge.journal.entries() if e.surface == "velocity"] == []


def test_a_surface_that_limits_is_not_asked_for_the_proof_again_and_again(
    loop, sandbox, monkeypatch
):
    lose(sandbox, 5000)
    real = Cloudflare.apply

    def limits_afterwards(self, change):
        real(self, change)
        sandbox.edge.faults.switch_on("cloudflare", "status", code=429, writes=False)
        sandbox.edge.journal.clear()

    monkeypatch.setattr(Cloudflare, "apply", limits_afterwards)
    [run] = loop.minute()
    assert not run.success
    assert reads(sandbox, "cloudflare") == 1
    assert statuses(loop.services) == ["failed"]


def test_only_the_surface_that_does_not_show_its_write_counts_a_failure(loop, sandbox):
    """Technitium says yes and does nothing; the record in Cloudflare is there."""
    lose(sandbox, 5000)
    for record in sandbox.edge.technitium.records():
        if "-5000." in record.name:
            sandbox.edge.technitium.remove(record.key())
    sandbox.edge.faults.switch_on("technitium", "write_ignored")
    [run] = loop.minute()
    assert not run.success
    counted = set(loop.services.gate.breakers())
    assert "technitium" in counted
    assert "cloudflare" not in counted


def test_a_look_that_grew_old_is_renewed_although_nothing_was_written_yet(
    loop, sandbox, monkeypatch
):
    """The first group's rows had changed: the next one's are not written on an old look."""
    before = edge_state(sandbox)
    monkeypatch.setattr(edge_repairs, "LOOK_SECONDS", 0.0)
    real = edge_repairs.EdgeRepairs._changed
    first = []

    def changed_once(self, group, rows):
        if not first:
            first.append(group)
            return {one.request: Refusal("changed", "another row by now") for one in group}
        return real(self, group, rows)

    monkeypatch.setattr(edge_repairs.EdgeRepairs, "_changed", changed_once)
    lose(sandbox, 5000, 5001)
    sandbox.edge.journal.clear()
    [run] = loop.minute()
    assert run.success
    # The tick, a look, and another one although the first wrote nothing, and the proof.
    assert reads(sandbox, "cloudflare") == 4
    loop.minute()
    assert edge_state(sandbox) == before


def test_one_outage_in_one_repair_does_not_open_a_breaker(loop, sandbox, monkeypatch):
    """Its write fails, and so do all looks for the proof: that is one outage."""
    lose(sandbox, 5000)
    real = Cloudflare.apply

    def away_from_now_on(self, change):
        sandbox.edge.faults.switch_on("cloudflare", "status", code=500)
        real(self, change)

    monkeypatch.setattr(Cloudflare, "apply", away_from_now_on)
    [run] = loop.minute()
    assert not run.success
    breaker = loop.services.gate.breakers()["cloudflare"]
    assert breaker.state(time.time()) is State.CLOSED
    assert breaker.failures <= 3


def test_what_is_not_shown_opens_the_breaker_whatever_else_was_proved(loop, sandbox):
    """Five servers whose registrations are swallowed, and one whose is not."""
    velocity = loop.services.surfaces[Surface.VELOCITY]
    kept = []

    class Swallows(Slow):
        def apply(self, change):
            if not kept or change in kept:
                kept.append(change)
                self._real.apply(change)

    loop.services.surfaces[Surface.VELOCITY] = Swallows(velocity)
    sandbox.edge.velocity.restart()
    [run] = loop.minute()
    assert not run.success
    assert "succeeded" in statuses(loop.services)
    assert statuses(loop.services).count("failed") >= 5
    assert loop.services.gate.breakers()["velocity"].state(time.time()) is State.OPEN


def test_what_was_proved_is_told_although_a_refusal_could_not_be_recorded(
    loop, sandbox, monkeypatch
):
    """The database goes away after the writes, when the rest of the round is recorded."""
    lose(sandbox, 5000, 5001)
    real = edge_repairs.EdgeRepairs._changed

    def second_changed(self, group, rows):
        found = real(self, group, rows)
        return {
            **found,
            **{o.request: Refusal("changed", "x") for o in group if o.request.vmid == 5001},
        }

    monkeypatch.setattr(edge_repairs.EdgeRepairs, "_changed", second_changed)

    def gone(self, entry, status):
        raise DatabaseError("the database is gone")

    monkeypatch.setattr(Ledger, "record", gone)
    [run] = loop.minute()
    assert not run.success
    assert statuses(loop.services) == ["succeeded"]
    told = str([m.payload for m in sandbox.edge.discord.inbox()])
    assert "5000" in told
    assert "could not be recorded" in told


def test_a_bug_in_the_writing_leaves_no_row_open(loop, sandbox, monkeypatch):
    """No thread can be started any more, say; what was sent by then is proved."""
    lose(sandbox, 5000)
    real = EdgeWriter.write

    def breaks(self, repairs):
        real(self, repairs)
        raise RuntimeError("can't start new thread")

    monkeypatch.setattr(EdgeWriter, "write", breaks)
    [run] = loop.minute()
    assert run.success
    assert statuses(loop.services) == ["succeeded"]
    assert len(records(sandbox, 5000)) == 2


def test_the_ledger_does_not_call_empty_what_could_not_be_read(loop, sandbox, monkeypatch):
    lose(sandbox, 5000)
    real = Cloudflare.apply

    def away_from_now_on(self, change):
        real(self, change)
        sandbox.edge.faults.switch_on("cloudflare", "status", code=500)

    monkeypatch.setattr(Cloudflare, "apply", away_from_now_on)
    [run] = loop.minute()
    assert not run.success
    [event] = loop.services.ledger.events()
    assert event["status"] == "failed"
    assert event["after"] == []


def test_a_repair_does_not_close_the_breaker_that_its_own_run_opened(
    platform, instance, sandbox, monkeypatch
):
    """It was proved at the second look; that the first one failed is known for the next run."""
    loop = Loop(platform.services(ZLH_SURFACE_FAILURES_TO_OPEN="1"), instance)
    sandbox.edge.cloudflare.remove(records(sandbox, 5000)[0].id)
    apply, read, failing = Cloudflare.apply, Cloudflare.list_records, []

    def fails_afterwards(self, change):
        apply(self, change)
        failing.append("once")

    def list_records(self):
        if failing:
            raise Unreachable(f"cloudflare: no answer, {failing.pop()}")
        return read(self)

    monkeypatch.setattr(Cloudflare, "apply", fails_afterwards)
    monkeypatch.setattr(Cloudflare, "list_records", list_records)
    [run] = loop.minute()
    assert run.success
    assert statuses(loop.services) == ["succeeded"]
    assert loop.services.gate.breakers()["cloudflare"].opened_at is not None
