"""Law 3: a fresh read before the repair confirms it, a fresh read after it proves it."""

from tests.harness import edge_state, statuses, titles, writes
from zlh_dagster.core.model import Surface
from zlh_dagster.resources import edge_repairs

SRV = "_minecraft._tcp.mc-5000.example.gg"


def delete_srv(sandbox):
    [record] = sandbox.edge.cloudflare.named(SRV)
    sandbox.edge.cloudflare.remove(record.id)
    return record


def test_look_twice_before_drift_that_is_gone_is_not_repaired(loop, sandbox):
    """Somebody puts the record back between the tick and the repair."""
    record = delete_srv(sandbox)
    assert loop.observe().success
    [request] = loop.judge()
    sandbox.edge.cloudflare.put(record)
    assert loop.repair(request.run_config).success
    assert writes(sandbox) == []
    assert statuses(loop.services) == []
    assert sandbox.edge.discord.inbox() == []


def test_look_twice_after_a_write_that_did_nothing_is_no_success(loop, sandbox):
    """The provider says yes and does nothing: the ledger and the operator hear the truth."""
    delete_srv(sandbox)
    sandbox.edge.faults.switch_on("cloudflare", "write_ignored")
    [run] = loop.minute()
    assert not run.success
    [event] = loop.services.ledger.events()
    assert event["status"] == "failed"
    assert "fresh read does not show it" in event["error"]["message"]
    assert event["after"][0]["records"] == []
    assert [m.level for m in sandbox.edge.discord.inbox()] == ["critical"]


def test_look_twice_after_a_lost_answer_the_write_counts_and_is_not_repeated(loop, sandbox):
    before = edge_state(sandbox)
    delete_srv(sandbox)
    sandbox.edge.faults.switch_on("cloudflare", "write_answer_lost")
    [run] = loop.minute()
    assert run.success
    assert len(writes(sandbox)) == 1
    assert edge_state(sandbox) == before
    assert statuses(loop.services) == ["succeeded"]


def test_a_listing_that_fails_after_the_write_is_no_proof(loop, sandbox):
    delete_srv(sandbox)
    assert loop.observe().success
    [request] = loop.judge()

    class BlindAfterwards:
        def __init__(self, real) -> None:
            self._real = real

        def __getattr__(self, name):
            return getattr(self._real, name)

        def apply(self, change) -> None:
            self._real.apply(change)
            sandbox.edge.faults.switch_on("cloudflare", "status", code=503)

    surfaces = loop.services.surfaces
    surfaces[Surface.CLOUDFLARE] = BlindAfterwards(surfaces[Surface.CLOUDFLARE])
    assert not loop.repair(request.run_config).success
    assert statuses(loop.services) == ["failed"]


def test_look_twice_a_look_that_grew_old_is_renewed_before_the_next_server(
    loop, sandbox, monkeypatch
):
    """While one server is written to, somebody puts the other's registration back."""
    monkeypatch.setattr(edge_repairs, "LOOK_SECONDS", 0.0)
    backends = {backend.name: backend for backend in sandbox.edge.velocity.backends()}
    kept = [b for name, b in backends.items() if name not in ("mc-5000", "mc-5001")]
    sandbox.edge.velocity.restart()
    sandbox.edge.velocity.seed(kept)
    velocity = loop.services.surfaces[Surface.VELOCITY]
    real = velocity.apply

    def apply(change):
        real(change)
        sandbox.edge.velocity.seed([backends["mc-5001"]])

    monkeypatch.setattr(velocity, "apply", apply)
    [run] = loop.minute()
    assert run.success
    assert len(writes(sandbox)) == 1
    assert [(e["vmid"], e["status"]) for e in loop.services.ledger.events()] == [
        (5000, "succeeded")
    ]


def test_look_twice_after_a_write_even_when_the_look_has_a_bug(loop, sandbox, monkeypatch):
    """An exception that nobody foresaw is no proof, and leaves no row open."""
    delete_srv(sandbox)
    cloudflare = loop.services.surfaces[Surface.CLOUDFLARE]
    real = cloudflare.apply

    def breaks():
        raise ValueError("a bug")

    def apply(change):
        real(change)
        monkeypatch.setattr(cloudflare, "list_records", breaks)

    monkeypatch.setattr(cloudflare, "apply", apply)
    [run] = loop.minute()
    assert not run.success
    assert len(writes(sandbox)) == 1
    assert statuses(loop.services) == ["failed"]
    assert titles(sandbox) == ["Repair of server 5000 failed"]
