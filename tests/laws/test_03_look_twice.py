"""Law 3: a fresh read before the repair confirms it, a fresh read after it proves it."""

from tests.harness import edge_state, statuses, writes

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

    from zlh_dagster.core.model import Surface

    surfaces = loop.services.surfaces
    surfaces[Surface.CLOUDFLARE] = BlindAfterwards(surfaces[Surface.CLOUDFLARE])
    assert not loop.repair(request.run_config).success
    assert statuses(loop.services) == ["failed"]
