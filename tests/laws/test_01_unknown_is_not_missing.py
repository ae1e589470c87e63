"""Law 1: an error, a time-out, a bad token, a short listing: nothing on that surface is drift."""

import pytest

from tests.harness import statuses, writes

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
    assert loop.minute() == []
    assert writes(sandbox) == []
    assert statuses(loop.services) == []

    sandbox.edge.faults.switch_off(surface)
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
