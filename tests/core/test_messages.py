"""What the operator reads: within Discord's limits, harmless, the worst first."""

import re

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from zlh_dagster.cli.main import app
from zlh_dagster.core.incidents import Incident
from zlh_dagster.core.messages import (
    Links,
    Message,
    Sent,
    batch_message,
    formatted,
    payload,
    plain,
    run_failed,
    shorten,
)
from zlh_dagster.core.model import Action
from zlh_dagster.core.repair import (
    BREAKER_OPEN,
    OPERATOR,
    Finding,
    RepairOutcome,
    RepairRequest,
    Status,
)
from zlh_dagster.core.result import BatchResult
from zlh_dagster.core.rules import Severity
from zlh_dagster.sandbox.discord_limits import broken_limits

NOW = 1_900_000_000.0
FORMATTING = set("\\*_~`|>#[]()<@")


def outcome(vmid=5000, status=Status.SUCCEEDED, reason="", changes=("x A y (missing)",), **values):
    request = RepairRequest(vmid, Action.DNS_REPUBLISH)
    return RepairOutcome(request, status, reason, changes, **values)


def finding(
    severity=Severity.WARNING, title="a title", text="a text", incident="incident", **values
):
    return Finding(incident, severity, title, text, **values)


def told(*outcomes, findings=(), interrupted=(), due=(), over=()) -> Message | None:
    result = BatchResult(
        outcomes,
        tuple(findings),
        interrupted=tuple(interrupted),
        due=tuple(due),
        over=tuple(over),
        seconds=1.25,
    )
    return batch_message(result, run_id="0123456789abcdef", requested_by="controller", now=NOW)


# --- limits --------------------------------------------------------------------------------------


@settings(max_examples=60, deadline=None)
@given(
    severity=st.sampled_from(list(Severity)),
    title=st.text(min_size=1, max_size=700),
    lines=st.lists(st.text(max_size=3000), max_size=20),
    footer=st.text(max_size=4000),
)
def test_every_message_fits_discords_limits_and_mentions_nobody(severity, title, lines, footer):
    body = payload(Message(severity, title, tuple(lines), footer))
    assert broken_limits(body) == []
    assert body["allowed_mentions"] == {"parse": []}
    assert len(body["embeds"]) == 1


@pytest.mark.parametrize("character", ["x", "*", "@", "\\", "é", "💥", "\n", " "])
def test_huge_texts_are_shortened(character):
    huge = character * 100_000
    body = payload(Message(Severity.CRITICAL, "title " + huge, (huge, huge), huge))
    assert broken_limits(body) == []


def test_a_long_text_keeps_its_head_and_its_tail():
    """The tail of an error is where its cause stands."""
    lines = ("the head", "x" * 10_000, "the cause")
    description = payload(Message(Severity.CRITICAL, "t", lines))["embeds"][0]["description"]
    assert description.startswith("the head\n")
    assert description.endswith("\nthe cause")
    assert " … " in description
    assert len(description) == 4096


@settings(max_examples=100, deadline=None)
@given(text=st.text(max_size=60), limit=st.integers(min_value=4, max_value=60))
def test_shortening_never_exceeds_the_limit_and_leaves_short_texts_alone(text, limit):
    short = shorten(text, limit)
    assert len(short) <= limit
    if len(text) <= limit:
        assert short == text
    else:
        head, _, tail = short.partition(" … ")
        assert text.startswith(head)
        assert text.endswith(tail)


# --- harmless ------------------------------------------------------------------------------------


@settings(max_examples=150, deadline=None)
@given(text=st.text(st.sampled_from("\\*_~`|>#[]()<@ab: /\n\t"), max_size=60))
def test_no_formatting_character_is_left_without_its_escape(text):
    assert set(re.sub(r"\\.", "", plain(text))) & FORMATTING == set()


