"""`zlh history`: what each day was like."""

import json
from collections.abc import Mapping
from datetime import date, timedelta
from typing import Any

from rich.console import Console
from rich.table import Table

from zlh_dagster.core.digest import Day, share_text
from zlh_dagster.core.history import day_of
from zlh_dagster.core.repair import Status
from zlh_dagster.resources.history import History
from zlh_dagster.resources.services import Services

_REPAIRS = [status for status in Status if status is not Status.RUNNING]


def gather(services: Services, *, days: int, today: date) -> dict[date, Day]:
    """The last days that have figures, the newest first.

    Args:
        services: Where they are kept.
        days: How many days back, today included.
        today: The last of them.

    Raises:
        DatabaseError: If they cannot be read.
    """
    found = History(services.engine).since(today - timedelta(days=days - 1))
    return {day: day_of(figures) for day, figures in reversed(found.items())}


def show(out: Console, days: Mapping[date, Day], *, as_text: bool) -> None:
    """Prints the days."""
    if not as_text:
        out.print_json(json.dumps([_json(day, figures) for day, figures in days.items()]))
        return
    if not days:
        out.print("no figures yet; the job `retention` keeps them every hour")
        return
    repairs = [status.value.replace("_", " ") for status in _REPAIRS]
    table = Table("day (UTC)", "ticks", "seen", "drifts", *repairs, "longest repair")
    for day, figures in days.items():
        table.add_row(
            day.isoformat(),
            str(figures.ticks),
            _seen(figures.seen),
            str(figures.drifts),
            *(str(figures.statuses.get(status.value, 0)) for status in _REPAIRS),
            "-" if figures.longest is None else f"{figures.longest[0]:.1f} s",
        )
    out.print(table)


def _json(day: date, figures: Day) -> dict[str, Any]:
    return {
        "day": day.isoformat(),
        "ticks": figures.ticks,
        "seen": {source: round(share, 4) for source, share in figures.seen.items()},
        "drifts": figures.drifts,
        "repairs": {status.value: figures.statuses.get(status.value, 0) for status in _REPAIRS},
        "longest_repair_seconds": None if figures.longest is None else figures.longest[0],
    }


def _seen(shares: Mapping[str, float]) -> str:
    """The sources that were missed at times; the others were seen whenever they were on."""
    missed = [f"{source} {share_text(share)}" for source, share in shares.items() if share < 1]
    if missed:
        return ", ".join(missed)
    return "all" if shares else "-"
