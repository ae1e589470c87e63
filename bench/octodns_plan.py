"""The same zone planned by octoDNS and compared by this project, in one process.

Both are given desired and existing records in their own form, built before the clock starts. The
second pair of clocks begins earlier: with the records as the API and the platform tell them, as
Python values, for both programs build everything anew at each run.
"""

import logging
from typing import Any

import pandas as pd
from octodns.provider.base import BaseProvider
from octodns.provider.plan import Plan
from octodns.record import Record
from octodns.zone import Zone

from bench import worlds
from bench.harness import Benchmark, Figure, Result, clock, in_own_process
from zlh_dagster.core.compare import compare
from zlh_dagster.core.desired import desired_frame
from zlh_dagster.core.model import Surface, records_frame, rows_of

SERVERS, SMALL_SERVERS = 50_000, 100
TIMES = 3
AIM = 50.0
_ZONE = f"{worlds.ZONE}."


class Existing(BaseProvider):  # type: ignore[misc]
    """A provider whose records are here already; planning with it calls nobody."""

    SUPPORTS_GEO = False
    SUPPORTS_DYNAMIC = False
    SUPPORTS = frozenset({"A", "SRV"})

    def __init__(self, records: list[Any]) -> None:
        self.log = logging.getLogger("octodns.bench")
        super().__init__("bench")
        self._records = records

    def populate(self, zone: Any, target: bool = False, lenient: bool = False) -> bool:
        """Adds the records to the zone, as every provider does."""
        for record in self._records:
            zone.add_record(record, lenient=lenient)
        return True


def measure(servers: int) -> dict[str, Any]:
    """Both programs over one zone with two records for each server."""
    logging.disable(logging.CRITICAL)
    kinds = ("missing", "wrong")
    world = worlds.listing(servers, surfaces=(Surface.CLOUDFLARE,), kinds=kinds, strangers=False)
    wanted, found = rows_of(world.desired), rows_of(world.cloudflare)
    desired_zone, existing_zone = _zone(wanted), _zone(found)
    provider = Existing(list(existing_zone.records))

    def changes() -> Any:
        return Plan(
            existing_zone, desired_zone, existing_zone.changes(desired_zone, provider), True
        )

    def from_answers() -> Any:
        return Existing(list(_zone(found).records)).plan(_zone(wanted))

    def ours_from_answers() -> pd.DataFrame:
        return compare(desired_frame(wanted), records_frame(found))

    ours = clock(lambda: compare(world.desired, world.cloudflare), times=TIMES)
    theirs = clock(changes, times=TIMES)
    plan = clock(lambda: provider.plan(desired_zone), times=TIMES)
    ours_early, theirs_early = clock(ours_from_answers, times=TIMES), clock(from_answers, times=1)
    agree = {len(ours.value), len(ours_early.value)}
    agree |= {len(plan.changes) for plan in (theirs.value, plan.value, theirs_early.value)}
    if agree != {world.drifting}:
        raise RuntimeError(f"the programs disagree: {agree} differences, {world.drifting} made")
    spent = {
        "compare": ours,
        "octodns_changes": theirs,
        "octodns_plan": plan,
        "compare_from_answers": ours_early,
        "octodns_from_answers": theirs_early,
    }
    return {
        "records": len(wanted),
        "drifting": world.drifting,
        **{name: clocked.median for name, clocked in spent.items()},
        "processor": {name: clocked.least_processor for name, clocked in spent.items()},
    }


def _zone(rows: list[dict[str, Any]]) -> Any:
    zone = Zone(_ZONE, [])
    for row in rows:
        name = row["name"].removesuffix(f".{worlds.ZONE}")
        value: Any = row["content"]
        if row["type"] == "SRV":
            priority, weight, port, target = value.split()
            value = {"priority": int(priority), "weight": int(weight), "port": int(port)}
            value["target"] = f"{target}."
        data = {"type": row["type"], "ttl": row["ttl"], "value": value}
        zone.add_record(Record.new(zone, name, data, lenient=True), lenient=True)
    return zone


def run(small: bool) -> Result:
    """Ratios of one process, so that a slow machine slows down both."""
    m = in_own_process("bench.octodns_plan:measure", SMALL_SERVERS if small else SERVERS)
    records, cpu = f"{m['records']:,} records", m["processor"]
    ratio = cpu["octodns_plan"] / cpu["compare"]
    early = cpu["octodns_from_answers"] / cpu["compare_from_answers"]
    return Result(
        [
            Figure(f"compare, one zone of {records}", m["compare"], "s"),
            Figure(f"octoDNS plan, the same {records}", m["octodns_plan"], "s"),
            Figure(f"octoDNS changes alone, the same {records}", m["octodns_changes"], "s"),
            Figure("compare against octoDNS plan", ratio, "times", AIM, at_least=True),
            Figure(
                f"compare from answers as Python values, {records}", m["compare_from_answers"], "s"
            ),
            Figure(
                f"octoDNS from answers as Python values, {records}", m["octodns_from_answers"], "s"
            ),
            Figure("from answers: compare against octoDNS", early, "times"),
        ],
        m,
    )


BENCHMARK = Benchmark("octodns", "octoDNS planning the same zone", run)
