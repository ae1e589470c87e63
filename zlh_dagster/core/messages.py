"""What the operator reads on Discord, as pure values.

Limits are Discord's: title 256, description 4,096, field name 256 and value 1,024 characters, 25
fields, footer 2,048, all embeds of a message together 6,000. What is longer keeps its head and its
tail. Text that customers choose cannot mention anybody and cannot format anything.
"""

import re
from collections.abc import Collection, Mapping
from dataclasses import dataclass, replace
from typing import Any

from zlh_dagster.core import times
from zlh_dagster.core.breaker import reset_command
from zlh_dagster.core.holds import resume_command, server_scope
from zlh_dagster.core.incidents import Incident
from zlh_dagster.core.model import Action
from zlh_dagster.core.repair import NOT_PAUSED, OPERATOR, Finding, RepairOutcome, Status
from zlh_dagster.core.result import BatchResult
from zlh_dagster.core.rules import Severity
from zlh_dagster.core.titles import ORDER, title_of

_TITLE, _DESCRIPTION, _FIELD_NAME, _FIELD, _FOOTER = 256, 4096, 256, 1024, 2048
_TOTAL = 6000
_LINES = 8
"""Lines that one message lists; the rest is counted."""

_TOPICS = 3
"""Headings of the runbook to which one message leads."""

_SINGLY = 5
"""Repairs that are told one by one; more become a summary."""

_NAMED = 12
"""Servers that a line of a summary names."""

_COLOURS = {
    Severity.CRITICAL: 0xD83C3E,
    Severity.WARNING: 0xE3A008,
    Severity.REPAIR: 0x2E9E5B,
    Severity.INFO: 0x5B7083,
}
_GOOD = _COLOURS[Severity.REPAIR]
_MARKDOWN = re.compile(r"([\\*_~`|>#\[\]()<@]|:(?=//))")
_COMMAND_OR_MARKDOWN = re.compile(
    r"`?\b(?P<command>zlh (?:up|serve|status|health|doctor|plan|repair|revert|approve|pause|resume"
    r"|breakers|events|history|drill|db)\b(?: (?:(?:reset|--surface) \w+(?::\w+)?"
    r"|reset|upgrade|--[a-z-]+|\w*\d\w*|[a-z]+_[a-z_]+(?::\w+)?))*)`?|" + _MARKDOWN.pattern
)
"""A command with its arguments, which are told from the words that follow it by their shape."""

_DOES = {
    Action.CLEAR_STALE_OPERATION_LOCK: ("close", "closed"),
    Action.FAIL_STUCK_PROVISIONING: ("close", "closed"),
    Action.STOP_SUSPENDED_WORKLOAD: ("stop", "stopped"),
    Action.REVERT: ("set back", "set back"),
}
"""What an action does and did; every other one puts records back."""

_WORDS: dict[Status | None, str] = {
    Status.SUCCEEDED: "done",
    Status.DRY_RUN: "would be done",
    Status.FAILED: "failed",
    Status.REFUSED: "refused",
}
_TOLD = (Status.FAILED, Status.REFUSED, Status.SUCCEEDED, Status.DRY_RUN)
"""Outcomes that are told, the worst first."""

_WITH_REASON = (Status.FAILED, Status.REFUSED)


@dataclass(frozen=True, slots=True)
class Message:
    """One message for one channel.

    Attributes:
        severity: The channel.
        title: A few words.
        lines: What happened.
        footer: Which run, who asked for it.
        good: Whether what it tells is over.
        run_id: The run that it is about, or empty.
        topics: Headings of the runbook that say what to do.
    """

    severity: Severity
    title: str
    lines: tuple[str, ...]
    footer: str = ""
    good: bool = False
    run_id: str = ""
    topics: tuple[str, ...] = ()

    def text(self) -> str:
        """The message as plain text, for the log."""
        return "\n".join((self.title, *self.lines, self.footer)).strip()


@dataclass(frozen=True, slots=True)
class Links:
    """Where a message's links lead: base URLs of the web UI and of the runbook, or ``None``."""

    web: str | None = None
    runbook: str | None = None


