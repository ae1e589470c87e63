"""Titles of messages: the worst first, for of a long one a phone shows the beginning.

Their own words have none of the characters that are escaped for Discord: a notification shows the
backslash. What others have named (a registration, an operation, a pause's reason) is escaped.
"""

from collections.abc import Mapping, Sequence

from zlh_dagster.core.incidents import Incident
from zlh_dagster.core.model import Action
from zlh_dagster.core.repair import NOT_PAUSED, Finding, RepairOutcome, Status
from zlh_dagster.core.result import BatchResult
from zlh_dagster.core.rules import Severity

ORDER = (Severity.CRITICAL, Severity.WARNING, Severity.REPAIR, Severity.INFO)
"""Severities, the worst first."""


def title_of(result: BatchResult, news: Mapping[Status, Sequence[RepairOutcome]]) -> str:
    """The title of what a repair run tells.

    Args:
        result: What it did.
        news: Those of its outcomes that are told, by status.
    """
    repaired = news[Status.SUCCEEDED]
    held = [o for o in news[Status.REFUSED] if o.escalated]
    refused = [o for o in news[Status.REFUSED] if not o.escalated]
    reverts = [o for o in repaired if o.action is Action.REVERT]
    reverted = [o for o in reverts if o.code != NOT_PAUSED]
    unpaused = [o for o in reverts if o.code == NOT_PAUSED]
    mended = [o for o in repaired if o.action is not Action.REVERT]
    asked_for = "; ".join(
        text
        for text in (
            _counted(mended, "Repaired {who}", "servers repaired"),
            _counted(reverted, "Reverted and paused {who}", "servers reverted and paused"),
        )
        if text
    )
    ended = [name for name in result.approved if _touched(name, repaired)]
    if ended:
        asked_for += f", the approved {' and '.join(_in_words(name) for name in ended)}"
    # What this run itself has mended is told as that, and not once more as over.
    done = {name for outcome in repaired for name in outcome.request.incidents}
    over = [incident for incident in result.over if incident.name not in done]
    parts = [
        (
            Severity.CRITICAL,
            _counted(news[Status.FAILED], "{what} of {who} failed", "repairs failed"),
        ),
        (
            Severity.CRITICAL,
            _counted(held, "Breaker open: {who} not repaired", "repairs held by open breakers"),
        ),
        (
            Severity.WARNING,
            _counted(unpaused, "Reverted {who}, its pause failed", "reverts whose pause failed"),
        ),
        (Severity.WARNING, _counted(refused, "{what} of {who} refused", "repairs refused")),
        (_worst(result.findings), _titled(result.findings, "", "more findings")),
        (_worst(result.due), _titled(result.due, "Still open: ", "more still open")),
        (Severity.REPAIR, asked_for),
        (
            Severity.REPAIR,
            _counted(
                news[Status.DRY_RUN],
                "Dry run: would {does} {who}",
                "servers would be repaired, dry run",
            ),
        ),
    ]
    told = [text for _, text in sorted(parts, key=lambda part: ORDER.index(part[0])) if text]
    ends = _titled(over, "Over: ", "more over")
    return "; ".join((*told, ends) if ends else told) or "An earlier repair was interrupted"


def _worst(items: Sequence[Finding | Incident]) -> Severity:
    return min((item.severity for item in items), key=ORDER.index, default=Severity.INFO)


def _titled(items: Sequence[Finding | Incident], begin: str, more: str) -> str:
    """The worst of them by its name; how many there are besides."""
    if not items:
        return ""
    worst = min(items, key=lambda item: ORDER.index(item.severity))
    rest = len(items) - 1
    named = f"{begin}{worst.title}"
    if not rest:
        return named
    return f"{named}; {rest} {more if rest > 1 else more.replace('findings', 'finding')}"


def _touched(incident: str, repaired: Sequence[RepairOutcome]) -> bool:
    """Whether a repair was made on the surface that an incident is named after."""
    surface = incident.partition(":")[2]
    return any(surface == s.value for outcome in repaired for s in outcome.request.covers)


def _in_words(incident: str) -> str:
    """``mass drift of cloudflare``."""
    kind, _, what = incident.partition(":")
    return f"{kind.replace('_', ' ')} of {what}"


def _counted(outcomes: Sequence[RepairOutcome], one: str, many: str) -> str:
    if len(outcomes) != 1:
        return f"{len(outcomes)} {many}" if outcomes else ""
    [outcome] = outcomes
    does = "revert" if outcome.action is Action.REVERT else "repair"
    return one.format(who=_who(outcome), does=does, what=does.capitalize())


def _who(outcome: RepairOutcome) -> str:
    return f"server {outcome.vmid}" if outcome.vmid is not None else outcome.name
