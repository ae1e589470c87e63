"""Ten thousand agents asked at once, one in a hundred silent."""

import time
from typing import Any

from bench.deployment import Deployment
from bench.harness import Benchmark, Figure, Result
from bench.tick_requests import ONE_PROCESS
from zlh_dagster.resources.observe import observe_agents, observe_payloads

AGENTS, SMALL_AGENTS = 10_000, 50
SILENT_EVERY = 100
AIM = 10.0
TIMES = 3


def measure(agents: int, times: int) -> dict[str, Any]:
    """The asset `agents` of one tick, by the wall and by this process's processor clock."""
    with Deployment(agents, **ONE_PROCESS) as deployment, deployment.services() as services:
        payloads = observe_payloads(services, "benchmark")
        games = payloads.rows.loc[payloads.rows["ctype"] == "game", "vmid"]
        silent = [int(vmid) for vmid in games.iloc[::SILENT_EVERY]]
        for vmid in silent:
            answer = deployment.control.put(f"/agents/{vmid}", json={"mode": "silent"})
            answer.raise_for_status()
        wall, processor, answers = [], [], {}
        for _ in range(times):
            began, spent = time.perf_counter(), time.process_time()
            seen = observe_agents(services, payloads)
            wall.append(time.perf_counter() - began)
            processor.append(time.process_time() - spent)
            answers = {str(k): int(n) for k, n in seen.rows["answer"].value_counts().items()}
        if answers.get("silent") != len(silent) or len(answers) != 2:
            raise RuntimeError(f"{len(silent)} are silent, seen was {answers}")
        return {"agents": agents, "wall": wall, "processor": processor, "answers": answers}


def run(small: bool) -> Result:
    """The median of several rounds."""
    m = measure(SMALL_AGENTS if small else AGENTS, 1 if small else TIMES)
    wall = sorted(m["wall"])[len(m["wall"]) // 2]
    what = f"{m['agents']:,} agents, 1 in {SILENT_EVERY} silent"
    return Result(
        [
            Figure(what, wall, "s", AIM),
            Figure(f"processor time of asking {m['agents']:,} agents", min(m["processor"]), "s"),
        ],
        m,
    )


BENCHMARK = Benchmark("agents", "all agents asked at once", run)
