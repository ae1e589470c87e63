"""Random sequences of drift, faults, pauses, restarts and ticks against a pure model.

After each tick the laws hold: no write without lease, guard, ledger row or budget; nothing deleted;
nothing outside our own names. Once faults end, the edge converges within three ticks.
"""

import shutil
from collections import Counter
from dataclasses import replace
from datetime import timedelta
from pathlib import Path

import pytest
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    RuleBasedStateMachine,
    invariant,
    precondition,
    rule,
    run_state_machine_as_test,
)

from tests.clock import forget_everything, pass_time
from tests.conftest import Platform
from tests.model.controller import Controller
from tests.model.platform_model import Model, ServerModel
from zlh_dagster.cli.holds import pause
from zlh_dagster.core.desired import desired_edge
from zlh_dagster.core.model import rows_of
from zlh_dagster.resources import database, http, publisher
from zlh_dagster.sandbox.cloudflare_records import new_record
from zlh_dagster.sandbox.platform_rows import change_server
from zlh_dagster.sandbox.publish import publish_database
from zlh_dagster.sandbox.velocity_api import Backend

VMIDS = range(5000, 5008)
BUDGET = 3
FAULTS = (
    ("status", {"code": 500}),
    ("html", {}),
    ("truncated_json", {}),
    ("disconnect", {}),
    ("invalid_token", {}),
    ("status", {"code": 500, "reads": False}),
    ("disconnect", {"reads": False}),
)
LISTING_FAULTS = (("empty", {}), ("cut_short", {}), ("wrong_types", {}))
WRITE_FAULTS = (("write_ignored", {}), ("write_answer_lost", {}))
SURFACES = ("cloudflare", "technitium", "velocity")
GUARDS = (
    {"lifecycle": "suspended"},
    {"lifecycle": "deleting"},
    {"billingStatus": "suspended"},
    {"maintenanceReason": "disks"},
)
CLEAR = {"lifecycle": "active", "billingStatus": "active", "maintenanceReason": None}

# A few servers get most of the trouble, so that drift, guards, pauses and budgets meet.
vmids = st.sampled_from([5000, 5000, 5001, 5002])
surfaces = st.sampled_from(SURFACES)


def edge_of(sandbox) -> Counter:
    """Everything on the edge: surface, name, type, content, with how often."""
    seen: Counter = Counter()
    for r in sandbox.edge.cloudflare.records():
        data = dict(r.data.to_json()) if r.data is not None else r.content
        seen["cloudflare", r.name, r.type, f"{data} {r.ttl} {r.proxied}"] += 1
    for t in sandbox.edge.technitium.records():
        if t.type != "SOA":
            seen["technitium", t.name, t.type, f"{t.data} {t.ttl} {t.disabled}"] += 1
    for b in sandbox.edge.velocity.backends():
        seen["velocity", b.name, "BACKEND", f"{b.address} {b.port}"] += 1
    return seen


def by_key(edge: Counter) -> dict:
    keys: dict = {}
    for (surface, name, type_, content), n in edge.items():
        keys.setdefault((surface, name, type_), []).extend([content] * n)
    return keys