@settings(max_examples=100, deadline=None)
@given(text=st.text(st.sampled_from("\\*_~`|>#[]()<@ab"), max_size=60))
def test_what_is_read_is_what_was_written(text):
    """Discord drops one backslash before each escaped character."""
    assert re.sub(r"\\(.)", r"\1", plain(text)) == " ".join(text.split())


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("x_y: zlh resume --vmid 5000 ends it", r"x\_y: `zlh resume --vmid 5000` ends it"),
        ("zlh resume ends it", "`zlh resume` ends it"),
        ("zlh resume --surface velocity ends it", "`zlh resume --surface velocity` ends it"),
        (
            "To close it: zlh breakers reset server:5000",
            "To close it: `zlh breakers reset server:5000`",
        ),
        ("zlh breakers reset velocity.", "`zlh breakers reset velocity`."),
        ("zlh breakers reset --servers; then", "`zlh breakers reset --servers`; then"),
        ("once: zlh approve mass_drift:cloudflare", "once: `zlh approve mass_drift:cloudflare`"),
        ("zlh pause --vmid 5000 keeps it", "`zlh pause --vmid 5000` keeps it"),
        ("`zlh status` and `zlh doctor` say more", "`zlh status` and `zlh doctor` say more"),
        ("`zlh db upgrade` creates it", "`zlh db upgrade` creates it"),
        ("and 3 more, see zlh events", "and 3 more, see `zlh events`"),
        ("see zlh plan\nand a_b", r"see `zlh plan` and a\_b"),
        ("zlh revert af2a91c0 does", "`zlh revert af2a91c0` does"),
        ("zlh up --no-web", "`zlh up --no-web`"),
        ("the database zlh was restarted", "the database zlh was restarted"),
        ("a zlh", "a zlh"),
    ],
)
def test_commands_stand_as_code_to_be_copied(text, shown):
    [embed] = payload(Message(Severity.INFO, "a title", (text,)))["embeds"]
    assert embed["description"] == shown


def test_every_command_is_known_to_the_messages():
    names = [c.name or c.callback.__name__ for c in app.registered_commands]
    for name in [*names, *(group.name for group in app.registered_groups)]:
        assert formatted(f"see zlh {name} for it") == f"see `zlh {name}` for it"


@settings(max_examples=200, deadline=None)
@given(
    text=st.lists(
        st.sampled_from(
            ["zlh resume", "zlh", " ", "`", "--vmid 5", "\\", "*", "@here", "a_b:c", "<@1>", "\n"]
        ),
        max_size=12,
    ).map("".join)
)
def test_only_commands_stand_as_code(text):
    shown = formatted(text)
    unescaped = re.sub(r"\\.", "", shown)
    codes = re.findall(r"`([^`]*)`", unescaped)
    assert all(re.fullmatch(r"zlh [a-z]+[\w: -]*", code) for code in codes)
    assert set(re.sub(r"`[^`]*`", "", unescaped)) & FORMATTING == set()


@pytest.mark.parametrize(
    "hostname",
    [
        "@everyone",
        "@here",
        "<@123456>",
        "<@&1>",
        "<#1>",
        "[x](https://evil.example)",
        "```",
        "||x||",
        "https://evil.example",
        "# big",
        "> quote",
        "<t:0>",
        "<:a:1>",
        "**x**",
        "a\n@everyone",
    ],
)
def test_what_customers_choose_neither_mentions_nor_formats(hostname):
    message = told(
        outcome(reason=f"hostname: {hostname!r}", status=Status.REFUSED, changes=()),
        findings=[finding(title=f"Server {hostname}", text=hostname)],
    )
    body = payload(message)
    texts = body["embeds"][0]["title"] + body["embeds"][0]["description"]
    bare = re.sub(r"\\.", "", texts)
    assert set(bare) & FORMATTING == set()
    assert "://" not in bare
    assert body["allowed_mentions"] == {"parse": []}


def test_a_customers_line_break_makes_no_new_line():
    """A forged second line could pretend to be the controller's own."""
    body = payload(Message(Severity.INFO, "t", ("one\nServer 5000 repaired\r\u2028x",)))
    assert "\n" not in body["embeds"][0]["description"]
    assert "\u2028" not in body["embeds"][0]["description"]


# --- what a run has to tell ----------------------------------------------------------------------


def test_a_run_that_did_nothing_tells_nothing():
    assert told() is None
    assert told(outcome(status=None, reason="nothing to do", changes=())) is None
    assert told(outcome(status=Status.REFUSED, is_news=False)) is None


