"""Compare and judge at growing fleets, four records for each server."""

import resource
import tempfile
from pathlib import Path
from typing import Any

import pandas as pd

from bench import worlds
from bench.harness import MEBIBYTE, Benchmark, Figure, Result, clock, in_own_process
from zlh_dagster.core.compare import compare
from zlh_dagster.core.judge import judge
from zlh_dagster.core.policy import PolicyConfig

SIZES, SMALL_SIZES = (1_000, 10_000, 100_000, 1_000_000), (20, 200)
SECONDS_AIM, GROWTH_AIM = 1.5, 1.3


def prepare(servers: int, directory: str) -> None:
    """Writes the snapshots; in another process, so that its memory is not counted."""
    worlds.write_tick(servers, Path(directory))


def measure(servers: int, directory: str) -> dict[str, Any]:
    """Compare and judge one fleet; the snapshots were read from Parquet before the clock starts."""
    tick = worlds.read_tick(Path(directory))
    times, times_judged = (2, 1) if servers > 100_000 else (5, 5)
    before = _peak()
    rows = [snapshot.rows for snapshot in tick.surfaces.values() if len(snapshot.rows)]
    observed = pd.concat(rows, ignore_index=True)
    comparing = clock(lambda: compare(tick.desired.rows, observed), times=times)
    compared = _peak()
    judging = clock(
        lambda: judge(tick, edge=worlds.EDGE, policy=PolicyConfig()), times=times_judged
    )
    return {
        "servers": servers,
        "records": len(tick.desired.rows),
        "drifting": len(comparing.value),
        "compare_seconds": comparing.median,
        "compare_processor_seconds": comparing.least_processor,
        "judge_seconds": judging.median,
        "judge_processor_seconds": judging.least_processor,
        "snapshots_mib": before,
        "compare_mib": compared,
        "judge_mib": _peak(),
    }


def _measured(servers: int) -> dict[str, Any]:
    with tempfile.TemporaryDirectory() as directory:
        in_own_process("bench.compare:prepare", servers, directory)
        found: dict[str, Any] = in_own_process("bench.compare:measure", servers, directory)
    return found


def _peak() -> float:
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024 / MEBIBYTE


def run(small: bool) -> Result:
    """Every size in a process of its own, which has read its snapshots and made none."""
    sizes = SMALL_SIZES if small else SIZES
    measures = [_measured(servers) for servers in sizes]
    figures = []
    for m in measures:
        fleet = f"{m['servers']:,} servers"
        aim = SECONDS_AIM if m["servers"] == 100_000 else None
        figures += [
            Figure(f"compare, {fleet}", m["compare_seconds"], "s", aim),
            Figure(f"compare and decide, {fleet}", m["judge_seconds"], "s"),
            Figure(f"peak memory with the snapshots, {fleet}", m["judge_mib"], "MiB"),
        ]
    first, last = measures[-3] if len(measures) > 2 else measures[0], measures[-1]
    times_larger = last["servers"] / first["servers"]
    span = f"{first['servers']:,} to {last['servers']:,} servers"
    for what, key, aim in (
        ("compare", "compare_processor_seconds", GROWTH_AIM),
        ("compare and decide", "judge_processor_seconds", None),
    ):
        growth = last[key] / first[key] / times_larger
        figures.append(Figure(f"growth of {what} against linear, {span}", growth, "times", aim))
    return Result(figures, {"measures": measures})


BENCHMARK = Benchmark("compare", "compare and decide at growing fleets", run)
