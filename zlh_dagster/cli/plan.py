"""`zlh plan`: what the loop would repair now and what it would refuse; changes nothing."""

import json
import uuid
from typing import Any

from rich.console import Console
from rich.markup import escape
from rich.table import Table

from zlh_dagster.core.judge import Judgement, Tick, judge
from zlh_dagster.core.model import Surface
from zlh_dagster.resources.observe import derive_desired, observe_payloads, observe_surface
from zlh_dagster.resources.services import Services

NOTHING_TO_DO, NOT_KNOWN, SOMETHING_TO_DO = 0, 1, 2


def look(services: Services) -> tuple[Tick, Judgement]:
    """Observes everything now, in this process, and judges it."""
    tick_id = uuid.uuid4().hex
    payloads = observe_payloads(services, tick_id)
    tick = Tick(
        payloads=payloads,
        desired=derive_desired(services, payloads),
        surfaces={s: observe_surface(services, s, tick_id) for s in Surface},
    )
    settings = services.settings
    return tick, judge(tick, edge=settings.edge, policy=settings.policy)


def as_json(tick: Tick, judgement: Judgement) -> dict[str, Any]:
    """The plan as JSON: ``repairs``, ``findings``, ``unobserved``, ``held``, ``compared``."""
    decisions = judgement.decisions
    return {
        "repairs": [
            {
                "vmid": request.vmid,
                "action": request.action.value,
                "surfaces": [surface.value for surface in request.covers],
                "reason": decisions.reasons.get(request.vmid, ""),
            }
            for request in decisions.repairs
        ],
        "findings": [finding.to_json() for finding in decisions.findings],
        "unobserved": tick.unobserved,
        "held": decisions.held,
        "compared": judgement.compared,
    }


def show(out: Console, tick: Tick, judgement: Judgement, *, as_text: bool) -> int:
    """Prints the plan and returns the exit status."""
    plan = as_json(tick, judgement)
    todo = bool(plan["repairs"] or plan["findings"])
    # What was not seen may drift: "nothing to do" would be a guess.
    status = SOMETHING_TO_DO if todo else NOT_KNOWN if tick.unobserved else NOTHING_TO_DO
    if not as_text:
        out.print_json(json.dumps(plan))
        return status
    for source, reason in sorted(tick.unobserved.items()):
        out.print(f"not seen: {escape(source)}: {escape(reason)}", style="yellow")
    if plan["repairs"]:
        table = Table("server", "action", "because", title="would repair", title_justify="left")
        for repair in plan["repairs"]:
            table.add_row(str(repair["vmid"]), repair["action"], escape(repair["reason"]))
        out.print(table)
    if plan["findings"]:
        table = Table("finding", "why", title="would tell, not repair", title_justify="left")
        for finding in plan["findings"]:
            table.add_row(escape(finding["title"]), escape(finding["text"]))
        out.print(table)
    if status == NOTHING_TO_DO:
        out.print(f"nothing to do: {plan['compared']} records compared, {plan['held']} held")
    return status
