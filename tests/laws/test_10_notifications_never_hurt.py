"""Law 10: one incident, one message, reminders, one when it is over; nothing is lost in silence."""

import logging

import pytest

from tests.clock import forget_everything, pass_time
from tests.harness import Loop, statuses, titles, writes
from zlh_dagster.core.repair import Refusal
from zlh_dagster.resources import discord, lease
from zlh_dagster.resources.messages import KEY as MESSAGES
from zlh_dagster.resources.preconditions import Checks
from zlh_dagster.resources.redis import connect
from zlh_dagster.sandbox.cloudflare_records import new_record
from zlh_dagster.sandbox.platform_rows import change_server
from zlh_dagster.sandbox.publish import publish_database

SRV = "_minecraft._tcp.mc-5000.example.gg"


@pytest.fixture
def silent(sandbox):
    """An agent that does not answer: an incident that nobody repairs."""
    sandbox.edge.containers.change_agent(5000, mode="refused")


def test_notifications_one_message_a_reminder_each_and_one_when_it_is_over(loop, sandbox, silent):
    for _ in range(3):
        loop.minute()
    assert titles(sandbox) == ["Server 5000: agent offline"]
    for hours, count in ((1, 2), (4, 2), (1, 3), (17, 3), (1, 4), (48, 4)):
        pass_time(loop.services, hours=hours, minutes=1)
        loop.minute()
        loop.minute()
        assert len(titles(sandbox)) == count, hours
    assert titles(sandbox)[1:] == ["Still open: Server 5000: agent offline"] * 3
    sandbox.edge.containers.change_agent(5000, mode="healthy")
    loop.minute()
    assert len(titles(sandbox)) == 4
    loop.minute()
    last = sandbox.edge.discord.inbox()[-1]
    assert titles(sandbox)[-1] == "Over: Server 5000: agent offline"
    assert "Over after 3 days" in last.payload["embeds"][0]["description"]
    assert last.level == "warning"


def test_notifications_the_first_message_is_edited_when_it_is_over(loop, sandbox, silent):
    loop.minute()
    pass_time(loop.services, minutes=12)
    sandbox.edge.containers.change_agent(5000, mode="healthy")
    loop.minute()
    loop.minute()
    first = sandbox.edge.discord.inbox()[0]
    [embed] = first.current()["embeds"]
    assert embed["title"] == "Over: Server 5000: agent offline"
    assert "Over after 12 min" in embed["description"]
    assert first.payload["embeds"][0]["title"] == "Server 5000: agent offline"


def test_notifications_a_fault_that_is_mended_in_part_stays_one_incident(loop, sandbox):
    """The next tick asks for a narrower action; what it is about is the same fault."""
    sandbox.edge.faults.switch_on("cloudflare", "status", code=500, reads=False)
    sandbox.edge.cloudflare.remove(sandbox.edge.cloudflare.named(SRV)[0].id)
    sandbox.edge.velocity.restart()
    for _ in range(2):
        loop.minute()
        assert list(loop.services.incidents.all_open()) == ["failed:5000:edge"]
    asked = [e["action"] for e in loop.services.ledger.events(vmid=5000)]
    assert asked == ["dns_republish", "edge_republish"]
    assert len(titles(sandbox)) == 1
    sandbox.edge.faults.switch_off("cloudflare")
    for _ in range(3):
        loop.minute()
    assert titles(sandbox)[-1] == "Over: Server 5000: repair failed: edge republish"
    assert sandbox.edge.discord.inbox()[0].current()["embeds"][0]["title"].startswith("Over")