@dataclass(frozen=True, slots=True)
class Sent:
    """A message that stands in Discord, and what of it is over, by incident (else ``""``)."""

    message: Message
    incidents: dict[str, str]

    @property
    def all_over(self) -> bool:
        return all(self.incidents.values())

    def with_over(self, marks: Mapping[str, str]) -> "Sent":
        """After some of its incidents are over."""
        known = {name: marks.get(name, mark) for name, mark in self.incidents.items()}
        return Sent(self.message, known)

    def current(self) -> Message:
        """The message as it should stand now."""
        marks = tuple(mark for mark in self.incidents.values() if mark)
        if not marks:
            return self.message
        title = f"Over: {self.message.title}" if self.all_over else self.message.title
        lines = (*self.message.lines, *_capped(list(marks), "zlh status"))
        return replace(self.message, title=title, lines=lines, good=self.all_over)

    def to_json(self) -> dict[str, Any]:
        return {
            "severity": self.message.severity.value,
            "title": self.message.title,
            "lines": list(self.message.lines),
            "footer": self.message.footer,
            "run_id": self.message.run_id,
            "topics": list(self.message.topics),
            "incidents": self.incidents,
        }

    @staticmethod
    def from_json(value: Mapping[str, Any]) -> "Sent | None":
        """Reads a message, or ``None`` when it cannot be read."""
        try:
            message = Message(
                Severity(value["severity"]),
                str(value["title"]),
                tuple(str(line) for line in value["lines"]),
                str(value["footer"]),
                run_id=str(value.get("run_id", "")),
                topics=tuple(str(topic) for topic in value.get("topics", ())),
            )
            incidents = {str(k): str(v) for k, v in value["incidents"].items()}
        except (KeyError, TypeError, ValueError, AttributeError):
            return None
        return Sent(message, incidents)


def what_was_done(outcome: RepairOutcome) -> str:
    """``put back cloudflare A mc-5000.example.gg (was missing)``; empty without a change."""
    does, did = _DOES.get(outcome.action, ("put back", "put back"))
    verbs: dict[Status | None, str] = {
        Status.SUCCEEDED: did,
        Status.DRY_RUN: f"would {does}",
        # Not proven: the write itself may have worked.
        Status.FAILED: f"tried to {does}",
    }
    changes = "; ".join(outcome.changes)
    if outcome.action is Action.REVERT:
        changes = changes.replace(" (was wrong)", " to what it was before the repair")
        if outcome.status is Status.SUCCEEDED and outcome.code != NOT_PAUSED:
            changes += f"; paused, {resume_command(server_scope(outcome.vmid))} ends it"
    return changes and f"{verbs.get(outcome.status, '')} {changes}".strip()


def shorten(text: str, limit: int) -> str:
    """``text`` in at most ``limit`` characters, head and tail kept."""
    if len(text) <= limit:
        return text
    head = (limit - 3) * 2 // 3
    return f"{text[:head]} … {text[len(text) - (limit - 3 - head) :]}"


def plain(text: str) -> str:
    """``text`` with Discord's formatting and mentions made harmless, on one line."""
    return _MARKDOWN.sub(r"\\\1", " ".join(text.split()))


def formatted(text: str) -> str:
    """``text`` as :func:`plain` has it, but commands of ours as code, to be seen and copied."""
    return _COMMAND_OR_MARKDOWN.sub(
        lambda found: f"`{found['command']}`" if found["command"] else f"\\{found[0]}",
        " ".join(text.split()),
    )


def payload(message: Message, links: Links = Links()) -> dict[str, Any]:
    """The JSON that Discord's webhook takes; the title leads to the run, a line to the runbook."""
    title = shorten(plain(message.title), _TITLE)
    footer = shorten(message.footer, min(_FOOTER, 200))
    what_to_do = _runbook(message.topics, links.runbook)
    room = min(_DESCRIPTION, _TOTAL - len(title) - len(footer)) - len(what_to_do)
    description = shorten("\n".join(formatted(line) for line in message.lines), room) + what_to_do
    embed: dict[str, Any] = {
        "title": title,
        "description": description,
        "color": _GOOD if message.good else _COLOURS[message.severity],
    }
    if links.web and message.run_id:
        embed["url"] = f"{links.web}/runs/{message.run_id}"
    if footer:
        embed["footer"] = {"text": footer}
    return {"embeds": [embed], "allowed_mentions": {"parse": []}}


