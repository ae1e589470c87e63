"""`zlh status`: who works, when it last looked, what it saw, what is open."""

import json
import time
from collections.abc import Mapping
from datetime import datetime
from typing import Any

from rich.console import Console
from rich.markup import escape
from rich.table import Table

from zlh_dagster.cli.events import subject_of
from zlh_dagster.cli.holds import breakers
from zlh_dagster.cli.text import hang, utc
from zlh_dagster.core import times
from zlh_dagster.core.holds import Pause
from zlh_dagster.core.policy import SOURCE_OF
from zlh_dagster.core.snapshot import Outcome
from zlh_dagster.resources.database import DatabaseError
from zlh_dagster.resources.lease import holder
from zlh_dagster.resources.redis import RedisUnavailable
from zlh_dagster.resources.services import Services
from zlh_dagster.resources.ticks import newest_tick

_NOT_KNOWN = "not known"
_OF_EVENT = ("vmid", "surface", "action", "status", "requestedBy")


def gather(services: Services) -> dict[str, Any]:
    """The status as JSON; what cannot be had is named under ``problems``."""
    problems: list[str] = []
    status: dict[str, Any] = {
        "mode": services.settings.zlh_repair_mode,
        "leader": None,
        "repairing": None,
        "last_tick_age_seconds": None,
        "surfaces": {},
        "paused": {},
        "pauses_from": None,
        "breakers": None,
        "incidents": None,
        "last_repairs": [],
        "problems": problems,
    }
    try:
        held = holder(services.redis)
        status["repairing"] = held.describe() if held else None
        leader = services.leadership.current()
        status["leader"] = leader.name if leader else None
        if leader is not None:
            # What counts is how the controller runs, not what this shell is set to.
            status["mode"] = leader.mode
        try:
            status |= _pauses(services.gate.known_pauses(), "redis")
        except DatabaseError:  # of which the ledger tells below
            status |= _pauses(services.gate.pauses(), "redis")
        status["breakers"] = breakers(services)
        status["incidents"] = [
            {"name": name, **incident.to_json()}
            for name, incident in services.incidents.all_open().items()
        ]
    except RedisUnavailable as error:
        problems.append(str(error))
        if status["pauses_from"] is None:
            try:
                status |= _pauses(services.gate.kept_pauses(), "database")
            except DatabaseError as unread:
                problems.append(str(unread))
    tick = newest_tick(services.snapshots)
    if tick is None and status["leader"] is not None:
        problems.append(
            f"no tick was observed here yet, with DAGSTER_HOME {services.settings.home}: the first"
            " comes with the next full minute, if the leader has the same"
        )
    elif tick is None:
        problems.append(
            f"no tick was observed here yet, with DAGSTER_HOME {services.settings.home}: start"
            " `zlh up`, or call this where its .env is"
        )
    else:
        status["last_tick_age_seconds"] = round(time.time() - tick.taken_at.timestamp(), 1)
        names = {source: surface.value for surface, source in SOURCE_OF.items()}
        status["surfaces"] = {
            names.get(snap.source, snap.source): {
                "outcome": snap.outcome.value,
                "rows": len(snap.rows),
                "reason": snap.reason or None,
            }
            for snap in tick.sources
        }
    try:
        status["last_repairs"] = [
            {
                "at": event["createdAt"].isoformat(),
                **{name: event[name] for name in _OF_EVENT},
            }
            for event in services.ledger.events(limit=5)
        ]
    except DatabaseError as error:
        problems.append(str(error))
    return status


def _pauses(on: Mapping[str, Pause], where: str) -> dict[str, Any]:
    paused = {scope: pause.describe() for scope, pause in on.items()}
    return {"paused": paused, "pauses_from": where}


def show(out: Console, status: dict[str, Any], *, as_text: bool) -> None:
    """Prints the status."""
    if not as_text:
        out.print_json(json.dumps(status))
        return
    table = Table(show_header=False, box=None, pad_edge=False)
    table.add_column(no_wrap=True)
    table.add_column(overflow="fold")
    age = status["last_tick_age_seconds"]
    table.add_row("mode", status["mode"])
    table.add_row("last tick", "none yet" if age is None else f"{age:.0f} s ago")
    for name, surface in status["surfaces"].items():
        if surface["outcome"] == Outcome.OBSERVED.value:
            table.add_row(name, f"observed, {surface['rows']} rows")
        else:
            table.add_row(name, escape(f"{surface['outcome']}: {surface['reason']}"))
    nobody = _NOT_KNOWN if status["incidents"] is None else "nobody"
    table.add_row("leader", escape(status["leader"] or nobody))
    table.add_row("repairing now", escape(status["repairing"] or nobody))
    for scope, pause in status["paused"].items():
        table.add_row("paused", f"{scope} {escape(pause)}")
    if status["pauses_from"] is None:
        table.add_row("paused", _NOT_KNOWN)
    elif status["pauses_from"] == "database":
        table.add_row("pauses", "as the database keeps them; Redis does not answer")
    if status["breakers"] is None:
        table.add_row("breakers", _NOT_KNOWN)
    for breaker in status["breakers"] or ():
        if breaker["state"] != "closed":
            text = f"{breaker['name']} {breaker['state']}: {breaker['reason']}"
            table.add_row("breaker", escape(text))
    incidents = status["incidents"]
    table.add_row("open incidents", _NOT_KNOWN if incidents is None else str(len(incidents)))
    for incident in incidents or ():
        lasted = times.words(time.time() - incident["opened_at"])
        table.add_row("", escape(f"{incident['title']}, for {lasted} ({incident['name']})"))
    for event in status["last_repairs"]:
        at = datetime.fromisoformat(event["at"])
        text = f"{utc(at)}  {subject_of(event)}{event['action']} {event['status']}"
        table.add_row("repair", escape(text))
    out.print(table)
    for problem in status["problems"]:
        hang(out, "[yellow]problem:[/yellow] ", problem, style="yellow")