@pytest.mark.parametrize("held_by", ["mass drift", "maintenance", "suspension"])
def test_notifications_a_fault_that_is_held_back_is_not_over(loop, sandbox, platform, held_by):
    """What hides a failing repair from the loop does not mend it."""
    sandbox.edge.faults.switch_on("cloudflare", "write_ignored")
    sandbox.edge.cloudflare.remove(sandbox.edge.cloudflare.named(SRV)[0].id)
    loop.minute()
    sandbox.edge.faults.switch_off("cloudflare")
    if held_by == "mass drift":
        for record in sandbox.edge.cloudflare.records():
            if record.type == "SRV":
                sandbox.edge.cloudflare.remove(record.id)
    elif held_by == "maintenance":
        change_server(platform.engine, 5000, maintenanceReason="moving")
    else:
        change_server(platform.engine, 5000, billingStatus="suspended")
    for _ in range(3):
        loop.minute()
    assert sandbox.edge.cloudflare.named(SRV) == []
    assert "failed:5000:edge" in loop.services.incidents.all_open()
    assert not any(title.startswith("Over") for title in titles(sandbox))
    change_server(platform.engine, 5000, maintenanceReason=None, billingStatus="active")
    publish_database(sandbox.edge, platform.engine)
    for _ in range(2):
        loop.minute()
    assert "failed:5000:edge" not in loop.services.incidents.all_open()
    assert any("over" in title.lower() for title in titles(sandbox))


def test_notifications_what_one_surface_takes_does_not_end_the_failure_of_another(loop, sandbox):
    sandbox.edge.faults.switch_on("cloudflare", "status", code=500, reads=False)
    sandbox.edge.cloudflare.remove(sandbox.edge.cloudflare.named(SRV)[0].id)
    loop.minute()
    loop.by_hand((5000, "velocity_reregister"))
    assert list(loop.services.incidents.all_open()) == ["failed:5000:edge"]
    assert not any(title.startswith("Over") for title in titles(sandbox))


@pytest.mark.parametrize("mode", ["live", "dry-run"])
def test_notifications_a_repair_by_hand_takes_no_message_from_the_loop(
    platform, instance, sandbox, mode
):
    """What the loop told is marked when it is over, whatever the operator tried meanwhile."""
    loop = Loop(platform.services(ZLH_REPAIR_MODE=mode), instance)
    sandbox.edge.faults.switch_on("cloudflare", "write_ignored")
    sandbox.edge.cloudflare.remove(sandbox.edge.cloudflare.named(SRV)[0].id)
    loop.minute()
    [told] = loop.services.incidents.all_open().values()
    loop.by_hand((5000, "dns_republish"), live=mode == "live")
    [still] = loop.services.incidents.all_open().values()
    assert told.message is not None
    assert still.message == told.message
    sandbox.edge.faults.switch_off("cloudflare")
    publish_database(sandbox.edge, loop.services.engine)
    for _ in range(2):
        loop.minute()
    shown = [m.current()["embeds"][0]["title"] for m in sandbox.edge.discord.inbox()]
    assert [title.startswith("Over") for title in shown] == [True, False, True]
    assert loop.services.redis.hlen(MESSAGES) == 0


def test_notifications_a_refusal_for_another_reason_is_recorded_once_and_marked_when_over(
    loop, sandbox
):
    """It becomes worse once, which is told; both messages are marked when it is over."""
    sandbox.edge.cloudflare.remove(sandbox.edge.cloudflare.named(SRV)[0].id)
    why = [
        Refusal("maintenance", "locked"),
        Refusal("unobserved", "HTTP 500"),
        Refusal("unobserved", "HTTP 500"),
        Refusal("surface_breaker_open", "5 failures"),
    ]
    for refusal in why:
        assert loop.observe().success
        [request] = loop.judge()
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(Checks, "refusals", lambda _, rs, r=refusal: dict.fromkeys(rs, r))
            loop.repair(request.run_config)
    codes = [event["error"]["code"] for event in reversed(loop.services.ledger.events())]
    assert codes == ["maintenance", "unobserved", "surface_breaker_open"]
    assert [m.level for m in sandbox.edge.discord.inbox()] == ["warning", "critical"]
    [incident] = loop.services.incidents.all_open().values()
    assert (incident.code, incident.text) == ("surface_breaker_open", "5 failures")
    publish_database(sandbox.edge, loop.services.engine)
    for _ in range(2):
        loop.minute()
    shown = [m.current()["embeds"][0]["title"] for m in sandbox.edge.discord.inbox()]
    assert [title.startswith("Over") for title in shown] == [True] * 3
    assert loop.services.redis.hlen(MESSAGES) == 0