def _runbook(topics: tuple[str, ...], url: str | None) -> str:
    if url is None or not topics:
        return ""
    return "\nWhat to do: " + ", ".join(f"[{t}]({url}#{t})" for t in topics[:_TOPICS])


def batch_message(
    result: BatchResult,
    *,
    run_id: str,
    requested_by: str,
    now: float,
    channels: Collection[Severity] = tuple(Severity),
) -> Message | None:
    """The one message of a repair run, or ``None`` when there is nothing to tell.

    Args:
        result: What the run did.
        run_id: The run.
        requested_by: The loop or the operator.
        now: Seconds since the epoch, for how long incidents lasted.
        channels: Levels that have a channel: the worst of those is taken, so that what has none
            keeps nothing else from being told.
    """
    news = [o for o in result.outcomes if o.status is not None and o.is_news]
    by_status = {s: [o for o in news if o.status is s] for s in _TOLD}
    refused, by_hand = by_status[Status.REFUSED], requested_by == OPERATOR
    severities = [
        *(f.severity for f in result.findings),
        *(i.severity for i in result.due),
        # Who repairs by hand is there already, and reads what a breaker keeps back.
        *(Severity.CRITICAL for o in news if o.escalated and not (by_hand and o in refused)),
        *(Severity.WARNING for _ in (*refused, *result.interrupted)),
        *(Severity.WARNING for o in news if o.code == NOT_PAUSED),
        *(Severity.REPAIR for o in news if o.status in (Status.SUCCEEDED, Status.DRY_RUN)),
    ]
    # An end is told where the beginning was, unless it comes with something new.
    severities = severities or [incident.severity for incident in result.over]
    if not severities:
        return None
    lines = [
        *_outcome_lines(tuple(o for s in _TOLD for o in by_status[s])),
        *_finding_lines(result.findings, alone=not (news or result.due or result.over)),
        *_capped(
            [f"{still_text(i, now)}. {shorten(i.text, 300)}" for i in result.due], "zlh status"
        ),
        *_capped([over_text(i, now) for i in result.over], "zlh events"),
    ]
    if result.interrupted:
        n = len(result.interrupted)
        lines.append(f"An earlier run ended in the middle of {n} repair(s); the ledger says which.")
    nothing_else = not (news or result.findings or result.due or result.interrupted)
    return Message(
        severity=min(severities, key=lambda s: (s not in channels, ORDER.index(s))),
        title=title_of(result, by_status),
        lines=tuple(lines),
        footer=f"run {run_id[:8]} · {requested_by} · {result.seconds:.1f} s",
        good=nothing_else,
        run_id=run_id,
        topics=_topics(by_status, result),
    )


def _topics(
    by_status: Mapping[Status, list[RepairOutcome]], result: BatchResult
) -> tuple[str, ...]:
    """What asks for the operator, the worst first."""
    asked = [
        *(["failed"] if by_status[Status.FAILED] else []),
        *("breaker" if o.escalated else "refused" for o in by_status[Status.REFUSED]),
        *("paused" for o in by_status[Status.SUCCEEDED] if o.code == NOT_PAUSED),
        *(f.kind for f in sorted(result.findings, key=lambda f: ORDER.index(f.severity))),
        *(i.kind for i in result.due),
        *(["interrupted"] if result.interrupted else []),
    ]
    return tuple(dict.fromkeys(asked))


def over_text(incident: Incident, now: float) -> str:
    """``Over after 12 min: Server 5000: agent offline``."""
    return f"Over after {times.words(now - incident.opened_at)}: {incident.title}"


def still_text(incident: Incident, now: float) -> str:
    """``Still open after 6 h: Server 5000: agent offline``."""
    return f"Still open after {times.words(now - incident.opened_at)}: {incident.title}"


