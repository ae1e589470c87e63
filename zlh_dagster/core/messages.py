"""What the operator reads on Discord, as pure values.

Limits are Discord's: title 256, description 4,096, field name 256 and value 1,024 characters, 25
fields, footer 2,048, all embeds of a message together 6,000. What is longer keeps its head and its
tail. Text that customers choose cannot mention anybody and cannot format anything.
"""

import re
from dataclasses import dataclass
from typing import Any

from zlh_dagster.core.repair import BatchResult, Finding, RepairOutcome, Severity, Status

_TITLE, _DESCRIPTION, _FIELD_NAME, _FIELD, _FOOTER = 256, 4096, 256, 1024, 2048
_TOTAL = 6000
_LINES = 8
"""Lines that one message lists; the rest is counted."""

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
_MARKDOWN = re.compile(r"([\\*_~`|>#\[\]()<@]|:(?=//))")
_VERBS: dict[Status | None, str] = {
    Status.SUCCEEDED: "put back",
    Status.DRY_RUN: "would put back",
    Status.FAILED: "could not put back",
}
_WORDS: dict[Status | None, str] = {
    Status.SUCCEEDED: "done",
    Status.DRY_RUN: "would be done",
    Status.FAILED: "failed",
    Status.REFUSED: "refused",
}
_WITH_REASON = (Status.FAILED, Status.REFUSED)
_ORDER = (Severity.CRITICAL, Severity.WARNING, Severity.REPAIR, Severity.INFO)


@dataclass(frozen=True, slots=True)
class Message:
    """One message for one channel."""

    severity: Severity
    title: str
    lines: tuple[str, ...]
    footer: str = ""

    def text(self) -> str:
        """The message as plain text, for the log."""
        return "\n".join((self.title, *self.lines, self.footer)).strip()


def shorten(text: str, limit: int) -> str:
    """``text`` in at most ``limit`` characters, head and tail kept."""
    if len(text) <= limit:
        return text
    head = (limit - 3) * 2 // 3
    return f"{text[:head]} … {text[len(text) - (limit - 3 - head) :]}"


def plain(text: str) -> str:
    """``text`` with Discord's formatting and mentions made harmless, on one line."""
    return _MARKDOWN.sub(r"\\\1", " ".join(text.split()))


def payload(message: Message) -> dict[str, Any]:
    """The JSON that Discord's webhook takes."""
    title = shorten(plain(message.title), _TITLE)
    footer = shorten(message.footer, min(_FOOTER, 200))
    room = min(_DESCRIPTION, _TOTAL - len(title) - len(footer))
    description = shorten("\n".join(plain(line) for line in message.lines), room)
    embed: dict[str, Any] = {
        "title": title,
        "description": description,
        "color": _COLOURS[message.severity],
    }
    if footer:
        embed["footer"] = {"text": footer}
    return {"embeds": [embed], "allowed_mentions": {"parse": []}}


def batch_message(result: BatchResult, *, run_id: str, requested_by: str) -> Message | None:
    """The one message of a repair run, or ``None`` when there is nothing to tell."""
    news = [o for o in result.outcomes if o.status is not None and o.is_news]
    if not news and not result.findings and not result.interrupted:
        return None
    failed = [o for o in news if o.status is Status.FAILED]
    refused = [o for o in news if o.status is Status.REFUSED]
    done = [o for o in news if o.status is Status.SUCCEEDED]
    would = [o for o in news if o.status is Status.DRY_RUN]
    severities = [f.severity for f in result.findings]
    if failed:
        severities.append(Severity.CRITICAL)
    if refused or result.interrupted:
        severities.append(Severity.WARNING)
    if done or would:
        severities.append(Severity.REPAIR)
    lines = [*_outcome_lines((*failed, *refused, *done, *would)), *_finding_lines(result.findings)]
    if result.interrupted:
        n = len(result.interrupted)
        lines.append(f"An earlier run ended in the middle of {n} repair(s); the ledger says which.")
    return Message(
        severity=min(severities, key=_ORDER.index),
        title=_title(failed, refused, done, would, result),
        lines=tuple(lines),
        footer=f"run {run_id[:8]} · {requested_by} · {result.seconds:.1f} s",
    )


def run_failed(*, job: str, run_id: str, error: str) -> Message:
    """A run ended without doing its work."""
    return Message(
        severity=Severity.CRITICAL,
        title=f"{job} failed",
        lines=(error or "The run ended without an error message.", "Look at the run in Dagster."),
        footer=f"run {run_id[:8]}",
    )


def _title(
    failed: list[RepairOutcome],
    refused: list[RepairOutcome],
    done: list[RepairOutcome],
    would: list[RepairOutcome],
    result: BatchResult,
) -> str:
    parts = [
        _counted(failed, "Repair failed", "repairs failed"),
        _counted(refused, "Repair refused", "repairs refused"),
        _counted(done, "Repaired", "servers repaired"),
        _counted(would, "Dry run: would repair", "servers would be repaired (dry run)"),
    ]
    told = [part for part in parts if part]
    if len(result.findings) == 1:
        told.append(result.findings[0].title)
    elif result.findings:
        told.append(f"{len(result.findings)} findings")
    if not told:
        told.append("An earlier repair was interrupted")
    return "; ".join(told)


def _counted(outcomes: list[RepairOutcome], one: str, many: str) -> str:
    if not outcomes:
        return ""
    return f"{one} server {outcomes[0].vmid}" if len(outcomes) == 1 else f"{len(outcomes)} {many}"


def _outcome_lines(outcomes: tuple[RepairOutcome, ...]) -> list[str]:
    """A line for each of a few repairs; for many, a line for each thing that was done."""
    if len(outcomes) > _SINGLY:
        groups: dict[tuple[str, str], list[int]] = {}
        for outcome in outcomes:
            why = outcome.reason if outcome.status in _WITH_REASON else ""
            what = f"{outcome.action.value} {_WORDS.get(outcome.status, '')}".strip()
            groups.setdefault((what, why), []).append(outcome.vmid)
        lines = [_group_line(what, why, vmids) for (what, why), vmids in groups.items()]
    else:
        lines = [_outcome_line(outcome) for outcome in outcomes]
    return _capped(lines, "zlh events")


def _outcome_line(outcome: RepairOutcome) -> str:
    what = outcome.reason
    if outcome.changes:
        what = f"{_VERBS.get(outcome.status, '')} {'; '.join(outcome.changes)}".strip()
    line = f"{outcome.vmid} {outcome.action.value}: {shorten(what, 300)}"
    if outcome.status in _WITH_REASON and outcome.changes and outcome.reason:
        line += f" - {shorten(outcome.reason, 300)}"
    return line


def _group_line(what: str, why: str, vmids: list[int]) -> str:
    named = ", ".join(str(vmid) for vmid in vmids[:_NAMED])
    if len(vmids) > _NAMED:
        named += f" and {len(vmids) - _NAMED} more, see zlh events"
    servers = "1 server" if len(vmids) == 1 else f"{len(vmids)} servers"
    line = f"{what} on {servers}: {named}"
    return f"{line} - {shorten(why, 300)}" if why else line


def _capped(lines: list[str], see: str) -> list[str]:
    if len(lines) <= _LINES:
        return lines
    return [*lines[:_LINES], f"and {len(lines) - _LINES} more, see {see}"]


def _finding_lines(findings: tuple[Finding, ...]) -> list[str]:
    if len(findings) == 1:
        return [shorten(findings[0].text, 1500)]
    return _capped([f"{f.title}: {shorten(f.text, 300)}" for f in findings], "zlh plan")
