"""One tick judged against what is paused, open and approved, and what is asked for then."""

import time
from dataclasses import replace

import pytest

from tests.queues import make_queue, put_job
from zlh_dagster.core.breaker import SERVER_OPEN_SECONDS
from zlh_dagster.core.holds import EVERYTHING, Pause
from zlh_dagster.core.incidents import REMINDERS, Incident
from zlh_dagster.core.model import Action, Surface
from zlh_dagster.core.rules import Severity
from zlh_dagster.core.snapshot import Outcome
from zlh_dagster.resources.controller import REDIS_LOST, ask, assess
from zlh_dagster.resources.observe import observe_all
from zlh_dagster.resources.redis import RedisUnavailable, connect
from zlh_dagster.sandbox.containers import Agent
from zlh_dagster.sandbox.platform_rows import change_server

HOST = "mc-5000.example.gg"
MASS = "mass_drift:cloudflare"


class Loop:
    """A controller without Dagster: ticks, and what each of them asks for."""

    def __init__(self, services):
        self.services = services
        self.unobserved = {}
        self.redis_lost = None

    def tick(self, change=None):
        tick = observe_all(self.services, "tick")
        if change is not None:
            tick = change(tick)
        self.unobserved = {s: self.unobserved.get(s, 0) + 1 for s in tick.unobserved}
        self.assessment = assess(self.services, tick)
        launch = ask(
            self.services,
            self.assessment,
            unobserved_ticks=self.unobserved,
            redis_lost_since=self.redis_lost,
        )
        self.redis_lost = time.time() if self.assessment.open_incidents is None else None
        for finding in launch.findings:
            # What the run that was asked for does.
            if self.redis_lost is None:
                self.services.incidents.open(Incident.of(finding, now=time.time()))
        if self.redis_lost is None:
            self.services.incidents.close(launch.incidents.over)
        return launch


@pytest.fixture
def queues(redis_url):
    with connect(redis_url) as client:
        for name in ("provisioning", "operation"):
            make_queue(client, name)
            put_job(client, name, "0", "wait")


@pytest.fixture
def loop(platform, queues):
    return Loop(platform.services())


def unseen(source_surface=None, **names):
    """Makes sources of a tick unobserved."""

    def change(tick):
        def blind(snapshot):
            return replace(
                snapshot,
                outcome=Outcome.UNOBSERVED,
                reason="HTTP 500",
                rows=snapshot.rows[:0],
            )

        if source_surface is not None:
            seen = dict(tick.surfaces)
            seen[source_surface] = blind(seen[source_surface])
            tick = replace(tick, surfaces=seen)
        return replace(tick, **{name: blind(getattr(tick, name)) for name in names})

    return change


def lose_record(sandbox, host=HOST):
    for record in sandbox.edge.cloudflare.named(host):
        sandbox.edge.cloudflare.remove(record.id)


def lose_all(sandbox):
    for record in sandbox.edge.cloudflare.records():
        # One record stays: an empty zone is taken for a broken answer.
        if record.type == "A" and not record.name.startswith("mc-5000"):
            sandbox.edge.cloudflare.remove(record.id)


def incidents(launch):
    return [finding.incident for finding in launch.findings]


def test_a_tick_in_step_asks_for_nothing(loop):
    assert not loop.tick()
    assert loop.assessment.redis_lost is None
    assert loop.assessment.open_incidents == {}


def test_drift_is_asked_for_at_every_tick_in_live_mode(loop, sandbox):
    lose_record(sandbox)
    for _ in range(2):
        [request] = loop.tick().repairs
        assert (request.vmid, request.action) == (5000, Action.DNS_REPUBLISH)


# --- pauses and breakers -------------------------------------------------------------------------


