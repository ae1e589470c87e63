"""`zlh drill` on the real loop: what it refuses, what it verifies, and what it puts back itself."""

import json
import time
from dataclasses import replace
from datetime import datetime, timezone

import dns.resolver
import pytest
import sqlalchemy as sa
from typer.testing import CliRunner

from tests.cli.nameserver import nameserver
from tests.docs.pages import documented_keys
from tests.harness import edge_state, statuses, writes
from zlh_dagster.cli import authority, drill, main
from zlh_dagster.cli.drill import DrillRefused, Exercise, prepare
from zlh_dagster.core.holds import EVERYTHING, Pause
from zlh_dagster.resources.cloudflare import Cloudflare
from zlh_dagster.schema.tables import container_instance, repair_event

SRV = "_minecraft._tcp.mc-5000.example.gg"


@pytest.fixture
def working(loop, daemon):
    """A loop that has judged a good tick, as one that runs has."""
    loop.minute()
    loop.minute()
    return loop


@pytest.fixture
def led(platform, daemon):
    """What a loop that works leaves in Redis: a leader in live mode, and a good tick."""
    services = platform.services()
    services.leadership.take()
    services.pulse.note(time.time())


@pytest.fixture
def exercise(working, platform, monkeypatch):
    """A drill whose waiting is a minute of the loop, or whatever the test makes of it."""
    monkeypatch.setattr(drill, "DNS_SECONDS", 2.0)

    def make(sleep=lambda _: working.minute(), **options):
        services = platform.services()
        options.setdefault("nameservers", ())
        return Exercise(services, prepare(services, 5000), say=[].append, sleep=sleep, **options)

    return make


def test_the_loop_puts_it_back_and_all_of_it_is_verified(exercise, sandbox, platform):
    before, services = edge_state(sandbox), platform.services()
    with nameserver(sandbox) as address:
        report = exercise(nameservers=[authority.named(address)]).run()
    assert report.problems == []
    assert edge_state(sandbox) == before
    assert statuses(services, 5000) == ["succeeded"]
    assert [entry.method for entry in writes(sandbox)] == ["DELETE", "POST"]
    seen = "\n".join(text for _, text in report.steps)
    [event] = services.ledger.events(vmid=5000)
    for part in (
        "deleted over Cloudflare's API",
        "a fresh listing shows it again",
        f"ledger row {event['id'][:8]}: dns_republish succeeded, by the controller",
        f"{address} answers with it",
        "another tick was judged",
        "Velocity has the same 7 registrations as before",
    ):
        assert part in seen
    assert [at for at, _ in report.steps] == sorted(at for at, _ in report.steps)
    page = report.markdown()
    assert page.startswith("## Drill cloudflare-srv, server 5000: **passed**")
    assert f"`{SRV}`" in page
    told = json.loads(json.dumps(report.to_json()))
    assert told["passed"] is True
    assert set(told) == documented_keys("drill")


def test_a_drill_without_nameservers_says_that_dns_was_not_asked(exercise):
    report = exercise().run()
    assert (report.problems, report.skipped) == ([], ["DNS"])
    assert report.markdown().splitlines()[0].endswith("server 5000: **passed**, DNS not asked")
    assert report.to_json()["skipped"] == ["DNS"]


def test_without_a_resolver_nothing_is_deleted(working, platform, sandbox, monkeypatch):
    def nobody(name, kind, lifetime):
        raise dns.resolver.NoNameservers

    monkeypatch.setattr(dns.resolver, "resolve", nobody)
    for name, value in platform.environment().items():
        monkeypatch.setenv(name, value)
    arguments = ["drill", "cloudflare-srv", "--vmid", "5000", "--yes"]
    done = CliRunner().invoke(main.app, arguments, standalone_mode=False)
    assert isinstance(done.exception, authority.NotAsked)
    assert "--nameserver" in str(done.exception)
    assert "--no-dns" in str(done.exception)
    assert writes(sandbox) == []


def test_a_server_that_is_no_authority_does_not_pass(exercise, sandbox):
    with nameserver(sandbox, authoritative=False) as address:
        report = exercise(nameservers=[authority.named(address)]).run()
    assert "is no authority" in report.problems[0]
    assert "**not passed**" in report.markdown()


def test_what_the_loop_leaves_is_put_back_by_the_drill_with_a_row_of_its_own(
    exercise, sandbox, platform
):
    before = edge_state(sandbox)
    report = exercise(sleep=lambda _: time.sleep(0.1), wait=0.5).run()
    assert report.problems[0].startswith("the loop did not put it back within")
    assert edge_state(sandbox) == before
    [event] = platform.services().ledger.events(vmid=5000)
    assert (event["status"], event["requestedBy"]) == ("succeeded", "operator")
    assert "put back by `zlh repair dns_republish`" in report.steps[-1][1]


def test_a_drill_that_is_interrupted_leaves_nothing_broken(exercise, sandbox):
    before = edge_state(sandbox)

    def interrupted(seconds):
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        exercise(sleep=interrupted).run()
    assert edge_state(sandbox) == before


def test_what_cannot_be_put_back_is_said_loudly(exercise, sandbox, platform):
    def stop_all(_):
        platform.services().gate.pause(Pause(EVERYTHING, "by the test", time.time()))

    report = exercise(sleep=stop_all, wait=0.3).run()
    assert any("IS STILL MISSING" in problem for problem in report.problems)
    assert any(f"--vmid {5000} --live" in problem for problem in report.problems)


