"""What the demo saw, judged and told."""

import re
from dataclasses import dataclass, field, replace
from datetime import datetime
from typing import Any

from rich.console import Console
from rich.markup import escape
from rich.panel import Panel
from rich.table import Table

_ESCAPED = re.compile(r"\\(.)")
_Rows = list[dict[str, Any]]
_COLOURS = {"critical": "red", "warning": "yellow", "repair": "green", "info": "blue"}


@dataclass(frozen=True, slots=True)
class Evidence:
    """What was broken, and everything that happened since."""

    name: str
    vmid: int
    broken_at: float
    was: dict[str, Any]
    events: _Rows = field(default_factory=list)
    inbox: _Rows = field(default_factory=list)
    requests: _Rows = field(default_factory=list)
    records: _Rows = field(default_factory=list)

    def gathered(
        self, *, events: _Rows, inbox: _Rows, requests: _Rows, records: _Rows
    ) -> "Evidence":
        """The same, with what was seen since."""
        return replace(self, events=events, inbox=inbox, requests=requests, records=records)

    def writes(self, surface: str) -> _Rows:
        """Writes to a surface, the demo's own deletion left out."""
        return [
            r
            for r in self.requests
            if r["surface"] == surface and r["write"] and r["method"] != "DELETE"
        ]


def judge(evidence: Evidence) -> list[str]:
    """What is not as promised; nothing when the repair was done, proved, recorded and told."""
    problems = []
    same = [r for r in evidence.records if r["data"] == evidence.was["data"]]
    if len(evidence.records) != 1 or len(same) != 1:
        problems.append(f"{len(evidence.records)} records of that name, {len(same)} as before")
    if [e["status"] for e in evidence.events] != ["succeeded"]:
        problems.append(f"ledger: {[e['status'] for e in evidence.events]}, not one succeeded")
    elif not (evidence.events[0]["after"] and evidence.events[0]["before"]):
        problems.append("the ledger row lacks what was there before or after")
    if len(evidence.inbox) != 1:
        problems.append(f"{len(evidence.inbox)} Discord messages, not one")
    if len(evidence.writes("cloudflare")) != 1:
        problems.append(f"{len(evidence.writes('cloudflare'))} writes to Cloudflare, not one")
    for surface in ("technitium", "velocity"):
        if evidence.writes(surface):
            problems.append(f"{surface} was written to")
    return problems


def report(out: Console, evidence: Evidence, problems: list[str]) -> None:
    """Prints what was broken, what found it, what was done, and how long each step took."""
    for message in evidence.inbox:
        show_message(out, message)
    table = Table(title="What happened", title_justify="left", show_edge=False, pad_edge=False)
    for column, justify in (("step", "left"), ("after", "right"), ("seen by", "left")):
        table.add_column(column, justify=justify)  # type: ignore[arg-type]
    for step, seconds, seen_by in _steps(evidence):
        table.add_row(step, f"{seconds:.1f} s", escape(seen_by))
    out.print(table)
    if problems:
        for problem in problems:
            out.print(f"NOT AS PROMISED: {escape(problem)}", style="bold red")
    else:
        out.print(
            "repaired and verified: one write, one ledger row, one message; Velocity only read",
            style="bold green",
        )


def show_message(out: Console, message: dict[str, Any]) -> None:
    """One message as Discord would show it."""
    for embed in message["payload"]["embeds"]:
        colour = _COLOURS.get(message["level"], "white")
        body = escape(_ESCAPED.sub(r"\1", embed.get("description", "")))
        out.print(
            Panel(
                body,
                title=f"Discord #{message['level']}: {escape(_shown(embed['title']))}",
                title_align="left",
                subtitle=escape(embed.get("footer", {}).get("text", "")),
                subtitle_align="left",
                border_style=colour,
            )
        )


def _shown(text: str) -> str:
    return _ESCAPED.sub(r"\1", text)


def _steps(evidence: Evidence) -> list[tuple[str, float, str]]:
    steps = [("record deleted", 0.0, f"Cloudflare's API: {evidence.name}")]
    reads = [r for r in evidence.requests if r["surface"] == "cloudflare" and not r["write"]]
    for what, requests in (
        ("tick observed the edge", reads[:1]),
        ("record written", evidence.writes("cloudflare")[:1]),
    ):
        for request in requests:
            at = datetime.fromisoformat(request["at"].replace("Z", "+00:00")).timestamp()
            steps.append((what, at - evidence.broken_at, f"{request['method']} to Cloudflare"))
    for event in evidence.events:
        done = event["finishedAt"].timestamp() - evidence.broken_at
        steps.append(("read back and recorded", done, f"ledger: {event['action']}, {event['id']}"))
    for message in evidence.inbox:
        at = datetime.fromisoformat(message["at"].replace("Z", "+00:00")).timestamp()
        steps.append(("operator told", at - evidence.broken_at, f"Discord #{message['level']}"))
    return sorted(steps, key=lambda step: step[1])
