"""The figures of a day that are kept for ever: a name and a number each."""

from collections.abc import Iterable, Mapping
from dataclasses import replace
from typing import Any

from zlh_dagster.core.digest import Day
from zlh_dagster.core.repair import Status

REPAIRS = "repairs:"
"""Stands before a ledger status in the name of a figure; names of counts are those of a digest."""

LONGEST = "longest_repair_seconds"


def figures_of(counts: Mapping[str, int], events: Iterable[Mapping[str, Any]]) -> dict[str, float]:
    """The figures of a day, from its counts and its ledger rows, as of :meth:`Day.of`."""
    day = Day.of(counts, events)
    figures: dict[str, float] = dict(counts)
    for status, count in day.statuses.items():
        # A repair under way is counted when it has ended.
        if status != Status.RUNNING.value:
            figures[REPAIRS + status] = count
    if day.longest is not None:
        figures[LONGEST] = day.longest[0]
    return figures


def day_of(figures: Mapping[str, float]) -> Day:
    """The day that its figures tell of; whose repair took longest they do not tell."""
    day = Day.of({name: int(value) for name, value in figures.items()}, ())
    statuses = {
        name.removeprefix(REPAIRS): int(value)
        for name, value in figures.items()
        if name.startswith(REPAIRS)
    }
    longest = (figures[LONGEST], "") if LONGEST in figures else None
    return replace(day, statuses=statuses, longest=longest)