def test_a_second_repair_of_the_same_server_is_no_pass(exercise, sandbox, working):
    """Somebody deletes it once more before the next tick."""
    minutes = []

    def sleep(_):
        working.minute()
        minutes.append(1)
        if len(minutes) == 2:
            [record] = sandbox.edge.cloudflare.named(SRV)
            sandbox.edge.cloudflare.remove(record.id)
            working.minute()

    report = exercise(sleep=sleep).run()
    assert any("one repair was due" in problem for problem in report.problems)


def _row(platform, vmid, **values):
    with platform.engine.begin() as connection:
        connection.execute(
            sa.update(container_instance).where(container_instance.c.vmid == vmid).values(**values)
        )


def test_only_a_disposable_server_is_drilled(led, platform, sandbox):
    for vmid, why in ((5001, "not disposable"), (4711, "has none with this VMID")):
        with pytest.raises(DrillRefused, match=why):
            prepare(platform.services(), vmid)
    _row(platform, 5000, payload={"game": "minecraft", "disposable": "yes"})
    with pytest.raises(DrillRefused, match="not disposable"):
        prepare(platform.services(), 5000)
    assert writes(sandbox) == []


@pytest.mark.parametrize(
    ("break_it", "why"),
    [
        (lambda p, s: _row(p, 5000, lifecycle="suspended"), "is guarded"),
        (lambda p, s: _row(p, 5000, maintenanceReason="move"), "is guarded"),
        (lambda p, s: s.gate.pause(Pause(EVERYTHING, "x", time.time())), "paused"),
        (lambda p, s: s.gate.open_server(5000, "three times"), "would not repair it"),
        (lambda p, s: s.pulse.note(time.time() - 999), "the loop is not well"),
        (lambda p, s: s.leadership.release(), "nobody leads"),
        (lambda p, s: p.sandbox.edge.cloudflare.clear(), "cloudflare"),
    ],
)
def test_it_refuses_where_the_loop_would_not_repair(led, platform, sandbox, break_it, why):
    services = platform.services()
    break_it(platform, services)
    with pytest.raises(Exception, match=why):
        prepare(services, 5000)
    assert [entry for entry in writes(sandbox) if entry.method == "DELETE"] == []


def test_a_server_over_its_budget_is_not_drilled(led, platform, sandbox):
    """The loop would refuse it, and the record would be missing."""
    repaired = {"vmid": 5000, "action": "dns_republish", "level": 1, "status": "succeeded"}
    asked = {"reason": "x", "requestedBy": "controller", "runId": "r", "fencingToken": 1}
    now = datetime.now(timezone.utc)
    with platform.engine.begin() as connection:
        for number in range(3):
            row = {"id": f"e{number}", **repaired, **asked, "createdAt": now}
            connection.execute(sa.insert(repair_event).values(**row))
    with pytest.raises(DrillRefused, match="would not repair it: 3 repairs within an hour"):
        prepare(platform.services(), 5000)
    assert writes(sandbox) == []


def test_a_record_that_is_not_in_step_is_left_to_the_loop(led, platform, sandbox):
    [record] = sandbox.edge.cloudflare.named(SRV)
    sandbox.edge.cloudflare.remove(record.id)
    with pytest.raises(DrillRefused, match="not in step"):
        prepare(platform.services(), 5000)


def test_a_host_name_that_two_servers_have_is_not_drilled(working, platform, sandbox):
    """The loop refuses both of them, and so would the drill's own repair."""
    _row(platform, 5001, hostname="mc-5000.example.gg")
    with pytest.raises(DrillRefused, match="used by more than one server"):
        prepare(platform.services(), 5000)
    assert writes(sandbox) == []


def _pause(platform, sandbox):
    platform.services().gate.pause(Pause(EVERYTHING, "DNS move", time.time()))


def _lock(platform, sandbox):
    _row(platform, 5000, maintenanceReason="move")


def _share(platform, sandbox):
    _row(platform, 5001, hostname="mc-5000.example.gg")


def _replace(platform, sandbox):
    [record] = sandbox.edge.cloudflare.named(SRV)
    sandbox.edge.cloudflare.remove(record.id)
    sandbox.edge.cloudflare.put(replace(record, id="f" * 32))


CHANGES = [
    pytest.param(_pause, "paused", id="pause"),
    pytest.param(_lock, "guarded", id="maintenance"),
    pytest.param(_share, "more than one server", id="shared"),
]


@pytest.mark.parametrize(
    ("change", "why"), [*CHANGES, pytest.param(_replace, "begin again", id="replaced")]
)
def test_what_changes_before_the_deletion_is_seen(exercise, platform, sandbox, change, why):
    """Looking up the nameservers takes seconds, and so does Velocity's listing."""
    drilled = exercise()
    change(platform, sandbox)
    with pytest.raises(DrillRefused, match=why):
        drilled.run()
    assert writes(sandbox) == []


@pytest.mark.parametrize(("change", "why"), CHANGES)
def test_what_changes_during_the_listing_is_seen(led, platform, sandbox, monkeypatch, change, why):
    listing = Cloudflare.list_records

    def slow(self):
        change(platform, sandbox)
        return listing(self)

    monkeypatch.setattr(Cloudflare, "list_records", slow)
    with pytest.raises(DrillRefused, match=why):
        prepare(platform.services(), 5000)


def test_a_dry_run_leader_would_put_nothing_back(platform, daemon):
    services = platform.services(ZLH_REPAIR_MODE="dry-run")
    services.leadership.take()
    services.pulse.note(time.time())
    with pytest.raises(DrillRefused, match="mode dry-run"):
        prepare(platform.services(), 5000)