@pytest.mark.parametrize(
    ("outcomes", "findings", "interrupted", "severity"),
    [
        ([Status.SUCCEEDED], [], [], Severity.REPAIR),
        ([Status.DRY_RUN], [], [], Severity.REPAIR),
        ([Status.REFUSED], [], [], Severity.WARNING),
        ([Status.FAILED], [], [], Severity.CRITICAL),
        ([], [Severity.INFO], [], Severity.INFO),
        ([], [Severity.INFO, Severity.WARNING], [], Severity.WARNING),
        ([], [], ["event"], Severity.WARNING),
        ([Status.SUCCEEDED, Status.REFUSED], [], [], Severity.WARNING),
        ([Status.SUCCEEDED, Status.FAILED], [Severity.INFO], [], Severity.CRITICAL),
        ([Status.SUCCEEDED], [Severity.CRITICAL], [], Severity.CRITICAL),
        ([Status.SUCCEEDED], [Severity.INFO], [], Severity.REPAIR),
    ],
)
def test_the_channel_is_that_of_the_worst_news(outcomes, findings, interrupted, severity):
    message = told(
        *(outcome(5000 + n, status) for n, status in enumerate(outcomes)),
        findings=[finding(s) for s in findings],
        interrupted=interrupted,
    )
    assert message.severity is severity


def test_failures_come_before_refusals_before_repairs():
    message = told(
        outcome(1, Status.DRY_RUN),
        outcome(2, Status.SUCCEEDED),
        outcome(3, Status.REFUSED, "because", ()),
        outcome(4, Status.FAILED, "it broke"),
        findings=[finding(title="found", text="details")],
    )
    assert [line.split()[0] for line in message.lines] == ["4", "3", "2", "1", "found:"]
    assert message.title == (
        "Repair of server 4 failed; Repair of server 3 refused; found; Repaired server 2;"
        " Dry run: would repair server 1"
    )


def test_what_a_breaker_holds_is_told_as_that_before_what_was_refused():
    held = outcome(1, Status.REFUSED, "the breaker is open", (), code=BREAKER_OPEN)
    gone = outcome(2, Status.REFUSED, "the server is gone", ())
    message = told(gone, held)
    assert message.severity is Severity.CRITICAL
    assert message.title == "Breaker open: server 1 not repaired; Repair of server 2 refused"
    assert sorted(message.topics) == ["breaker", "refused"]
    assert told(*[held] * 3).title == "3 repairs held by open breakers"


def test_who_asked_by_hand_is_not_called_for_what_a_breaker_holds():
    held = outcome(1, Status.REFUSED, "the breaker is open", (), code=BREAKER_OPEN)
    broke = outcome(2, Status.FAILED, "HTTP 500")
    for outcomes, severity in (((held,), Severity.WARNING), ((held, broke), Severity.CRITICAL)):
        message = batch_message(
            BatchResult(outcomes), run_id="0123456789", requested_by=OPERATOR, now=NOW
        )
        assert message.severity is severity


def test_a_title_begins_with_the_worst():
    """The beginning is what a phone shows."""
    drift = finding(Severity.CRITICAL, "cloudflare: 8 of 10 servers drift, nothing was repaired")
    many = [outcome(5000 + n) for n in range(8)]
    assert told(*many, findings=[drift]).title == f"{drift.title}; 8 servers repaired"
    note = finding(Severity.INFO, "a record has no server")
    assert told(outcome(), findings=[note]).title == f"Repaired server 5000; {note.title}"
    late = incident(5001, severity=Severity.CRITICAL)
    assert told(outcome(), due=[late]).title == f"Still open: {late.title}; Repaired server 5000"


def test_what_the_repair_itself_has_ended_is_not_told_again_as_over():
    done = outcome()
    dry = Incident(done.request.dry_run_incident, Severity.REPAIR, "Server 5000: would repair")
    message = told(done, over=[dry])
    assert message.title == "Repaired server 5000"
    assert told(done, over=[dry, incident(5001)]).title == (
        "Repaired server 5000; Over: Server 5001: agent offline"
    )


