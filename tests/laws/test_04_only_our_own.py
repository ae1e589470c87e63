"""Law 4: writes touch only names of eligible servers; nothing is deleted; two are too many."""

from dataclasses import replace

import pytest
import sqlalchemy as sa

from tests.clock import ago
from tests.harness import edge_state, statuses, titles, writes
from zlh_dagster.core.model import OPERATION_ACTIONS
from zlh_dagster.sandbox.cloudflare_records import new_record
from zlh_dagster.sandbox.platform_rows import change_server
from zlh_dagster.sandbox.technitium_records import address_data
from zlh_dagster.sandbox.velocity_api import Backend
from zlh_dagster.schema.tables import provisioning_operation

HOST = "mc-5000.example.gg"


def test_only_our_own_a_second_record_is_escalated_and_not_touched(loop, sandbox):
    sandbox.edge.cloudflare.put(new_record(HOST, "A", "198.51.100.7", ttl=60, proxied=False))
    before = edge_state(sandbox)
    loop.minute()
    loop.minute()
    assert edge_state(sandbox) == before
    assert writes(sandbox) == []
    [event] = loop.services.ledger.events()
    assert (event["status"], event["vmid"], event["surface"]) == ("refused", 5000, "cloudflare")
    [message] = sandbox.edge.discord.inbox()
    assert message.level == "warning"
    assert "more than one record" in message.payload["embeds"][0]["description"]


def test_a_wrong_record_is_changed_in_place_and_what_was_there_is_kept(loop, sandbox):
    [record] = sandbox.edge.cloudflare.named(HOST)
    sandbox.edge.cloudflare.put(replace(record, content="198.51.100.7"))
    loop.minute()
    [after] = sandbox.edge.cloudflare.named(HOST)
    assert (after.id, after.content) == (record.id, record.content)
    [event] = loop.services.ledger.events()
    assert event["before"][0]["records"][0]["content"] == "198.51.100.7"
    assert event["after"][0]["records"][0]["content"] == record.content
    assert [w.method for w in writes(sandbox)] == ["PATCH"]


def test_a_wrong_internal_record_is_changed_in_place(loop, sandbox):
    [record] = sandbox.edge.technitium.named(HOST)
    before = edge_state(sandbox)
    sandbox.edge.technitium.remove(record.key())
    sandbox.edge.technitium.put(replace(record, data=address_data("10.9.9.9")))
    loop.minute()
    assert edge_state(sandbox) == before
    assert len(writes(sandbox)) == 1
    assert statuses(loop.services) == ["succeeded"]


def test_a_disabled_record_is_enabled_again(loop, sandbox):
    [record] = sandbox.edge.technitium.named(HOST)
    before = edge_state(sandbox)
    sandbox.edge.technitium.put(replace(record, disabled=True))
    assert edge_state(sandbox) != before
    loop.minute()
    assert edge_state(sandbox) == before
    assert len(writes(sandbox)) == 1


def test_nobody_elses_records_are_touched_and_orphans_only_reported(loop, sandbox):
    """Foreign records stay out of it; a record without a server is told once, at level 0."""
    orphan = new_record("mc-9999.example.gg", "A", "203.0.113.10", ttl=60, proxied=False)
    sandbox.edge.cloudflare.put(orphan)
    sandbox.edge.velocity.seed([Backend("lobby", "10.1.1.1", 25565)])
    before = edge_state(sandbox)
    loop.minute()
    loop.minute()
    assert edge_state(sandbox) == before
    assert writes(sandbox) == []
    inbox = sandbox.edge.discord.inbox()
    assert [m.level for m in inbox] == ["info"]
    text = str(inbox[0].payload)
    assert "mc-9999" in text
    assert "lobby" in text
    assert "mail" not in text


def test_only_our_own_goes_on_where_a_game_changed_and_the_rest_is_only_reported(
    loop, sandbox, platform
):
    """What the server asks for now is put there; what it asked for before is told once."""
    left = "_minecraft._tcp.mc-5000.example.gg"
    change_server(platform.engine, 5000, payload={"game": "rust"})
    for _ in range(3):
        loop.minute()
    assert statuses(loop.services) == ["succeeded"]
    for zone in (sandbox.edge.cloudflare, sandbox.edge.technitium):
        assert len(zone.named(left)) == len(zone.named(f"_rust._udp.{HOST}")) == 1
    assert "mc-5000" in [backend.name for backend in sandbox.edge.velocity.backends()]
    [title] = titles(sandbox)
    assert title == (
        "Repaired server 5000; cloudflare: SRV of mc-5000.example.gg is left over; 2 more findings"
    )
    [message] = sandbox.edge.discord.inbox()
    text = message.payload["embeds"][0]["description"].replace("\\", "")
    assert [line.split(":")[0] for line in text.splitlines() if "is left over" in line] == [
        "cloudflare",
        "technitium",
        "velocity",
    ]
    assert text.count(f"SRV {left} is reported only") == 2
    assert "BACKEND mc-5000 is left over" in text


def test_a_registration_with_another_address_is_never_moved(loop, sandbox):
    backends = sandbox.edge.velocity.backends()
    sandbox.edge.velocity.restart()
    sandbox.edge.velocity.seed([replace(backends[0], address="10.9.9.9"), *backends[1:]])
    before = edge_state(sandbox)
    loop.minute()
    loop.by_hand((5000, "edge_republish"))
    assert edge_state(sandbox) == before
    assert writes(sandbox) == []
    assert [e["action"] for e in loop.services.ledger.events()] == [
        "edge_republish",
        "velocity_repoint",
    ]
    assert statuses(loop.services) == ["refused", "refused"]
    assert sandbox.edge.discord.inbox()[0].level == "warning"


def test_a_cname_in_the_way_is_escalated(loop, sandbox):
    [record] = sandbox.edge.cloudflare.named(HOST)
    sandbox.edge.cloudflare.remove(record.id)
    sandbox.edge.cloudflare.put(new_record(HOST, "CNAME", "other.example.org", ttl=60))
    loop.minute()
    assert writes(sandbox) == []
    assert statuses(loop.services) == ["refused"]


def test_servers_that_share_a_host_name_are_not_guessed_about(loop, sandbox, platform):
    with platform.engine.begin() as connection:
        connection.exec_driver_sql(
            "UPDATE \"ContainerInstance\" SET hostname = 'mc-5000' WHERE vmid = 5001"
        )
    [record] = sandbox.edge.cloudflare.named(HOST)
    sandbox.edge.cloudflare.remove(record.id)
    loop.minute()
    assert writes(sandbox) == []
    text = str([m.payload for m in sandbox.edge.discord.inbox()])
    assert "used by more than one server" in text


@pytest.mark.parametrize("beside", sorted(OPERATION_ACTIONS), indirect=True)
def test_only_our_own_an_operation_that_moved_after_the_look_is_left_alone(beside, monkeypatch):
    """Its worker renews the row between the last look and the conditional write."""
    config = beside.asked()
    owner, name = beside.first_write
    real = getattr(owner, name)

    def moved(engine, row, **values):
        with engine.begin() as connection:
            table = provisioning_operation
            mine = sa.update(table).where(table.c.id == beside.operation)
            connection.execute(mine.values(heartbeatAt=ago(seconds=1)))
        return real(engine, row, **values)

    monkeypatch.setattr(owner, name, moved)
    beside.loop.repair(config)
    assert beside.untouched()
    assert beside.event() == ("refused", "changed_meanwhile")