@pytest.mark.parametrize("scope", [EVERYTHING, "server:5000", "surface:cloudflare"])
def test_a_pause_asks_for_nothing_and_is_told_once(loop, sandbox, scope):
    loop.services.gate.pause(Pause(scope, "moving house", time.time()))
    lose_record(sandbox)
    first, second = loop.tick(), loop.tick()
    assert first.repairs == second.repairs == ()
    assert incidents(first) == [f"paused:{scope}"]
    assert not second
    assert len(loop.assessment.judgement.decisions.kept_back) == 1
    loop.services.gate.resume(scope)
    assert len(loop.tick().repairs) == 1
    assert loop.tick().incidents.over == (f"paused:{scope}",)


def test_an_open_breaker_of_a_surface_holds_that_surface_only(loop, sandbox, platform):
    for _ in range(loop.services.settings.zlh_surface_failures_to_open):
        loop.services.gate.failed(Surface.CLOUDFLARE, "HTTP 500")
    lose_record(sandbox)
    sandbox.edge.velocity.clear()
    launch = loop.tick()
    assert {request.action for request in launch.repairs} == {Action.VELOCITY_REREGISTER}
    assert incidents(launch) == ["breaker:cloudflare"]


def test_an_open_breaker_of_a_server_holds_that_server_only(loop, sandbox):
    loop.services.gate.open_server(5000, "3 repairs within an hour")
    lose_record(sandbox)
    lose_record(sandbox, "mc-5001.example.gg")
    launch = loop.tick()
    assert [request.vmid for request in launch.repairs] == [5001]
    assert incidents(launch) == ["breaker:server:5000"]
    assert SERVER_OPEN_SECONDS == 3600


# --- mass drift ----------------------------------------------------------------------------------


def test_an_approval_lets_one_batch_through_and_is_used_up(loop, sandbox):
    lose_all(sandbox)
    assert incidents(loop.tick()) == [MASS]
    assert loop.tick().repairs == ()
    loop.services.gate.approve(MASS)
    launch = loop.tick()
    assert len(launch.repairs) >= 6
    assert launch.approvals == (MASS,)
    assert loop.services.gate.holds().approved == {MASS}, "spent by the run, under the lease"
    loop.services.gate.spend(launch.approvals)
    assert loop.tick().repairs == (), "still there, and not approved again"


@pytest.mark.parametrize("change", [unseen(Surface.CLOUDFLARE), unseen(payloads=True)])
def test_an_approval_waits_for_a_tick_that_can_see(loop, sandbox, change):
    lose_all(sandbox)
    loop.tick()
    loop.services.gate.approve(MASS)
    assert loop.tick(change).repairs == ()
    assert loop.services.gate.holds().approved == {MASS}
    assert len(loop.tick().repairs) >= 6


def test_an_approval_is_not_used_up_by_a_tick_that_is_paused(loop, sandbox):
    lose_all(sandbox)
    loop.tick()
    loop.services.gate.approve(MASS)
    loop.services.gate.pause(Pause(EVERYTHING, "x", time.time()))
    assert loop.tick().repairs == ()
    assert loop.services.gate.holds().approved == {MASS}


@pytest.mark.parametrize("how", ["paused", "broken"])
def test_an_approval_is_not_used_up_while_its_surface_is_held(loop, sandbox, how):
    """Nothing there is asked for; the approval waits, as it does for a tick that can see."""
    gate = loop.services.gate
    gate.approve(MASS)
    if how == "paused":
        gate.pause(Pause("surface:cloudflare", "x", 1.0))
    else:
        gate.failed(Surface.CLOUDFLARE, "HTTP 500", at_once=True)
    assert loop.tick().approvals == ()
    assert gate.holds().approved == {MASS}


def test_an_approval_of_a_drift_that_is_over_is_used_up_all_the_same(loop):
    """Approved was what stood there then, not what may come."""
    loop.services.gate.approve(MASS)
    assert not loop.tick()
    assert loop.services.gate.holds().approved == frozenset()


# --- unseen --------------------------------------------------------------------------------------


