"""`zlh status`: who works, when it last looked, what it saw, what is open."""

import json
import time
from typing import Any

from rich.console import Console
from rich.markup import escape
from rich.table import Table

from zlh_dagster.resources.database import DatabaseError
from zlh_dagster.resources.lease import holder
from zlh_dagster.resources.redis import RedisUnavailable
from zlh_dagster.resources.services import Services
from zlh_dagster.resources.snapshots import SnapshotMissing
from zlh_dagster.resources.ticks import load_tick


def gather(services: Services) -> dict[str, Any]:
    """The status as JSON; what cannot be had is named under ``problems``."""
    problems: list[str] = []
    status: dict[str, Any] = {
        "mode": services.settings.zlh_repair_mode,
        "repairing": None,
        "last_tick_age_seconds": None,
        "surfaces": {},
        "incidents": [],
        "last_repairs": [],
        "problems": problems,
    }
    try:
        held = holder(services.redis)
        status["repairing"] = held.describe() if held else None
        status["incidents"] = [
            {"name": name, **detail} for name, detail in services.incidents.all_open().items()
        ]
    except RedisUnavailable as error:
        problems.append(str(error))
    try:
        tick_id = services.snapshots.newest_tick()
        tick = load_tick(services.snapshots, tick_id)
        taken_at = min(snapshot.taken_at for snapshot in tick.snapshots)
        status["last_tick_age_seconds"] = round(time.time() - taken_at.timestamp(), 1)
        status["surfaces"] = {
            surface.value: {"outcome": snap.outcome.value, "rows": len(snap.rows)}
            for surface, snap in tick.surfaces.items()
        }
    except SnapshotMissing as error:
        problems.append(f"no tick yet: {error}")
    try:
        status["last_repairs"] = [
            {
                "at": event["createdAt"].isoformat(),
                **{name: event[name] for name in ("vmid", "action", "status", "requestedBy")},
            }
            for event in services.ledger.events(limit=5)
        ]
    except DatabaseError as error:
        problems.append(f"{error}; the ledger's table comes with `zlh db upgrade`")
    return status


def show(out: Console, status: dict[str, Any], *, as_text: bool) -> None:
    """Prints the status."""
    if not as_text:
        out.print_json(json.dumps(status))
        return
    table = Table(show_header=False, box=None, pad_edge=False)
    age = status["last_tick_age_seconds"]
    table.add_row("mode", status["mode"])
    table.add_row("last tick", "none yet" if age is None else f"{age:.0f} s ago")
    for name, surface in status["surfaces"].items():
        table.add_row(name, f"{surface['outcome']}, {surface['rows']} rows")
    table.add_row("repairing now", escape(status["repairing"] or "nobody"))
    table.add_row("open incidents", str(len(status["incidents"])))
    for incident in status["incidents"]:
        table.add_row("", escape(incident.get("title", incident["name"])))
    for event in status["last_repairs"]:
        text = f"{event['at'][:19]} {event['vmid']} {event['action']} {event['status']}"
        table.add_row("repair", escape(text))
    out.print(table)
    for problem in status["problems"]:
        out.print(f"problem: {escape(problem)}", style="yellow")
