"""`zlh plan`: what the loop would repair now and what it would refuse; changes nothing."""

import json
import uuid
from typing import Any

from rich.console import Console
from rich.markup import escape

from zlh_dagster.cli.text import counted, hang
from zlh_dagster.core.rules import POLICY
from zlh_dagster.resources.controller import Assessment, assess
from zlh_dagster.resources.observe import observe_all
from zlh_dagster.resources.services import Services
from zlh_dagster.resources.settings import Settings

NOTHING_TO_DO, NOT_KNOWN, SOMETHING_TO_DO = 0, 1, 2


def look(services: Services) -> Assessment:
    """Observes everything now, in this process, and judges it."""
    return assess(services, observe_all(services, uuid.uuid4().hex, count=False), recall=True)


def as_json(assessment: Assessment) -> dict[str, Any]:
    """The plan as JSON.

    Keys are ``repairs``, ``kept_back``, ``findings``, ``unobserved``, ``holds``,
    ``holds_unknown``, ``pauses_from``, ``held`` and ``compared``.
    """
    decisions = assessment.judgement.decisions
    return {
        "repairs": [
            {
                "vmid": request.vmid,
                "action": request.action.value,
                "surfaces": [surface.value for surface in request.covers],
                "target": request.target,
                "reason": request.reason,
            }
            for request in decisions.repairs
        ],
        "kept_back": [
            {"vmid": request.vmid, "action": request.action.value, **refusal.to_json()}
            for request, refusal in decisions.kept_back
        ],
        "findings": [finding.to_json() for finding in decisions.findings],
        "unobserved": assessment.tick.unobserved,
        "holds": [finding.to_json() for finding in assessment.holds.findings()],
        "holds_unknown": assessment.redis_lost,
        "pauses_from": _pauses_from(assessment),
        "held": decisions.held,
        "compared": assessment.judgement.compared,
    }


def _pauses_from(assessment: Assessment) -> str | None:
    if assessment.redis_lost is None:
        return "redis"
    return "database" if assessment.pauses_known else None


def _without_redis(settings: Settings, assessment: Assessment) -> str:
    lost = assessment.redis_lost
    unknown = "breakers are not known, and pauses only as the database keeps them"
    if not assessment.pauses_known:
        unknown = "pauses and breakers are not known"
    if settings.zlh_redis_url is None:
        return f"Redis: ZLH_REDIS_URL is not set and no `zlh up` runs here, so {unknown}"
    # Without what it names as not known: one answer said it of pauses, and the database has some.
    why = (lost or "").rpartition(": ")[0] or lost
    return f"{why}: {unknown}; the loop repairs nothing until it answers"


def show(out: Console, settings: Settings, assessment: Assessment, *, as_text: bool) -> int:
    """Prints the plan and returns the exit status."""
    plan = as_json(assessment)
    unobserved = plan["unobserved"]
    todo = bool(plan["repairs"] or plan["kept_back"] or plan["findings"])
    # What was not seen may drift: "nothing to do" would be a guess.
    status = SOMETHING_TO_DO if todo else NOT_KNOWN if unobserved else NOTHING_TO_DO
    if not as_text:
        out.print_json(json.dumps(plan))
        return status
    for source, reason in sorted(unobserved.items()):
        hang(out, "[yellow]not seen:[/yellow] ", f"{source}: {reason}", style="yellow")
    if assessment.redis_lost:
        hang(out, "", _without_redis(settings, assessment), style="yellow")
    for hold in plan["holds"]:
        text = f"{hold['title']}. {hold['text']}"
        hang(out, "[yellow]holds repairs back:[/yellow] ", text, style="yellow")
    if plan["repairs"]:
        out.print("would repair", style="bold")
        for repair in plan["repairs"]:
            server = repair["vmid"] or repair["target"]
            hang(out, f"  {escape(str(server))}  {repair['action']}  ", repair["reason"])
    if plan["kept_back"]:
        out.print("kept back", style="bold")
        for kept in plan["kept_back"]:
            hang(out, f"  {kept['vmid'] or '-'}  {kept['action']}  ", kept["message"])
    if plan["findings"]:
        out.print("would tell, not repair", style="bold")
        for finding in plan["findings"]:
            hang(out, "  ", finding["title"])
            hang(out, "    ", finding["text"])
    out.print(_summary(plan, status))
    return status


def _summary(plan: dict[str, Any], status: int) -> str:
    """What was compared, which is said whatever came of it."""
    told = f"{counted(plan['compared'], 'record')} compared"
    if plan["held"]:
        told += f", {counted(plan['held'], 'difference')} of guarded servers left alone"
    if status == SOMETHING_TO_DO:
        return told
    if status == NOTHING_TO_DO:
        return f"nothing to do: {told}"
    return f"nothing to repair in what was seen: {told}; exit status 1, for not all was seen"


def policy() -> list[dict[str, Any]]:
    """The policy as JSON: one object for each row of its table."""
    return [
        {
            "kind": rule.kind.value,
            "found": rule.found,
            "level": rule.level,
            "action": rule.action.value if rule.action else None,
            "guards": rule.guards,
            "message": rule.message.value,
            "does": rule.does,
        }
        for rule in POLICY
    ]


def show_policy(out: Console, *, as_text: bool) -> None:
    """Prints the policy."""
    if not as_text:
        out.print_json(json.dumps(policy()))
        return
    for rule in policy():
        hang(out, f"[bold]{rule['kind']}[/bold]  ", rule["found"])
        hang(out, "  action     ", f"{rule['action'] or '-'}, level {rule['level']}")
        hang(out, "  only when  ", rule["guards"])
        hang(out, "  channel    ", rule["message"])
        hang(out, "  does       ", rule["does"])
