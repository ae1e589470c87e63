"""Law 1: an error, a time-out, a bad token, a short listing: nothing on that surface is drift."""

import pytest

from tests.harness import statuses, titles, writes
from zlh_dagster.core.model import Surface
from zlh_dagster.core.snapshot import Outcome
from zlh_dagster.resources import observe

MC = "mc-5000.example.gg"
FAULTS = {
    "cloudflare": [
        ("status", {"code": 500}),
        ("status", {"code": 429, "retry_after": 60}),
        ("invalid_token", {}),
        ("disconnect", {}),
        ("html", {}),
        ("truncated_json", {}),
        ("missing_page", {"page": 1, "answer": "empty"}),
        ("cut_short", {"fraction": 0.5}),
        ("empty", {}),
        ("wrong_types", {"where": "rows"}),
        ("wrong_types", {"where": "fields"}),
    ],
    "technitium": [
        ("status", {"code": 500}),
        ("invalid_token", {}),
        ("disconnect", {}),
        ("html", {}),
        ("truncated_json", {}),
        ("cut_short", {"fraction": 0.5}),
        ("empty", {}),
        ("wrong_types", {"where": "rows"}),
        ("wrong_types", {"where": "fields"}),
    ],
    "velocity": [
        ("status", {"code": 500}),
        ("invalid_token", {}),
        ("disconnect", {}),
        ("html", {}),
        ("truncated_json", {}),
        ("cut_short", {"fraction": 0.5}),
        ("wrong_types", {"where": "rows"}),
        ("wrong_types", {"where": "fields"}),
    ],
}
CASES = [(s, kind, options) for s, faults in FAULTS.items() for kind, options in faults]


def delete_from(sandbox, surface: str) -> None:
    if surface == "cloudflare":
        sandbox.edge.cloudflare.remove(sandbox.edge.cloudflare.named(MC)[0].id)
    elif surface == "technitium":
        sandbox.edge.technitium.remove(sandbox.edge.technitium.named(MC)[0].key())
    else:
        rest = [b for b in sandbox.edge.velocity.backends() if b.name != "mc-5000"]
        sandbox.edge.velocity.restart()
        sandbox.edge.velocity.seed(rest)


@pytest.mark.parametrize(("surface", "kind", "options"), CASES)
def test_unknown_is_not_missing(loop, sandbox, surface, kind, options):
    """A record is really gone, but its surface cannot be read: it is left alone until it can."""
    delete_from(sandbox, surface)
    sandbox.edge.faults.switch_on(surface, kind, **options)
    loop.minute()
    assert writes(sandbox) == []
    assert statuses(loop.services) == []

    sandbox.edge.faults.switch_off(surface)
    loop.services.gate.reset(surface)
    [run] = loop.minute()
    assert run.success
    assert len(writes(sandbox)) == 1
    assert statuses(loop.services) == ["succeeded"]


def test_an_unobserved_surface_does_not_stop_the_others(loop, sandbox):
    delete_from(sandbox, "technitium")
    sandbox.edge.faults.switch_on("cloudflare", "status", code=500)
    loop.minute()
    assert [w.surface for w in writes(sandbox)] == ["technitium"]
    assert statuses(loop.services) == ["succeeded"]


def test_an_unreadable_database_is_not_an_empty_fleet(loop, sandbox, platform):
    """No server known is not the same as no server wanted: nothing is judged, nothing told."""
    with platform.engine.begin() as connection:
        connection.exec_driver_sql('ALTER TABLE "ContainerInstance" RENAME TO gone')
    assert loop.minute() == []
    assert writes(sandbox) == []
    assert "persisted_payloads" in loop.skips[-1]


def test_a_surface_that_stays_unobserved_is_told_once(loop, sandbox):
    limit = loop.services.settings.zlh_surface_failures_to_open
    sandbox.edge.faults.switch_on("cloudflare", "disconnect")
    for _ in range(limit + 2):
        loop.minute()
    inbox = sandbox.edge.discord.inbox()
    assert [m.level for m in inbox] == ["critical"]
    assert "cloudflare" in inbox[0].payload["embeds"][0]["title"]
    assert writes(sandbox) == []


@pytest.mark.parametrize("surface", ["cloudflare", "technitium", "velocity"])
def test_unknown_is_not_missing_in_the_repairs_own_look(loop, sandbox, surface):
    """The tick saw the surface, the repair does not: what it cannot see it does not create."""
    delete_from(sandbox, surface)
    assert loop.observe().success
    [request] = loop.judge()
    sandbox.edge.faults.switch_on(surface, "status", code=500, writes=False)
    loop.repair(request.run_config)
    assert writes(sandbox) == []
    [event] = loop.services.ledger.events()
    assert (event["status"], event["error"]["code"]) == ("refused", "unobserved")


def test_unknown_is_not_missing_nor_is_it_mended(loop, sandbox):
    """One surface is put right, the other could not be read: that is no success."""
    delete_from(sandbox, "cloudflare")
    sandbox.edge.faults.switch_on("technitium", "status", code=500)
    assert not loop.by_hand((5000, "edge_republish")).success
    assert [w.surface for w in writes(sandbox)] == ["cloudflare"]
    [event] = loop.services.ledger.events()
    assert event["status"] == "failed"
    assert "technitium: HTTP 500" in event["error"]["message"]
    assert event["after"][0]["records"], "what was put back is recorded all the same"


def test_unknown_is_not_missing_and_is_told_only_when_it_lasts(loop, sandbox):
    """Ticks without a view count in a row: one good tick among them begins anew."""
    limit = loop.services.settings.zlh_surface_failures_to_open
    for _ in range(3):
        sandbox.edge.faults.switch_on("cloudflare", "disconnect")
        for _ in range(limit - 1):
            loop.minute()
        sandbox.edge.faults.switch_off("cloudflare")
        loop.minute()
    assert titles(sandbox) == []


def breaks(*_, **__):
    raise ValueError("a bug")


BUGS = {
    "cloudflare_records": lambda services: (services.surfaces[Surface.CLOUDFLARE], "list_records"),
    "velocity_backends": lambda services: (services.surfaces[Surface.VELOCITY], "list_records"),
    "containers": lambda services: (services.proxmox, "list_containers"),
    "agents": lambda services: (observe, "probe"),
    "operations": lambda services: (services, "count_operations"),
}


@pytest.mark.parametrize("source", BUGS)
def test_unknown_is_not_missing_when_a_reader_has_a_bug(loop, sandbox, monkeypatch, source):
    """An exception that nobody foresaw costs that source, not the tick."""
    where, name = BUGS[source](loop.services)
    monkeypatch.setattr(where, name, breaks)
    delete_from(sandbox, "technitium")
    [run] = loop.minute()
    assert run.success
    assert [w.surface for w in writes(sandbox)] == ["technitium"]
    snapshot = loop.services.snapshots.read(source, loop.instance.get_runs()[-1].run_id)
    assert snapshot.outcome is Outcome.UNOBSERVED
    assert "ValueError" in snapshot.reason


def test_unknown_is_not_missing_when_the_payloads_reader_has_a_bug(loop, sandbox, monkeypatch):
    delete_from(sandbox, "technitium")
    monkeypatch.setattr(loop.services, "read_payloads", breaks)
    assert loop.minute() == []
    assert writes(sandbox) == []
    assert "persisted_payloads" in loop.skips[-1]
