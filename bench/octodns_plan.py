"""The same zone planned by octoDNS and compared by this project, in one process.

octoDNS's ``plan()`` asks its provider for the existing records, which builds them from the answers
of the API, and then compares. Here observing has put them into a frame before anything is compared.
Three more pairs of clocks show the same work on both sides: comparing alone, reading the answers
and comparing, and both zones from plain values.
"""

import logging
from typing import Any

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
TIMES, TIMES_OF_OTHERS = 2, 1
AIM = 50.0
_ZONE = f"{worlds.ZONE}."


class Existing(BaseProvider):  # type: ignore[misc]
    """A provider whose answers are here already; planning with it calls nobody.

    Args:
        rows: What an API tells of each record, as Python values.
    """

    SUPPORTS_GEO = False
    SUPPORTS_DYNAMIC = False
    SUPPORTS = frozenset({"A", "SRV"})

    def __init__(self, rows: list[dict[str, Any]]) -> None:
        self.log = logging.getLogger("octodns.bench")
        super().__init__("bench")
        self._rows = rows

    def populate(self, zone: Any, target: bool = False, lenient: bool = False) -> bool:
        """Builds the records and adds them to the zone, as every provider does."""
        _fill(zone, self._rows)
        return True


def measure(servers: int) -> dict[str, Any]:
    """Both programs over one zone with two records for each server."""
    logging.disable(logging.CRITICAL)
    kinds = ("missing", "wrong")
    world = worlds.listing(servers, surfaces=(Surface.CLOUDFLARE,), kinds=kinds, strangers=False)
    wanted, found = rows_of(world.desired), rows_of(world.cloudflare)
    provider = Existing(found)
    desired_zone, existing_zone = _zone(wanted), _zone(found)

    def comparing() -> Any:
        changes = existing_zone.changes(desired_zone, provider)
        return Plan(existing_zone, desired_zone, changes, True)

    pair = {
        "compare": lambda: compare(world.desired, world.cloudflare),
        "octodns_plan": lambda: provider.plan(desired_zone),
    }
    others = {
        "read_and_compare": lambda: compare(world.desired, records_frame(found)),
        "both_read_and_compare": lambda: compare(desired_frame(wanted), records_frame(found)),
        "octodns_compare": comparing,
        "octodns_both_and_plan": lambda: provider.plan(_zone(wanted)),
    }
    spent = {name: clock(work, times=TIMES) for name, work in pair.items()}
    spent |= {name: clock(work, times=TIMES_OF_OTHERS) for name, work in others.items()}
    found_by_them = {len(s.value.changes) for s in spent.values() if isinstance(s.value, Plan)}
    found_by_us = {len(s.value) for s in spent.values() if not isinstance(s.value, Plan)}
    if found_by_us | found_by_them != {world.drifting}:
        raise RuntimeError(
            f"{world.drifting} differences were made, {found_by_us} found here,"
            f" {found_by_them} by octoDNS"
        )
    return {
        "records": len(wanted),
        "drifting": world.drifting,
        **{name: clocked.median for name, clocked in spent.items()},
        "processor": {name: clocked.least_processor for name, clocked in spent.items()},
    }


def _zone(rows: list[dict[str, Any]]) -> Any:
    zone = Zone(_ZONE, [])
    _fill(zone, rows)
    return zone


def _fill(zone: Any, rows: list[dict[str, Any]]) -> None:
    for row in rows:
        name = row["name"].removesuffix(f".{worlds.ZONE}")
        value: Any = row["content"]
        if row["type"] == "SRV":
            priority, weight, port, target = value.split()
            value = {"priority": int(priority), "weight": int(weight), "port": int(port)}
            value["target"] = f"{target}."
        data = {"type": row["type"], "ttl": row["ttl"], "value": value}
        zone.add_record(Record.new(zone, name, data, lenient=True), lenient=True)


def run(small: bool) -> Result:
    """Ratios of one process, so that a slow machine slows down both."""
    m = in_own_process("bench.octodns_plan:measure", SMALL_SERVERS if small else SERVERS)
    records, cpu = f"{m['records']:,} records", m["processor"]

    def times(theirs: str, ours: str) -> float:
        return float(cpu[theirs] / cpu[ours])

    planning = times("octodns_plan", "compare")
    same = "the same work on both sides"
    return Result(
        [
            Figure(f"compare, one zone of {records}", m["compare"], "s"),
            Figure(f"octoDNS plan, the same {records}", m["octodns_plan"], "s"),
            Figure("compare against octoDNS plan", planning, "times", AIM, at_least=True),
            Figure(f"read the answers and compare, {records}", m["read_and_compare"], "s"),
            Figure(f"octoDNS comparing records built before, {records}", m["octodns_compare"], "s"),
            Figure(
                f"octoDNS with its desired zone built too, {records}",
                m["octodns_both_and_plan"],
                "s",
            ),
            Figure(
                f"{same}: compare records built before",
                times("octodns_compare", "compare"),
                "times",
            ),
            Figure(
                f"{same}: read the answers, compare",
                times("octodns_plan", "read_and_compare"),
                "times",
            ),
            Figure(
                f"{same}: both from plain values",
                times("octodns_both_and_plan", "both_read_and_compare"),
                "times",
            ),
        ],
        m,
    )


BENCHMARK = Benchmark("octodns", "octoDNS planning the same zone", run)
