"""`zlh history`: what each day was like."""

import json
from collections.abc import Mapping
from contextlib import suppress
from datetime import date, datetime, timedelta
from typing import Any

from rich.console import Console

from zlh_dagster.cli.text import hang
from zlh_dagster.core.digest import Day, share_text
from zlh_dagster.core.history import day_of
from zlh_dagster.core.repair import Status
from zlh_dagster.resources.history import History, counted
from zlh_dagster.resources.redis import RedisUnavailable
from zlh_dagster.resources.services import Services

_HEADINGS = {
    Status.SUCCEEDED: "done",
    Status.FAILED: "failed",
    Status.INTERRUPTED: "cut off",
    Status.REFUSED: "refused",
    Status.DRY_RUN: "dry run",
}
"""What a repair that has ended is called in the table."""


def gather(services: Services, *, days: int, now: datetime) -> dict[date, Day]:
    """The last days that have figures, the newest first; today's as they are now.

    Without Redis today's are those of the last hour that was kept.

    Args:
        services: Where they are kept.
        days: How many days back, today included.
        now: Time in UTC.

    Raises:
        DatabaseError: If they cannot be read.
    """
    today = now.date()
    found = History(services.engine).since(today - timedelta(days=days - 1))
    with suppress(RedisUnavailable):
        kept = found.setdefault(today, {})
        kept |= {
            name: max(value, kept.get(name, value))
            for name, value in counted(services, today).items()
        }
    found = {day: figures for day, figures in found.items() if figures}
    return {day: day_of(figures) for day, figures in reversed(found.items())}


def show(out: Console, days: Mapping[date, Day], *, as_text: bool) -> None:
    """Prints the days."""
    if not as_text:
        out.print_json(json.dumps([_json(day, figures) for day, figures in days.items()]))
        return
    if not days:
        out.print(
            "no figures are kept yet, and today's need Redis; `retention` keeps them every hour"
        )
        return
    headings = ("ticks", "drifts", *_HEADINGS.values(), "longest")
    # As narrow as a window of 80 columns.
    out.print("day (UTC)   " + "  ".join(headings))
    for day, figures in days.items():
        cells = (
            str(figures.ticks),
            str(figures.drifts),
            *(str(figures.statuses.get(status.value, 0)) for status in _HEADINGS),
            "-" if figures.longest is None else f"{figures.longest[0]:.1f} s",
        )
        columns = (f"{cell:>{len(h)}}" for h, cell in zip(headings, cells, strict=True))
        out.print(f"{day.isoformat()}  " + "  ".join(columns))
        missed = _missed(figures.seen)
        if missed:
            hang(out, "            ", f"not always seen: {missed}")


def _json(day: date, figures: Day) -> dict[str, Any]:
    return {
        "day": day.isoformat(),
        "ticks": figures.ticks,
        "seen": {source: round(share, 4) for source, share in figures.seen.items()},
        "drifts": figures.drifts,
        "repairs": {status.value: figures.statuses.get(status.value, 0) for status in _HEADINGS},
        "longest_repair_seconds": None if figures.longest is None else figures.longest[0],
    }


def _missed(shares: Mapping[str, float]) -> str:
    """The sources that were missed at times; the others were seen whenever they were on."""
    missed = [f"{source} {share_text(share)}" for source, share in shares.items() if share < 1]
    return ", ".join(missed)
