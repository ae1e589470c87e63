"""The whole way from a broken edge to a recorded repair, in one process."""

from collections import Counter

import pytest

from tests.conftest import SERVERS
from tests.harness import Loop, edge_state, statuses, titles, writes
from zlh_dagster.sandbox.publish import publish_database

SRV = "_minecraft._tcp.mc-5000.example.gg"
HOST = "mc-5000.example.gg"


def delete_srv(sandbox, name: str = SRV):
    [record] = sandbox.edge.cloudflare.named(name)
    sandbox.edge.cloudflare.remove(record.id)
    return record


def test_an_edge_in_step_leads_to_reads_only(loop, sandbox):
    assert loop.minute() == []
    assert writes(sandbox) == []
    assert statuses(loop.services) == []
    assert sandbox.edge.discord.inbox() == []
    reads = Counter((e.surface, e.method) for e in sandbox.edge.journal.entries())
    reads.pop(("heartbeat", "GET"), None)  # in the background
    assert reads == {
        ("cloudflare", "GET"): 1,
        ("technitium", "GET"): 1,
        ("velocity", "GET"): 1,
        ("proxmox", "GET"): 1,
        ("agents", "GET"): SERVERS + 1,
    }


def test_a_deleted_srv_record_comes_back_and_nothing_else_is_written(loop, sandbox):
    before = edge_state(sandbox)
    deleted = delete_srv(sandbox)
    [run] = loop.minute()
    assert run.success
    assert edge_state(sandbox) == before
    assert [(w.surface, w.method) for w in writes(sandbox)] == [("cloudflare", "POST")]
    [event] = loop.services.ledger.events()
    assert (event["vmid"], event["surface"], event["action"], event["level"], event["status"]) == (
        5000,
        "cloudflare",
        "dns_republish",
        1,
        "succeeded",
    )
    assert event["before"] == [{"surface": "cloudflare", "name": SRV, "type": "SRV", "records": []}]
    [after] = event["after"][0]["records"]
    assert after["content"] == f"0 0 {deleted.data.port} {HOST}"
    assert (event["runId"], event["requestedBy"]) == (run.run_id, "controller")
    [message] = sandbox.edge.discord.inbox()
    assert message.level == "repair"
    assert titles(sandbox) == ["Repaired server 5000"]
    assert message.payload["allowed_mentions"] == {"parse": []}
    loop.minute()
    assert len(writes(sandbox)) == 1, "the next tick finds nothing to do"
    assert len(sandbox.edge.discord.inbox()) == 1


def test_an_emptied_velocity_gets_every_backend_once_in_one_run(loop, sandbox):
    before = edge_state(sandbox)
    backends = sandbox.edge.velocity.backends()
    sandbox.edge.velocity.restart()
    runs = loop.minute()
    assert len(runs) == 1
    assert edge_state(sandbox) == before
    registered = writes(sandbox)
    assert {w.surface for w in registered} == {"velocity"}
    assert len(registered) == len(backends)
    assert statuses(loop.services) == ["succeeded"] * len(backends)
    assert {e["action"] for e in loop.services.ledger.events()} == {"velocity_reregister"}
    assert len(sandbox.edge.discord.inbox()) == 1


def test_a_server_gone_from_everywhere_is_republished_whole(loop, sandbox):
    before = edge_state(sandbox)
    for name in (HOST, SRV):
        delete_srv(sandbox, name)
        [record] = sandbox.edge.technitium.named(name)
        sandbox.edge.technitium.remove(record.key())
    rest = [b for b in sandbox.edge.velocity.backends() if b.name != "mc-5000"]
    sandbox.edge.velocity.restart()
    sandbox.edge.velocity.seed(rest)
    loop.minute()
    assert edge_state(sandbox) == before
    assert len(writes(sandbox)) == 5
    [event] = loop.services.ledger.events()
    assert (event["action"], event["surface"]) == ("edge_republish", None)
    assert len(event["before"]) == len(event["after"]) == 5


@pytest.mark.parametrize("action", ["edge_republish", "dns_republish"])
def test_by_hand_one_server_is_repaired_and_the_others_left(loop, sandbox, action):
    before = edge_state(sandbox)
    delete_srv(sandbox)
    delete_srv(sandbox, "mc-5001.example.gg")
    assert loop.by_hand((5000, action)).success
    missing = set(before) - set(edge_state(sandbox))
    assert {line[1] for line in missing} == {"mc-5001.example.gg"}
    [event] = loop.services.ledger.events()
    assert (event["action"], event["requestedBy"], event["vmid"]) == (action, "operator", 5000)


def test_by_hand_on_an_edge_in_step_writes_and_records_nothing(loop, sandbox):
    assert loop.by_hand((5000, "edge_republish")).success
    assert writes(sandbox) == []
    assert statuses(loop.services) == []


