"""`zlh events`: the repair ledger."""

import json
from collections.abc import Iterable, Mapping
from datetime import datetime
from typing import Any

from rich.console import Console
from rich.markup import escape
from rich.padding import Padding

from zlh_dagster.cli.text import utc

_INDENT = 10
_STYLES = {"succeeded": "green", "failed": "red", "interrupted": "red", "refused": "yellow"}


def show(out: Console, events: Iterable[dict[str, Any]], *, as_text: bool) -> None:
    """Prints ledger rows, the newest first."""
    rows = list(events)
    if not as_text:
        out.print_json(json.dumps(rows, default=_text))
        return
    if not rows:
        out.print("the ledger has no such rows")
        return
    # Two lines a row: the reason is long, and a window may be narrow.
    for row in rows:
        style = _STYLES.get(row["status"], "cyan")
        out.print(
            f"{row['id'][:8]}  {utc(row['createdAt'])}  {subject_of(row)}{row['action']}"
            f" [{style}]{row['status']}[/{style}]"
        )
        out.print(
            Padding(
                escape(f"by the {row['requestedBy']}: {_why(row)}"),
                (0, 0, 0, _INDENT),
                expand=False,
            ),
            soft_wrap=False,
        )


def subject_of(row: Mapping[str, Any]) -> str:
    """The server of a ledger row, or the surface where it is about all of them, and a space."""
    subject = row["surface"] if row["vmid"] is None else row["vmid"]
    return "" if subject is None else f"{subject} "


def _why(row: dict[str, Any]) -> str:
    """Why it was done or not, with the records that a repair by hand does not name itself."""
    if row["error"]:
        return str(row["error"]["message"])
    why, before = str(row["reason"]), row["before"]
    told = [why]
    for one in before if isinstance(before, list) else ():
        if one.keys() >= {"surface", "type", "name"} and str(one["name"]) not in why:
            kind = f"{one['surface']} {one['type']}"
            told.append(str(one["name"]) if kind in why else f"{kind} {one['name']}")
    return "; ".join(told)


def _text(value: Any) -> str:
    return value.isoformat() if isinstance(value, datetime) else str(value)