def test_notifications_that_redis_is_back_is_told_once(loop, sandbox):
    loop.services.close()
    loop.services.__dict__["redis"] = connect("unix:///nonexistent/redis.sock")
    for _ in range(2):
        loop.minute()
    assert titles(sandbox) == ["level1 repair failed"]
    loop.services.close()
    for _ in range(4):
        loop.minute()
    assert titles(sandbox)[1:] == ["Over: Redis does not answer: nothing is repaired"]
    assert loop.services.incidents.all_open() == {}


def test_notifications_what_flickers_is_told_once(loop, sandbox):
    for _ in range(4):
        sandbox.edge.containers.change_agent(5000, mode="refused")
        loop.minute()
        sandbox.edge.containers.change_agent(5000, mode="healthy")
        loop.minute()
    assert titles(sandbox) == ["Server 5000: agent offline"]


def test_notifications_more_than_five_at_once_are_one_summary(loop, sandbox):
    for container in sandbox.edge.containers.containers():
        if 5000 <= container.vmid < 6000:
            sandbox.edge.containers.change_agent(container.vmid, mode="refused")
    loop.minute()
    [message] = sandbox.edge.discord.inbox()
    [embed] = message.payload["embeds"]
    assert "8 times agent offline: 5000, 5001" in embed["description"]
    assert len(embed["description"].splitlines()) == 1
    # Each of them is an incident of its own, and the message says which are over.
    sandbox.edge.containers.change_agent(5000, mode="healthy")
    loop.minute()
    loop.minute()
    [embed] = sandbox.edge.discord.inbox()[0].current()["embeds"]
    assert "Server 5000: agent offline" in embed["description"]
    assert not embed["title"].startswith("Over")
    assert len(loop.services.incidents.all_open()) == 7


def test_notifications_incidents_survive_a_restart(loop, sandbox, silent, platform, instance):
    loop.minute()
    again = Loop(platform.services(), instance)
    again.minute()
    assert titles(sandbox) == ["Server 5000: agent offline"]


def test_notifications_a_redis_that_lost_everything_tells_again_once(loop, sandbox, silent):
    loop.minute()
    forget_everything(loop.services)
    for _ in range(3):
        loop.minute()
    assert titles(sandbox) == ["Server 5000: agent offline"] * 2


def test_notifications_an_incident_whose_source_is_unseen_is_not_over(loop, sandbox, silent):
    loop.minute()
    sandbox.edge.containers.change_agent(5000, mode="healthy")
    sandbox.edge.faults.switch_on("proxmox", "status", code=500)
    for _ in range(3):
        loop.minute()
    assert titles(sandbox) == ["Server 5000: agent offline"]


@pytest.mark.parametrize(
    ("kind", "options"),
    [
        ("status", {"code": 500}),
        ("status", {"code": 404}),
        ("status", {"code": 429, "retry_after": 3600}),
        ("hang", {"seconds": 5.0}),
        ("disconnect", {}),
        ("html", {}),
    ],
)
def test_notifications_never_hurt_a_repair(loop, sandbox, monkeypatch, caplog, kind, options):
    """Discord fails in every way: the repair is made, recorded, and its message is in the log."""
    monkeypatch.setattr(discord, "TIMEOUT", 0.3)
    sandbox.edge.faults.switch_on("discord", kind, **options)
    [record] = sandbox.edge.cloudflare.named(SRV)
    sandbox.edge.cloudflare.remove(record.id)
    with caplog.at_level(logging.WARNING, logger="zlh_dagster"):
        [run] = loop.minute()
    assert run.success
    assert statuses(loop.services) == ["succeeded"]
    assert len(writes(sandbox)) == 1
    if kind != "html":
        assert "Repaired server 5000" in caplog.text


def test_notifications_what_discord_did_not_take_is_still_an_open_incident(
    loop, sandbox, silent, monkeypatch
):
    monkeypatch.setattr(discord, "TIMEOUT", 0.3)
    sandbox.edge.faults.switch_on("discord", "status", code=404)
    loop.minute()
    assert set(loop.services.incidents.all_open()) == {"agent_offline:5000"}