def test_mass_drift_is_escalated_and_not_repaired(loop, sandbox):
    for vmid in range(5000, 5008):
        for record in sandbox.edge.cloudflare.records():
            if f"-{vmid}." in record.name:
                sandbox.edge.cloudflare.remove(record.id)
    loop.minute()
    loop.minute()
    assert writes(sandbox) == []
    assert statuses(loop.services) == ["refused"]
    [message] = sandbox.edge.discord.inbox()
    assert message.level == "critical"
    assert "of 8 servers drift" in titles(sandbox)[0]


def test_the_same_drift_again_and_again_ends_at_the_budget(loop, sandbox):
    """Something deletes the record every minute: three repairs, then one refusal, told once."""
    for _ in range(6):
        if sandbox.edge.cloudflare.named(SRV):
            delete_srv(sandbox)
        loop.minute()
    assert len(writes(sandbox)) == 3
    assert statuses(loop.services) == ["succeeded"] * 3 + ["refused"]
    assert [m.level for m in sandbox.edge.discord.inbox()] == ["repair"] * 3 + ["critical"]


@pytest.mark.parametrize(
    ("column", "value", "reason"),
    [
        ("lifecycle", "'suspended'", "lifecycle is suspended"),
        ("lifecycle", "'deleting'", "lifecycle is deleting"),
        ("billingStatus", "'suspended'", "billing is suspended"),
        ("maintenanceReason", "'moving disks'", "locked for maintenance"),
        ("ctype", "'dev'", "is of type dev, not game"),
    ],
)
def test_guards_are_read_again_inside_the_repair(loop, sandbox, platform, column, value, reason):
    """The row changes between the tick and the repair: refused, recorded with the reason."""
    delete_srv(sandbox)
    assert loop.observe().success
    [request] = loop.judge()
    with platform.engine.begin() as connection:
        connection.exec_driver_sql(
            f'UPDATE "ContainerInstance" SET "{column}" = {value} WHERE vmid = 5000'
        )
    assert loop.repair(request.run_config).success
    assert writes(sandbox) == []
    [event] = loop.services.ledger.events()
    assert event["status"] == "refused"
    assert reason in event["error"]["message"]


def test_a_guarded_server_is_held_and_not_even_asked_for(loop, sandbox, platform):
    with platform.engine.begin() as connection:
        connection.exec_driver_sql(
            "UPDATE \"ContainerInstance\" SET lifecycle = 'suspended' WHERE vmid = 5000"
        )
    delete_srv(sandbox)
    assert loop.minute() == []
    assert "1 of them held" in loop.skips[-1]


def test_a_write_that_is_refused_is_recorded_and_told(loop, sandbox):
    delete_srv(sandbox)
    sandbox.edge.faults.switch_on("cloudflare", "status", code=403, reads=False)
    [run] = loop.minute()
    assert not run.success
    [event] = loop.services.ledger.events()
    assert event["status"] == "failed"
    assert "403" in event["error"]["message"]
    assert [m.level for m in sandbox.edge.discord.inbox()] == ["critical"]


def test_a_rate_limit_stops_the_writes_to_that_surface_and_no_other(loop, sandbox):
    for vmid in (5000, 5001, 5002):
        delete_srv(sandbox, f"_minecraft._tcp.mc-{vmid}.example.gg")
    sandbox.edge.velocity.restart()
    sandbox.edge.faults.switch_on("cloudflare", "status", code=429, retry_after=60, reads=False)
    loop.minute()
    assert len(writes(sandbox, "cloudflare")) == 1, "no second write into the limit"
    registered = writes(sandbox, "velocity")
    publish_database(sandbox.edge, loop.services.engine)
    assert len(registered) == len(sandbox.edge.velocity.backends())


def test_discord_down_delays_no_repair_and_fails_no_run(loop, sandbox):
    delete_srv(sandbox)
    sandbox.edge.faults.switch_on("discord", "status", code=500)
    [run] = loop.minute()
    assert run.success
    assert statuses(loop.services) == ["succeeded"]


OFF = {
    "cloudflare": ("CLOUDFLARE_API_TOKEN", "CLOUDFLARE_ZONE_ID"),
    "technitium": ("TECHNITIUM_API_URL", "TECHNITIUM_API_TOKEN"),
    "velocity": ("VELOCITY_URL", "ZPACK_SECRET"),
}


@pytest.mark.parametrize(
    ("off", "action"),
    [
        (("velocity",), "velocity_reregister"),
        (("cloudflare", "technitium"), "dns_republish"),
        (("cloudflare", "technitium", "velocity"), "edge_republish"),
    ],
)
def test_by_hand_where_every_surface_is_off_nothing_is_called_in_step(
    platform, instance, sandbox, off, action
):
    settings = dict.fromkeys(name for surface in off for name in OFF[surface])
    loop = Loop(platform.services(**settings), instance)
    for vmid in range(5000, 5000 + SERVERS):
        loop.by_hand((vmid, action))
        [event] = loop.services.ledger.events(vmid=vmid)
        assert (event["status"], event["error"]["code"]) == ("refused", "surface_off")
    assert writes(sandbox) == []