def reminder(message: Message, incident: Incident, now: float) -> Message:
    """A message about what fails, as it is told again."""
    lines = (f"{still_text(incident, now)}.", *message.lines)
    return replace(message, title=f"Still open: {message.title}", lines=lines)


def run_failed(*, job: str, run_id: str, error: str) -> Message:
    """A run ended without doing its work."""
    return Message(
        severity=Severity.CRITICAL,
        title=f"{job.replace('_', ' ')} failed",
        lines=(error or "The run ended without an error message.", "Look at the run in Dagster."),
        footer=f"run {run_id[:8]}",
        run_id=run_id,
        topics=("run_failed",),
    )


def sensor_failed(error: str) -> Message:
    """The drift sensor ended with an error of its own."""
    return Message(
        severity=Severity.CRITICAL,
        title="The drift sensor fails: nothing is repaired",
        lines=(error, "The stack trace is in Dagster, under Automation."),
        topics=("sensor_failed",),
    )


def _outcome_lines(outcomes: tuple[RepairOutcome, ...]) -> list[str]:
    """A line for each of a few repairs; for many, a line for each thing that was done."""
    if len(outcomes) > _SINGLY:
        groups: dict[tuple[str, str], list[RepairOutcome]] = {}
        for outcome in outcomes:
            what = f"{outcome.action.value} {_WORDS.get(outcome.status, '')}".strip()
            groups.setdefault((what, _why_of_all(outcome)), []).append(outcome)
        lines = [_group_line(what, why, group) for (what, why), group in groups.items()]
    else:
        lines = [_outcome_line(outcome) for outcome in outcomes]
    return _capped(lines, "zlh events")


def _outcome_line(outcome: RepairOutcome) -> str:
    what = what_was_done(outcome) or outcome.reason
    line = f"{outcome.name} {outcome.action.value}: {shorten(what, 300)}"
    told = outcome.status in _WITH_REASON or outcome.code
    if told and outcome.changes and outcome.reason:
        line += f" - {shorten(outcome.reason, 300)}"
    return line


def _why_of_all(outcome: RepairOutcome) -> str:
    """Why it failed or was refused, in words that are the same for every server."""
    if outcome.status not in _WITH_REASON:
        return ""
    if outcome.vmid is None:
        return outcome.reason
    return outcome.reason.replace(reset_command(outcome.vmid), reset_command())


def _group_line(what: str, why: str, group: list[RepairOutcome]) -> str:
    names = [outcome.name for outcome in group]
    named = ", ".join(names[:_NAMED])
    if len(names) > _NAMED:
        named += f" and {len(names) - _NAMED} more, see zlh events"
    servers = "1 server" if len(names) == 1 else f"{len(names)} servers"
    line = f"{what} on {servers}: {named}"
    if len(group) == 1 and why:
        why = group[0].reason
    return f"{line} - {shorten(why, 300)}" if why else line


def _capped(lines: list[str], see: str) -> list[str]:
    if len(lines) <= _LINES:
        return lines
    return [*lines[:_LINES], f"and {len(lines) - _LINES} more, see {see}"]


def _finding_lines(findings: tuple[Finding, ...], *, alone: bool) -> list[str]:
    """A line for each of a few findings; more than five of one kind become one line.

    Args:
        findings: What was found.
        alone: Whether the message tells nothing else, so that its title names the only one.
    """
    if len(findings) == 1 and alone:
        return [shorten(findings[0].text, 1500)]
    kinds: dict[str, list[Finding]] = {}
    # The worst first: what is cut off at the end is the least.
    for finding in sorted(findings, key=lambda f: ORDER.index(f.severity)):
        kinds.setdefault(finding.kind, []).append(finding)
    lines = []
    for kind, several in kinds.items():
        if len(several) > _SINGLY:
            names = [str(f.vmid) if f.vmid is not None else f.title for f in several]
            named = ", ".join(names[:_NAMED])
            more = len(names) - _NAMED
            tail = f" and {more} more, see zlh status" if more > 0 else ""
            lines.append(f"{len(several)} times {kind.replace('_', ' ')}: {named}{tail}")
        else:
            lines += [f"{f.title}: {shorten(f.text, 300)}" for f in several]
    return _capped(lines, "zlh plan")