def test_a_repair_names_the_mass_drift_that_was_approved():
    def title(surface, *outcomes):
        result = BatchResult(tuple(outcomes), approved=(f"mass_drift:{surface}",))
        return batch_message(result, run_id="r", requested_by="controller", now=NOW).title

    many = [outcome(5000 + n) for n in range(8)]
    assert title("cloudflare", *many) == "8 servers repaired, the approved mass drift of cloudflare"
    assert title("velocity", *many) == "8 servers repaired", "nothing was repaired there"


def test_each_outcome_says_what_and_why():
    message = told(
        outcome(1, Status.FAILED, "HTTP 500"),
        outcome(2, Status.REFUSED, "locked for maintenance", ()),
        outcome(3, Status.SUCCEEDED),
        outcome(4, Status.DRY_RUN),
    )
    assert message.lines == (
        "1 dns_republish: tried to put back x A y (missing) - HTTP 500",
        "2 dns_republish: locked for maintenance",
        "3 dns_republish: put back x A y (missing)",
        "4 dns_republish: would put back x A y (missing)",
    )
    assert message.footer == "run 01234567 · controller · 1.2 s"


@pytest.mark.parametrize(
    ("action", "change", "lines"),
    [
        (
            Action.FAIL_STUCK_PROVISIONING,
            "create operation op (queued, job gone) as failed",
            ("tried to close", "closed", "would close"),
        ),
        (
            Action.CLEAR_STALE_OPERATION_LOCK,
            "restart operation op (running, job gone) as stale",
            ("tried to close", "closed", "would close"),
        ),
        (
            Action.STOP_SUSPENDED_WORKLOAD,
            "server 5000 (was running)",
            ("tried to stop", "stopped", "would stop"),
        ),
        (
            Action.REVERT,
            "cloudflare A mc-5000 to what it was before the repair",
            ("tried to set back", "set back", "would set back"),
        ),
        (
            Action.DNS_REPUBLISH,
            "cloudflare A mc-5000 (was wrong)",
            ("tried to put back", "put back", "would put back"),
        ),
    ],
)
def test_what_was_done_has_the_word_for_it(action, change, lines):
    """An operation is closed and a server stopped: nothing is put back there."""
    request = RepairRequest(5000, action)
    message = told(
        *(
            RepairOutcome(request, status, "", (change,))
            for status in (Status.FAILED, Status.SUCCEEDED, Status.DRY_RUN)
        )
    )
    paused = "; paused, zlh resume --vmid 5000 ends it" if action is Action.REVERT else ""
    ends = ("", paused, "")
    assert message.lines == tuple(
        f"5000 {action.value}: {done} {change}{end}" for done, end in zip(lines, ends, strict=True)
    )


def test_a_thousand_repairs_are_one_message_that_counts_them():
    message = told(*(outcome(5000 + n) for n in range(1000)))
    assert message.title == "1000 servers repaired"
    [line] = message.lines
    assert line.startswith("dns_republish done on 1000 servers: 5000, 5001, 5002, ")
    assert line.endswith("5011 and 988 more, see zlh events")
    assert broken_limits(payload(message)) == []


def test_many_repairs_are_told_by_what_came_of_them():
    """More than five at once become one summary, the reason of a failure said once."""
    message = told(
        *(outcome(n) for n in (1, 2, 3, 4)),
        *(outcome(n, Status.FAILED, "HTTP 500") for n in (5, 6)),
    )
    assert message.lines == (
        "dns_republish failed on 2 servers: 5, 6 - HTTP 500",
        "dns_republish done on 4 servers: 1, 2, 3, 4",
    )


def test_many_findings_are_counted_too():
    several = [finding(title=f"f{n}", incident=f"kind_{n % 10}:{n}") for n in range(30)]
    several[7] = finding(Severity.CRITICAL, "the worst", incident="kind_7:7")
    message = told(findings=several)
    assert message.title == "the worst; 29 more findings"
    assert told(findings=several[6:8]).title == "the worst; 1 more finding"
    assert len(message.lines) == 9
    assert message.lines[-1] == "and 22 more, see zlh plan"


