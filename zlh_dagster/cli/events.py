"""`zlh events`: the repair ledger."""

import json
from collections.abc import Iterable
from datetime import datetime
from typing import Any

from rich.console import Console
from rich.markup import escape
from rich.table import Table

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
    table = Table("id", "when (UTC)", "server", "action", "status", "by", "why")
    for row in rows:
        style = _STYLES.get(row["status"], "cyan")
        why = row["error"]["message"] if row["error"] else row["reason"]
        table.add_row(
            row["id"][:8],
            f"{row['createdAt']:%m-%d %H:%M:%S}",
            str(row["vmid"] or "-"),
            row["action"],
            f"[{style}]{row['status']}[/{style}]",
            row["requestedBy"],
            escape(str(why)),
        )
    out.print(table)


def _text(value: Any) -> str:
    return value.isoformat() if isinstance(value, datetime) else str(value)
