"""What must hold after a fault under which one record of one server was broken."""

from collections import Counter
from collections.abc import Collection
from datetime import datetime, timedelta, timezone
from typing import Any

SLACK = timedelta(seconds=2.5)
"""By how much clocks of two processes, and a row and a call, may differ."""

BUDGET = 3
_IDLE = ("refused", "dry_run")
_WORDS = {"succeeded": "repaired", "failed": "failed", "interrupted": "in the middle of"}


def check_rows(events: list[dict[str, Any]], surface: str, broken: Collection[int]) -> None:
    """Nobody was repaired but the servers that were broken, where they were, within the budget.

    Args:
        events: Rows of the ledger since the fault began.
        surface: Where the records were broken.
        broken: VMIDs of their servers.

    Raises:
        AssertionError: If one was, or an older lease worked after a newer one.
    """
    worked = [event for event in events if event["status"] not in _IDLE]
    assert worked, "nothing was repaired"
    strange = [(e["vmid"], e["surface"]) for e in worked if e["vmid"] not in broken]
    assert strange == [], f"repaired though nobody broke it: {strange}"
    elsewhere = {e["surface"] for e in worked} - {surface}
    assert elsewhere == set(), f"repaired on {elsewhere}, broken on {surface}"
    tokens = [e["fencingToken"] for e in sorted(events, key=lambda e: e["createdAt"])]
    assert tokens == sorted(tokens), f"an older lease wrote after a newer one: {tokens}"
    budget = Counter(event["vmid"] for event in worked)
    assert max(budget.values()) <= BUDGET, f"over the budget: {budget}"


def check_writes(entries: list[Any], events: list[dict[str, Any]], surface: str) -> None:
    """Each write has a row of its own, which stood before it and was closed after it.

    A row repairs one record here, so that a second write for it is one too many.

    Args:
        entries: Writes that reached the edge, from its journal.
        events: Rows of the ledger, times in UTC by the edge's clock.
        surface: Where the records were broken.

    Raises:
        AssertionError: If a write has none, went elsewhere, or deleted something.
    """
    left = sorted((e for e in events if e["status"] not in _IDLE), key=lambda e: e["finishedAt"])
    for entry in sorted(entries, key=lambda entry: entry.at):
        assert entry.method != "DELETE", f"something was deleted: {entry}"
        assert entry.surface == surface, f"written where nothing was broken: {entry}"
        at = utc(datetime.fromisoformat(entry.at))
        row = next((e for e in left if _covers(e, at)), None)
        assert row is not None, f"no ledger row stands for {entry}"
        left.remove(row)


def check_told(statuses: Collection[str], embeds: list[dict[str, Any]]) -> None:
    """Whatever a row of the ledger says was told.

    Args:
        statuses: Of the rows of the servers that were broken.
        embeds: What Discord got since.

    Raises:
        AssertionError: If nothing was told of one of them.
    """
    texts = [f"{embed['title']} {embed.get('description', '')}".lower() for embed in embeds]
    for status in statuses:
        told = any(_WORDS.get(status, "") in text for text in texts)
        assert told, f"{status}, and nobody was told: {texts}"


def utc(moment: datetime) -> datetime:
    """The same with a time zone; what has none is in UTC."""
    return moment if moment.tzinfo else moment.replace(tzinfo=timezone.utc)


def _covers(event: dict[str, Any], at: datetime) -> bool:
    return bool(event["createdAt"] - SLACK <= at <= event["finishedAt"] + SLACK)