@pytest.mark.parametrize(("count", "lines"), [(2, 2), (5, 5), (6, 1), (200, 1)])
def test_more_than_five_findings_of_one_kind_are_one_line(count, lines):
    several = [
        finding(title=f"Server {5000 + n}", incident=f"agent_offline:{5000 + n}", vmid=5000 + n)
        for n in range(count)
    ]
    message = told(findings=several)
    assert len(message.lines) == lines
    if lines == 1:
        assert message.lines[0].startswith(f"{count} times agent offline: 5000, 5001, ")


def test_a_lone_finding_is_told_in_full():
    message = told(findings=[finding(title="mass drift", text="y" * 1000)])
    assert message.title == "mass drift"
    assert message.lines == ("y" * 1000,)


def test_an_interrupted_run_is_told():
    message = told(interrupted=["a", "b"])
    assert message.title == "An earlier repair was interrupted"
    assert "2 repair(s)" in message.lines[0]


def test_a_failed_run_is_critical_and_never_without_a_text():
    message = run_failed(job="level1_repair", run_id="0123456789", error="")
    assert message.severity is Severity.CRITICAL
    assert message.title == "level1 repair failed"
    assert message.lines[0] == "The run ended without an error message."
    assert "01234567" in message.footer
    assert run_failed(job="j", run_id="r", error="boom").lines[0] == "boom"


def test_the_log_gets_the_whole_message():
    message = Message(Severity.INFO, "t", ("a", "x" * 10_000), "f")
    assert message.text() == "t\na\n" + "x" * 10_000 + "\nf"
    assert Message(Severity.INFO, "t", ()).text() == "t"


# --- reminders and ends --------------------------------------------------------------------------


def incident(n=5000, hours=6.0, severity=Severity.WARNING):
    return Incident(
        f"agent_offline:{n}",
        severity,
        f"Server {n}: agent offline",
        "It is silent.",
        opened_at=NOW - 3600 * hours,
    )


def test_a_reminder_says_for_how_long_and_what():
    message = told(due=[incident(hours=6)])
    assert message.title == "Still open: Server 5000: agent offline"
    assert message.lines == ("Still open after 6 h: Server 5000: agent offline. It is silent.",)
    assert (message.severity, message.good) == (Severity.WARNING, False)


def test_an_end_says_how_long_it_took_and_is_good():
    message = told(over=[incident(hours=0.2, severity=Severity.CRITICAL)])
    assert message.title == "Over: Server 5000: agent offline"
    assert message.lines == ("Over after 12 min: Server 5000: agent offline",)
    assert message.severity is Severity.CRITICAL, "in the channel where it was told"
    assert message.good


def test_an_end_beside_other_news_is_not_called_good():
    assert not told(over=[incident()], findings=[finding()]).good
    assert not told(over=[incident()], due=[incident(5001)]).good
    assert not told(outcome(), over=[incident()]).good


def test_an_end_does_not_raise_other_news_to_its_own_channel():
    ended = [incident(severity=Severity.CRITICAL)]
    assert told(over=ended).severity is Severity.CRITICAL
    assert told(over=ended, findings=[finding(Severity.INFO)]).severity is Severity.INFO
    assert told(outcome(), over=ended).severity is Severity.REPAIR


def test_a_lone_finding_is_named_beside_other_news():
    """Whoever reads of a repair and then of advice must not take the one's server for the other."""
    advice = finding(title="Server 5001: agent offline", text="Restarting it is yours to decide.")
    assert told(findings=[advice]).lines == (advice.text,)
    assert told(outcome(), findings=[advice]).lines[-1] == f"{advice.title}: {advice.text}"
    assert told(over=[incident()], findings=[advice]).lines[0].startswith(advice.title)


@pytest.mark.parametrize(
    ("status", "title"),
    [
        (Status.REFUSED, "Revert of server 5000 refused"),
        (Status.FAILED, "Revert of server 5000 failed"),
        (Status.DRY_RUN, "Dry run: would revert server 5000"),
    ],
)
def test_a_revert_is_called_one_whatever_comes_of_it(status, title):
    assert told(RepairOutcome(RepairRequest(5000, Action.REVERT), status, "x")).title == title


def test_a_revert_is_called_one_and_says_that_the_server_is_paused():
    done = RepairOutcome(RepairRequest(5000, Action.REVERT), Status.SUCCEEDED, "", ("x",))
    assert told(done).title == "Reverted and paused server 5000"
    assert told(done, outcome(5001)).title == (
        "Repaired server 5001; Reverted and paused server 5000"
    )


