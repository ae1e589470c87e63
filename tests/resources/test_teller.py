"""A run's one message, and the messages of incidents that are over brought up to date."""

import time
from dataclasses import replace

import pytest

from tests.harness import titles
from zlh_dagster.core.incidents import REMINDERS, RETELL_SECONDS, Incident
from zlh_dagster.core.model import Action
from zlh_dagster.core.repair import Finding, RepairOutcome, RepairRequest, Status
from zlh_dagster.core.result import BatchResult
from zlh_dagster.core.rules import Severity
from zlh_dagster.resources import teller
from zlh_dagster.resources.teller import tell

REQUEST = RepairRequest(5000, Action.DNS_REPUBLISH)


def finding(vmid=5000, severity=Severity.WARNING):
    return Finding(
        f"agent_offline:{vmid}", severity, f"Server {vmid}: agent offline", "It is silent."
    )


@pytest.fixture
def services(platform):
    return platform.services()


@pytest.fixture
def say(services):
    def say(**values):
        result = BatchResult(**values)
        for one in result.findings:
            services.incidents.open(Incident.of(one, now=time.time()))
        return tell(services, result, run_id="0123456789", requested_by="controller")

    return say


def shown(sandbox):
    """Title and text of each message as it stands now."""
    embeds = [message.current()["embeds"][0] for message in sandbox.edge.discord.inbox()]
    return [(embed["title"], embed["description"]) for embed in embeds]


def now_open(services, *names):
    known = services.incidents.all_open()
    return tuple(known[name] for name in names)


def test_a_run_that_did_nothing_says_nothing(say, sandbox):
    assert not say()
    assert not say(outcomes=(RepairOutcome(REQUEST, None, "nothing to do"),))
    assert titles(sandbox) == []


def test_what_is_told_is_kept_with_the_message_that_told_it(say, services, sandbox):
    assert say(findings=(finding(5000), finding(5001)))
    [first, second] = services.incidents.all_open().values()
    assert first.message == second.message
    sent = services.messages.get(first.message)
    assert sent.incidents == {"agent_offline:5000": "", "agent_offline:5001": ""}
    assert len(shown(sandbox)) == 1


def test_what_is_over_is_told_and_marked_where_it_was_told(say, services, sandbox):
    say(findings=(finding(5000), finding(5001)))
    say(over=now_open(services, "agent_offline:5000"))
    [(title, text), (news, _)] = shown(sandbox)
    assert title == "Server 5000: agent offline; 1 more finding"
    assert "Over after 0 s: Server 5000: agent offline" in text
    assert news == "Over: Server 5000: agent offline"
    assert set(services.incidents.all_open()) == {"agent_offline:5001"}


def test_a_message_of_which_all_is_over_says_so_and_is_forgotten(say, services, sandbox):
    say(findings=(finding(5000), finding(5001)))
    [message] = {incident.message for incident in services.incidents.all_open().values()}
    say(over=now_open(services, "agent_offline:5000"))
    say(over=now_open(services, "agent_offline:5001"))
    (title, text), *_ = shown(sandbox)
    assert title == "Over: Server 5000: agent offline; 1 more finding"
    assert "Server 5000" in text
    assert "Over after 0 s: Server 5001: agent offline" in text
    assert services.messages.get(message) is None
    assert services.incidents.all_open() == {}


def test_a_reminder_is_a_message_and_is_counted(say, services, sandbox):
    old = Incident(
        "agent_offline:5000",
        Severity.WARNING,
        "Server 5000: agent offline",
        "It is silent.",
        opened_at=time.time() - REMINDERS[1],
    )
    services.incidents.open(old)
    say(due=(old,))
    [(title, text)] = shown(sandbox)
    assert title == "Still open: Server 5000: agent offline"
    assert text.startswith("Still open after 6 h: Server 5000: agent offline. It is silent.")
    [kept] = services.incidents.all_open().values()
    assert kept.reminded == 2, "one reminder stands for both that were due"
    assert not kept.reminder_due(time.time())


def test_a_repair_opens_no_incident_and_keeps_no_message(say, services, sandbox):
    outcome = RepairOutcome(REQUEST, Status.SUCCEEDED, "", ("cloudflare A x (missing)",))
    assert say(outcomes=(outcome,))
    assert titles(sandbox) == ["Repaired server 5000"]
    assert services.incidents.all_open() == {}


