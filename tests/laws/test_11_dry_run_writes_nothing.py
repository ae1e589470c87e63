"""Law 11: a dry run writes nothing but the ledger's `dry_run` rows."""

import pytest

from tests.clock import pass_time
from tests.harness import Loop, edge_state, statuses, titles, writes
from tests.laws.test_06_breakers import delete_srv, minutes_of_deletion
from zlh_dagster.sandbox.publish import publish_database

SRV = "_minecraft._tcp.mc-5000.example.gg"


@pytest.fixture
def dry(platform, instance) -> Loop:
    return Loop(platform.services(ZLH_REPAIR_MODE="dry-run"), instance)


@pytest.fixture
def broken(sandbox):
    sandbox.edge.cloudflare.remove(sandbox.edge.cloudflare.named(SRV)[0].id)


def test_dry_run_writes_nothing_but_one_row_and_one_message(dry, sandbox, broken):
    before = edge_state(sandbox)
    for _ in range(3):
        dry.minute()
    assert edge_state(sandbox) == before
    assert writes(sandbox) == []
    [event] = dry.services.ledger.events()
    assert event["status"] == "dry_run"
    assert event["before"][0]["records"] == []
    assert event["after"][0]["records"][0]["content"] == "0 0 25565 mc-5000.example.gg"
    [message] = sandbox.edge.discord.inbox()
    assert message.level == "repair"
    assert "would repair" in titles(sandbox)[0]
    assert "\\" not in titles(sandbox)[0]
    assert "would put back" in message.payload["embeds"][0]["description"]


def test_dry_run_tells_again_when_the_drift_comes_back(dry, sandbox, broken):
    """Two ticks without it end the incident, and are told; then it is new."""
    dry.minute()
    publish_database(sandbox.edge, dry.services.engine)
    dry.minute()
    dry.minute()
    sandbox.edge.cloudflare.remove(sandbox.edge.cloudflare.named(SRV)[0].id)
    dry.minute()
    assert statuses(dry.services) == ["dry_run", "dry_run"]
    kinds = [title.split(":")[0] for title in titles(sandbox)]
    assert kinds == ["Dry run", "Over", "Dry run"]


def test_a_run_queued_before_the_switch_to_dry_run_writes_nothing(loop, dry, sandbox, broken):
    """The mode that counts is the one when the repair runs, not the one when it was asked for."""
    loop.observe()
    [request] = loop.judge()
    assert request.run_config["ops"]["level1_repair"]["config"]["live"] is True
    dry.repair(request.run_config)
    assert writes(sandbox) == []
    assert statuses(dry.services) == ["dry_run"]


def test_the_operator_may_try_one_server_live_before_switching_the_loop_on(dry, sandbox, broken):
    dry.by_hand((5000, "dns_republish"), live=True)
    assert len(writes(sandbox)) == 1
    assert statuses(dry.services) == ["succeeded"]


def test_by_hand_without_live_is_a_dry_run_even_in_live_mode(loop, sandbox, broken):
    loop.by_hand((5000, "dns_republish"), live=False)
    assert writes(sandbox) == []
    assert statuses(loop.services) == ["dry_run"]


def test_a_spent_budget_is_told_once_in_dry_run(loop, dry, sandbox):
    """A dry run opens no breaker; what it refuses lasts for as long as its drift does."""
    minutes_of_deletion(loop, sandbox, 3)
    delete_srv(sandbox)
    before = len(titles(sandbox))
    for _ in range(4):
        dry.minute()
    pass_time(dry.services, minutes=11)
    for _ in range(4):
        dry.minute()
    assert titles(sandbox)[before:] == ["Breaker open: server 5000 not repaired"]
    assert statuses(dry.services) == ["succeeded"] * 3 + ["refused"]
    assert dry.services.gate.breakers() == {}