@pytest.mark.parametrize("count", [2, 8, 9, 200])
def test_many_ends_and_reminders_are_counted(count):
    many = [incident(5000 + n) for n in range(count)]
    one, rest = "Server 5000: agent offline", count - 1
    for message, title in (
        (told(over=many), f"Over: {one}; {rest} more over"),
        (told(due=many), f"Still open: {one}; {rest} more still open"),
    ):
        assert message.title == title
        assert len(message.lines) == min(count, 9)
        assert broken_limits(payload(message)) == []


def sent(*names):
    message = Message(Severity.WARNING, "3 findings", ("a", "b"), "run 1")
    return Sent(message, dict.fromkeys(names, ""))


def test_a_message_stands_as_it_was_sent_until_something_of_it_is_over():
    assert sent("a", "b").current() == sent("a", "b").message
    assert not sent("a", "b").all_over


def test_what_is_over_is_marked_and_the_last_one_ends_the_message():
    part = sent("a", "b").with_over({"a": "Over after 1 h: a", "unknown": "x"})
    assert part.current().lines == ("a", "b", "Over after 1 h: a")
    assert (part.current().title, part.current().good) == ("3 findings", False)
    whole = part.with_over({"b": "Over after 2 h: b"})
    assert whole.all_over
    assert whole.current().title == "Over: 3 findings"
    assert whole.current().good
    assert whole.current().lines[-2:] == ("Over after 1 h: a", "Over after 2 h: b")


def test_a_message_of_many_incidents_stays_within_the_limits_when_they_end():
    many = sent(*(f"n{n}" for n in range(500)))
    marked = many.with_over({f"n{n}": "Over after 1 h: " + "x" * 200 for n in range(500)})
    assert broken_limits(payload(marked.current())) == []
    assert Sent.from_json(marked.to_json()) == marked


LINKS = Links(web="https://dagster.example.gg", runbook="https://docs.example.gg/operations.md")


def test_the_title_leads_to_the_run_and_a_line_to_the_runbook():
    """The worst first, each heading once, three at the most."""
    found = tuple(
        Finding(f"{kind}:{vmid}", severity, f"Server {vmid}", "why")
        for vmid, (kind, severity) in enumerate(
            [
                ("orphan", Severity.INFO),
                ("agent_offline", Severity.WARNING),
                ("agent_offline", Severity.WARNING),
                ("mass_drift", Severity.CRITICAL),
            ]
        )
    )
    refused = outcome(status=Status.REFUSED, reason="paused")
    result = BatchResult(outcomes=(refused,), findings=found)
    message = batch_message(result, run_id="a-run", requested_by="controller", now=NOW)
    [embed] = payload(message, LINKS)["embeds"]
    assert embed["url"] == "https://dagster.example.gg/runs/a-run"
    assert embed["description"].splitlines()[-1] == (
        "What to do: [refused](https://docs.example.gg/operations.md#refused), "
        "[mass_drift](https://docs.example.gg/operations.md#mass_drift), "
        "[agent_offline](https://docs.example.gg/operations.md#agent_offline)"
    )
    [bare] = payload(message)["embeds"]
    assert "url" not in bare
    assert "What to do" not in bare["description"]


def test_a_repair_that_went_well_needs_no_runbook():
    result = BatchResult(outcomes=(outcome(),))
    message = batch_message(result, run_id="a-run", requested_by="controller", now=NOW)
    [embed] = payload(message, LINKS)["embeds"]
    assert "What to do" not in embed["description"]


def test_links_are_kept_when_a_long_message_is_cut_and_when_it_is_edited():
    message = Message(
        Severity.CRITICAL, "t", ("x" * 9000,), "f", run_id="a-run", topics=("mass_drift",)
    )
    body = payload(message, LINKS)
    assert broken_limits(body) == []
    assert body["embeds"][0]["description"].endswith("#mass_drift)")
    again = Sent.from_json(Sent(message, {"mass_drift:x": ""}).to_json())
    assert (again.message.run_id, again.message.topics) == ("a-run", ("mass_drift",))