def test_notifications_a_failing_repair_is_told_once_and_its_end_too(loop, sandbox, platform):
    sandbox.edge.faults.switch_on("velocity", "status", code=500, reads=False)
    backends = {b.name: b for b in sandbox.edge.velocity.backends()}
    sandbox.edge.velocity.restart()
    sandbox.edge.velocity.seed([b for n, b in backends.items() if n != "mc-5000"])
    loop.minute()
    loop.minute()
    assert titles(sandbox) == ["Repair of server 5000 failed"]
    sandbox.edge.faults.switch_off("velocity")
    loop.minute()
    assert len(titles(sandbox)) == 2
    assert "Repaired server 5000" in titles(sandbox)[-1]
    told = sandbox.edge.discord.inbox()[-1].payload["embeds"][0]["description"]
    assert "Over after" in told
    assert "repair failed: velocity reregister" in told


def test_notifications_a_thousand_new_findings_fit_into_one_message(loop, sandbox, platform):
    """Orphans and duplicates in any number: Discord's limits hold, and one message leaves."""
    for n in range(60):
        sandbox.edge.cloudflare.put(
            new_record(f"old-{n}.example.gg", "A", "203.0.113.10", ttl=60, proxied=False)
        )
    loop.minute()
    assert len(sandbox.edge.discord.inbox()) == 1
    publish_database(sandbox.edge, platform.engine)


@pytest.mark.parametrize("fault", [None, "write_ignored"])
def test_notifications_a_slow_discord_does_not_keep_the_lease(loop, sandbox, monkeypatch, fault):
    """When Discord is told, of a success or a failure, the lease was given back already."""
    sandbox.edge.cloudflare.remove(sandbox.edge.cloudflare.named(SRV)[0].id)
    if fault:
        sandbox.edge.faults.switch_on("cloudflare", fault)
    held = []
    real = loop.services.discord.post

    def post(message):
        held.append(lease.holder(loop.services.redis))
        return real(message)

    monkeypatch.setattr(loop.services.discord, "post", post)
    loop.minute()
    assert held == [None]


def test_notifications_of_many_findings_the_worst_is_in_the_message(loop, sandbox):
    """Fifteen at once, four kinds: what is cut off at the end is not the mass drift."""
    kinds = [("backup_missed", "warning"), ("orphans", "info"), ("agent_offline", "warning")]
    findings = [
        {"incident": f"{kind}:{n}", "severity": severity, "title": f"{kind} {n}", "text": "-"}
        for kind, severity in kinds
        for n in range(5)
    ]
    findings[-1] = {
        "incident": "mass_drift:cloudflare",
        "severity": "critical",
        "title": "cloudflare: 80 % of the zone drifts",
        "text": "zlh approve",
    }
    config = {"findings": findings, "requested_by": "controller", "live": True}
    assert loop.repair({"ops": {"level1_repair": {"config": config}}}).success
    [message] = sandbox.edge.discord.inbox()
    assert message.level == "critical"
    description = message.payload["embeds"][0]["description"]
    assert "80 % of the zone drifts" in description.splitlines()[0]
    assert "and 7 more" in description


def test_notifications_what_discord_did_not_take_is_told_when_it_does_again(
    loop, sandbox, silent, monkeypatch
):
    monkeypatch.setattr(discord, "LONGEST_WAIT", 0.0)
    sandbox.edge.faults.switch_on("discord", "status", code=429, retry_after=60)
    loop.minute()
    loop.minute()
    assert titles(sandbox) == []
    sandbox.edge.faults.switch_off("discord")
    loop.minute()
    assert titles(sandbox) == [], "not once a minute while Discord limits"
    pass_time(loop.services, minutes=6)
    loop.minute()
    loop.minute()
    assert titles(sandbox) == ["Still open: Server 5000: agent offline"]


def test_notifications_a_dead_webhook_is_told_in_another_channel(
    platform, instance, sandbox, silent
):
    url = platform.environment()["DISCORD_WEBHOOK_WARNING"]
    loop = Loop(platform.services(DISCORD_WEBHOOK_WARNING=f"{url}-no-more"), instance)
    loop.minute()
    loop.minute()
    [message] = sandbox.edge.discord.inbox()
    assert message.level == "critical"
    embed = message.payload["embeds"][0]
    assert embed["title"] == "Server 5000: agent offline"
    assert "the warning webhook is dead, set a new one" in embed["description"]
