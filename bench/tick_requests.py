"""How many requests one tick makes, counted at the edge, and how large its snapshots are."""

from collections import Counter
from pathlib import Path
from typing import Any

from bench.deployment import Deployment
from bench.harness import MEBIBYTE, TICKS_A_DAY, Benchmark, Figure, Result
from zlh_dagster.resources.ticks import take_tick

SIZES, SMALL_SIZES = (10, 1_000, 10_000), (10,)
LISTINGS = 4
"""One of each system that lists: Cloudflare, Technitium, Velocity, Proxmox."""

AGENTS = "agents"
ONE_PROCESS = {"ZLH_AGENT_SHARD_SIZE": "100000"}
"""All agents are asked by the tick itself; in shards each would ask its part of them."""


def measure(servers: int) -> dict[str, Any]:
    """One tick of a fleet in step, by surface."""
    with Deployment(servers, **ONE_PROCESS) as deployment, deployment.services() as services:
        deployment.control.delete("/requests")
        taken = list(take_tick(services, "benchmark", warn=_refuse))
        files = [Path(path) for _, path in taken]
        counts = Counter(entry["surface"] for entry in deployment.requests())
        return {
            "servers": servers,
            "by_surface": dict(counts),
            "listings": sum(counts.values()) - counts[AGENTS],
            AGENTS: counts[AGENTS],
            "seconds": {s.source: round(s.seconds, 3) for s, _ in taken},
            "snapshots": sum(path.stat().st_size for path in files),
        }


def _refuse(warning: str) -> None:
    raise RuntimeError(warning)


def run(small: bool) -> Result:
    """The same number for any fleet, but for pages that are full."""
    measures = [measure(servers) for servers in (SMALL_SIZES if small else SIZES)]
    figures = []
    for m in measures:
        listed = ", ".join(f"{n} {s}" for s, n in sorted(m["by_surface"].items()) if s != AGENTS)
        fleet = f"{m['servers']:,} servers"
        aim = LISTINGS if m["servers"] <= 1_000 else None
        figures += [
            Figure(f"requests of a tick, {fleet}", m["listings"], "calls", aim, note=listed),
            Figure(f"agents asked in a tick, {fleet}", m[AGENTS], "calls"),
            Figure(f"snapshots of a day, {fleet}", TICKS_A_DAY * m["snapshots"] / MEBIBYTE, "MiB"),
        ]
    return Result(figures, {"measures": measures})


BENCHMARK = Benchmark("requests", "requests of one tick", run)