def test_a_source_that_is_not_seen_for_several_ticks_is_told_once(loop):
    limit = loop.services.settings.zlh_surface_failures_to_open
    blind = unseen(Surface.TECHNITIUM)
    for _ in range(limit - 1):
        assert not loop.tick(blind)
    launch = loop.tick(blind)
    assert incidents(launch) == ["unobserved:technitium_records"]
    [finding] = launch.findings
    assert finding.severity is Severity.CRITICAL
    assert finding.text.startswith("HTTP 500. ")
    assert not loop.tick(blind)
    assert not loop.tick()
    assert loop.tick().incidents.over == ("unobserved:technitium_records",)


def test_an_incident_is_not_over_while_its_source_is_unseen(loop, sandbox):
    stop_agent(sandbox)
    assert incidents(loop.tick()) == ["agent_offline:5001"]
    start_agent(sandbox)
    for _ in range(3):
        assert not loop.tick(unseen(agents=True))
        assert not loop.tick(unseen(payloads=True))
    assert not loop.tick()
    assert loop.tick().incidents.over == ("agent_offline:5001",)


def test_an_incident_that_flickers_is_told_once(loop, sandbox):
    stop_agent(sandbox)
    assert loop.tick()
    for _ in range(3):
        start_agent(sandbox)
        assert not loop.tick()
        stop_agent(sandbox)
        assert not loop.tick()


def container(sandbox, vmid=5001):
    [found] = [c for c in sandbox.edge.containers.containers() if c.vmid == vmid]
    return found


def stop_agent(sandbox):
    here = container(sandbox)
    sandbox.edge.containers.put(replace(here, agent=replace(here.agent, mode="refused")))


def start_agent(sandbox):
    here = container(sandbox)
    sandbox.edge.containers.put(replace(here, agent=Agent()))


def test_a_reminder_is_due_when_its_time_has_come(loop, platform):
    change_server(platform.engine, 5001, lastBackupAt=-90_000)
    assert incidents(loop.tick()) == ["backup_missed:5001"]
    known = loop.services.incidents.all_open()["backup_missed:5001"]
    loop.services.incidents.close([known.name])
    loop.services.incidents.open(replace(known, opened_at=known.opened_at - REMINDERS[0]))
    launch = loop.tick()
    assert (incidents(launch), launch.incidents.due) == ([], ("backup_missed:5001",))


# --- dry run -------------------------------------------------------------------------------------


def test_a_dry_run_is_asked_for_once_while_it_lasts(platform, queues, sandbox):
    loop = Loop(platform.services(ZLH_REPAIR_MODE="dry-run"))
    lose_record(sandbox)
    [request] = loop.tick().repairs
    told = Incident(request.dry_run_incident, Severity.REPAIR, "t", opened_at=time.time())
    loop.services.incidents.open(told)
    assert not loop.tick()


# --- Redis gone ----------------------------------------------------------------------------------


def test_without_redis_nothing_is_asked_for_and_the_operator_hears_it_once(platform, sandbox):
    loop = Loop(platform.services(ZLH_REDIS_URL="unix:///nonexistent/redis.sock"))
    lose_record(sandbox)
    first, second = loop.tick(), loop.tick()
    assert first.repairs == second.repairs == ()
    assert incidents(first) == [REDIS_LOST]
    assert first.findings[0].severity is Severity.CRITICAL
    assert not second
    assert len(loop.assessment.judgement.drift) == 1, "judged all the same"
    assert "Redis cannot be reached" in loop.assessment.redis_lost


def test_redis_gone_between_judging_and_asking_asks_for_nothing(loop, sandbox, monkeypatch):
    lose_record(sandbox)

    def lost(*_, **__):
        raise RedisUnavailable("Redis cannot be reached: incidents are not known")

    monkeypatch.setattr(loop.services.incidents, "note", lost)
    launch = loop.tick()
    assert launch.repairs == ()
    assert incidents(launch) == [REDIS_LOST]