@pytest.mark.parametrize("code", [404, 500])
def test_discord_that_fails_costs_the_message_and_not_the_bookkeeping(
    say, services, sandbox, code, caplog
):
    sandbox.edge.faults.switch_on("discord", "status", code=code)
    assert say(findings=(finding(),))
    assert shown(sandbox) == []
    assert "agent offline" in caplog.text, "what Discord did not take is in the log"
    [incident] = services.incidents.all_open().values()
    assert incident.message is None
    say(over=(incident,))
    assert set(services.incidents.all_open()) == {incident.name}, "that it is over was not told"


def test_what_is_over_stays_open_until_discord_takes_it(say, services, sandbox):
    say(findings=(finding(),))
    incident = now_open(services, "agent_offline:5000")
    sandbox.edge.faults.switch_on("discord", "status", code=500)
    say(over=incident)
    assert set(services.incidents.all_open()) == {"agent_offline:5000"}
    sandbox.edge.faults.clear()
    say(over=incident)
    assert services.incidents.all_open() == {}
    assert [title for title, _ in shown(sandbox)] == ["Over: Server 5000: agent offline"] * 2


def test_what_has_no_channel_keeps_nothing_else_from_being_told(platform, sandbox):
    services = platform.services(DISCORD_WEBHOOK_CRITICAL=None)
    worse = replace(finding(5001), severity=Severity.CRITICAL)
    result = BatchResult(findings=(finding(), worse))
    assert tell(services, result, run_id="0123456789", requested_by="controller")
    [message] = sandbox.edge.discord.inbox()
    assert message.level == "warning"


def test_an_incident_whose_run_died_before_telling_is_told_again(services):
    """It is opened as untold; a message that was sent ends that, or a level without a channel."""
    opened = replace(Incident.of(finding(), now=1.0), untold_at=1.0)
    services.incidents.open(opened)
    assert opened.reminder_due(1.0 + RETELL_SECONDS)
    services.incidents.told([opened.name], "17")
    [known] = services.incidents.all_open().values()
    assert (known.message, known.untold_at) == ("17", None)


def test_redis_gone_costs_the_edit_and_never_the_run(platform, sandbox, caplog):
    services = platform.services(ZLH_REDIS_URL="unix:///nonexistent/redis.sock")
    result = BatchResult(findings=(finding(),))
    assert tell(services, result, run_id="0123456789", requested_by="controller")
    assert titles(sandbox) == ["Server 5000: agent offline"]
    assert "Redis cannot be reached" in caplog.text


def test_many_messages_are_not_all_edited_after_one_run(say, services, sandbox, monkeypatch):
    """Discord takes 30 calls a minute; what is over stands in the new message, too."""
    monkeypatch.setattr(teller, "_EDITS", 2)
    for vmid in range(5000, 5004):
        say(findings=(finding(vmid),))
    names = [f"agent_offline:{vmid}" for vmid in range(5000, 5004)]
    say(over=now_open(services, *names))
    edited = [title for title, _ in shown(sandbox)[:4] if title.startswith("Over: ")]
    assert len(edited) == 2
    assert shown(sandbox)[4][0] == "Over: Server 5000: agent offline; 3 more over"
    assert services.incidents.all_open() == {}


@pytest.mark.parametrize("kind", ["outcome", "change", "group", "finding", "findings", "due"])
def test_a_secret_across_the_end_of_a_line_leaves_no_part(kind, services, sandbox):
    """Long reasons are cut: what is secret in them is masked before."""
    [secret] = {v for v in services.settings.secrets() if v == "sandbox-cloudflare-token"}
    for at in (180, 186, 192) if kind != "finding" else (980, 986, 992):
        text = "x" * at + secret + "y" * 2000
        failed = RepairOutcome(REQUEST, Status.FAILED, text)
        result = {
            "outcome": lambda t=text, f=failed: BatchResult(outcomes=(f,)),
            "change": lambda t=text, f=failed: BatchResult(outcomes=(replace(f, changes=(t,)),)),
            "group": lambda t=text, f=failed: BatchResult(outcomes=(f,) * 9),
            "finding": lambda t=text, f=failed: BatchResult(findings=(replace(finding(), text=t),)),
            "findings": lambda t=text: BatchResult(
                findings=(replace(finding(), text=t), finding(1))
            ),
            "due": lambda t=text: BatchResult(
                due=(replace(Incident.of(finding(), now=0), text=t),)
            ),
        }[kind]()
        tell(services, result, run_id="0123456789", requested_by="controller")
    told = str([message.payload for message in sandbox.edge.discord.inbox()]).replace("\\", "")
    assert "x***" in told
    assert "xsand" not in told
    assert "tokeny" not in told