def machine(platform: Platform, fresh: Path) -> type[RuleBasedStateMachine]:
    """The state machine over one sandbox, one Redis and one database file."""

    class Edge(RuleBasedStateMachine):
        def __init__(self) -> None:
            super().__init__()
            self.sandbox = platform.sandbox
            self.sandbox.reset()
            platform.engine.dispose()
            shutil.copyfile(fresh, platform.home.parent / "platform.db")
            publish_database(self.sandbox.edge, platform.engine)
            self.controller = Controller(platform.services())
            forget_everything(self.controller.services)
            self.wanted = by_key(edge_of(self.sandbox))
            desired = desired_edge(
                database.read_payloads(platform.engine),
                self.controller.services.settings.edge,
            )
            servers = {vmid: ServerModel(vmid, {}) for vmid in VMIDS}
            for row in rows_of(desired.records):
                key = (row["surface"], row["name"], row["type"])
                servers[int(row["vmid"])].wanted[key] = self.wanted[key][0]
            self.model = Model(servers)
            self.own = {key for server in servers.values() for key in server.wanted}
            self.steps = 0

        def teardown(self) -> None:
            self.controller.services.close()

        # What happens to the edge

        @rule(vmid=vmids, which=st.integers(0, 4))
        def somebody_deletes_a_record(self, vmid, which):
            keys = sorted(self.model.servers[vmid].wanted)
            surface, name, type_ = keys[which % len(keys)]
            self._delete(surface, name, type_)

        @rule(vmid=vmids, surface=st.sampled_from(["cloudflare", "technitium"]))
        def somebody_changes_a_record(self, vmid, surface):
            name = f"mc-{vmid}.example.gg"
            if surface == "cloudflare":
                found = [r for r in self.sandbox.edge.cloudflare.named(name) if r.type == "A"]
                if len(found) == 1:
                    self.sandbox.edge.cloudflare.remove(found[0].id)
                    wrong = new_record(name, "A", "198.51.100.7", ttl=300, proxied=True)
                    self.sandbox.edge.cloudflare.put(wrong)
            else:
                found = [r for r in self.sandbox.edge.technitium.named(name) if r.type == "A"]
                if len(found) == 1:
                    self.sandbox.edge.technitium.remove(found[0].key())
                    self.sandbox.edge.technitium.put(replace(found[0], disabled=True))

        @rule(vmid=vmids)
        def somebody_adds_a_second_record(self, vmid):
            name = f"mc-{vmid}.example.gg"
            found = [r for r in self.sandbox.edge.cloudflare.named(name) if r.type == "A"]
            if len(found) == 1:
                self.sandbox.edge.cloudflare.put(
                    new_record(name, "A", "198.51.100.8", ttl=60, proxied=False)
                )

        @rule(n=st.integers(0, 3))
        def somebody_adds_a_record_without_a_server(self, n):
            name = f"old-{n}.example.gg"
            if not self.sandbox.edge.cloudflare.named(name):
                self.sandbox.edge.cloudflare.put(
                    new_record(name, "A", "203.0.113.10", ttl=60, proxied=False)
                )

        @rule(vmid=vmids)
        def somebody_deletes_the_same_record_every_minute(self, vmid):
            for _ in range(BUDGET + 2):
                self._delete("cloudflare", f"_minecraft._tcp.mc-{vmid}.example.gg", "SRV")
                self.a_tick()

        @rule()
        def the_proxy_restarts(self):
            self.sandbox.edge.velocity.restart()

        @rule(vmid=vmids)
        def a_backend_is_registered_elsewhere(self, vmid):
            name = f"mc-{vmid}"
            left = [b for b in self.sandbox.edge.velocity.backends() if b.name != name]
            if ("velocity", name, "BACKEND") in self.own:
                self.sandbox.edge.velocity.restart()
                self.sandbox.edge.velocity.seed([*left, Backend(name, "10.9.9.9", 25565)])

        @rule()
        def most_of_the_public_zone_is_gone(self):
            for server in list(self.model.servers.values())[:7]:
                for key in server.wanted:
                    if key[0] == "cloudflare":
                        self._delete(*key)

        # What happens around it

        @rule(surface=surfaces, fault=st.sampled_from(FAULTS))
        def an_api_fails(self, surface, fault):
            self.sandbox.edge.faults.switch_on(surface, fault[0], **fault[1])

        @rule(
            surface=st.sampled_from(["cloudflare", "technitium"]),
            fault=st.sampled_from(LISTING_FAULTS),
        )
        def a_listing_lies(self, surface, fault):
            self.sandbox.edge.faults.switch_on(surface, fault[0], **fault[1])

        @rule(surface=surfaces, fault=st.sampled_from(WRITE_FAULTS))
        def writes_lie(self, surface, fault):
            self.sandbox.edge.faults.switch_on(surface, fault[0], **fault[1])

        @rule(surface=surfaces)
        def an_api_recovers(self, surface):
            self.sandbox.edge.faults.switch_off(surface)

        @rule(vmid=vmids, guard=st.sampled_from(GUARDS))
        def a_server_is_guarded(self, vmid, guard):
            change_server(platform.engine, vmid, **guard)
            self.model.servers[vmid].guarded = True

        @rule(vmid=vmids)
        def a_server_is_free_again(self, vmid):
            change_server(platform.engine, vmid, **CLEAR)
            self.model.servers[vmid].guarded = False

        @rule()
        def the_operator_pauses_everything(self):
            pause(self.controller.services, "everything", span="2h", reason="look")
            self.model.paused = True

        @rule(vmid=vmids)
        def the_operator_pauses_a_server(self, vmid):
            pause(self.controller.services, f"server:{vmid}", span=None, reason="look")
            self.model.servers[vmid].paused = True

        @rule(surface=surfaces)
        def the_operator_pauses_a_surface(self, surface):
            pause(self.controller.services, f"surface:{surface}", span=None, reason="look")
            self.model.paused_surfaces.add(surface)

        @precondition(lambda self: self.model.paused)
        @rule()
        def the_operator_resumes(self):
            self.controller.services.gate.resume("everything")
            self.model.paused = False

        @rule()
        def the_controller_restarts(self):
            self.controller.services.close()
            writes, broken = self.controller.writes, self.controller.broken
            self.controller = Controller(platform.services(), writes, broken)

        @rule(minutes=st.sampled_from([5, 20]))
        def time_passes(self, minutes):
            if not self.model.paused:
                pass_time(self.controller.services, minutes=minutes)

        @rule()
        def the_operator_approves_what_is_open(self):
            for name in self.controller.services.incidents.all_open():
                if name.startswith("mass_drift:"):
                    self.controller.services.gate.approve(name)
                    self.model.approved.add(name.partition(":")[2])

        # The loop

        @invariant()
        def every_other_step_is_followed_by_a_tick(self):
            self.steps += 1
            if self.steps % 2 == 0:
                self.a_tick()

        def a_tick(self):
            before = edge_of(self.sandbox)
            done = len(self.controller.writes)
            events = len(self.controller.services.ledger.events(limit=10_000))
            self.controller.tick()
            self._laws(before, self.controller.writes[done:], events)

        @rule()
        def faults_end_and_the_edge_converges(self):
            self._calm()
            for _ in range(3):
                self.the_operator_approves_what_is_open()
                self.a_tick()
            left = by_key(edge_of(self.sandbox))
            escalated = {key for key, contents in left.items() if len(contents) > 1}
            elsewhere = {
                k for k in self.own if k[0] == "velocity" and "10.9.9.9" in str(left.get(k))
            }
            for key in self.own - escalated - elsewhere:
                assert left.get(key) == self.wanted[key], key

        @invariant()
        def no_law_was_broken_at_a_write(self):
            assert self.controller.broken == []

        def _laws(self, before: Counter, writes: list, events: int) -> None:
            after = edge_of(self.sandbox)
            old, new = by_key(before), by_key(after)
            for key in old:
                assert key in new, f"deleted: {key}"
                assert len(new[key]) >= len(old[key]), f"deleted one of: {key}"
            for key, contents in new.items():
                if contents == old.get(key):
                    continue
                assert key in self.own, f"not ours: {key}"
                assert self.model.may_write(key), f"must not be written: {key}"
                assert len(old.get(key, [])) <= 1, f"one of two was written: {key}"
                assert contents == self.wanted[key], f"not what is wanted: {key} {contents}"
            for change in writes:
                assert self.model.may_write(change.wanted.key), change.describe()
            unasked = {change.surface.value for change in writes} & self.model.mass_drift(old)
            assert unasked <= self.model.approved, f"mass drift mended unasked: {unasked}"
            self.model.approved -= unasked
            rows = self.controller.services.ledger.events(limit=10_000)
            fresh_rows = rows[: len(rows) - events]
            written = Counter(change.wanted.key for change in writes)
            recorded = Counter(
                (entry["surface"], entry["name"], entry["type"])
                for event in fresh_rows
                if event["status"] in ("succeeded", "failed")
                for entry in event["before"]
            )
            assert not written - recorded, "written without a ledger row"
            assert all(n == 1 for n in written.values()), f"written twice: {written}"
            assert not [e for e in rows if e["status"] == "running"], "a row was left open"
            spent = self.controller.services.ledger.repairs_since(VMIDS, timedelta(hours=1))
            assert all(n <= BUDGET for n in spent.values()), f"over the budget: {spent}"

        def _calm(self) -> None:
            """Faults end, guards and pauses too, and the hour passes."""
            for surface in SURFACES:
                self.sandbox.edge.faults.switch_off(surface)
            for vmid in VMIDS:
                self.a_server_is_free_again(vmid)
                self.controller.services.gate.resume(f"server:{vmid}")
                self.model.servers[vmid].paused = False
            for surface in SURFACES:
                self.controller.services.gate.resume(f"surface:{surface}")
            self.controller.services.gate.resume("everything")
            self.model.paused = False
            self.model.paused_surfaces.clear()
            pass_time(self.controller.services, hours=2)

        def _delete(self, surface: str, name: str, type_: str) -> None:
            if surface == "cloudflare":
                for r in self.sandbox.edge.cloudflare.named(name):
                    if r.type == type_:
                        self.sandbox.edge.cloudflare.remove(r.id)
            elif surface == "technitium":
                for t in self.sandbox.edge.technitium.named(name):
                    if t.type == type_:
                        self.sandbox.edge.technitium.remove(t.key())
            else:
                left = [b for b in self.sandbox.edge.velocity.backends() if b.name != name]
                self.sandbox.edge.velocity.restart()
                self.sandbox.edge.velocity.seed(left)

    return Edge


@pytest.mark.timeout(1500)
@pytest.mark.parametrize("examples", [6, pytest.param(60, marks=pytest.mark.long)])
def test_the_laws_hold_whatever_happens(platform, fleet_database, monkeypatch, examples):
    monkeypatch.setattr(http, "_BACKOFF_SECONDS", 0.001)
    monkeypatch.setattr(publisher, "VERIFY_PAUSES", (0.0, 0.002))
    run_state_machine_as_test(
        machine(platform, fleet_database),
        settings=settings(
            max_examples=examples,
            stateful_step_count=30,
            deadline=None,
            suppress_health_check=list(HealthCheck),
            derandomize=examples == 6,
        ),
    )


def test_an_approval_is_good_for_one_batch(platform, fleet_database):
    """The model itself sees a mass drift that was mended twice with one approval."""
    edge = machine(platform, fleet_database)()
    edge.most_of_the_public_zone_is_gone()
    edge.a_tick()
    edge.the_operator_approves_what_is_open()
    edge.a_tick()
    assert edge.controller.writes, "approved, so it was mended"
    done = len(edge.controller.writes)
    edge.most_of_the_public_zone_is_gone()
    edge.a_tick()
    assert len(edge.controller.writes) == done
    edge.teardown()
