"""A Velocity restart with a thousand servers: every registration is lost at once."""

import time
from typing import Any

import dagster as dg

from bench.controller import controller
from bench.deployment import Deployment, until
from bench.harness import Benchmark, Figure, Result
from zlh_dagster.jobs.level1_repair import LEVEL1_REPAIR

SERVERS, SMALL_SERVERS = 1_250, 10
"""Four of five servers are Minecraft: a thousand registrations."""

AIM = 20.0
_SECONDS = 180.0


def measure(servers: int) -> dict[str, Any]:
    """From a tick's start until every ledger row is closed; real processes, warm worker."""
    with Deployment(servers) as deployment, controller(deployment) as loop:
        loop.rest()
        loop.wait(loop.tick()[1])
        registered = _registered(deployment)
        deployment.control.put("/velocity/restart").raise_for_status()
        if _registered(deployment):
            raise RuntimeError("Velocity remembers")
        began, tick = loop.tick()
        until(
            lambda: _registered(deployment) == registered,
            seconds=_SECONDS,
            what=f"{registered} registrations",
        )
        all_there = time.time() - began
        until(
            lambda: len(_finished(deployment)) == registered,
            seconds=_SECONDS,
            what="the last ledger row",
        )
        finished = [row["finishedAt"].timestamp() - began for row in _finished(deployment)]
        loop.wait(tick)
        runs = loop.instance.get_runs(dg.RunsFilter(job_name=LEVEL1_REPAIR))
        return {
            "registered": registered,
            "seconds_registered": all_there,
            "seconds_verified": max(finished),
            "runs": len(runs),
            "statuses": sorted({row["status"] for row in _finished(deployment)}),
        }


def _registered(deployment: Deployment) -> int:
    state = deployment.control.get("/state").json()
    return int(state["velocity"]["servers"])


def _finished(deployment: Deployment) -> list[dict[str, Any]]:
    return [e for e in deployment.ledger.events(limit=10_000) if e["finishedAt"]]


def run(small: bool) -> Result:
    """One restart."""
    m = measure(SMALL_SERVERS if small else SERVERS)
    if m["statuses"] != ["succeeded"]:
        raise RuntimeError(f"repairs ended as {m['statuses']}")
    lost = f"Velocity restart, {m['registered']:,} registrations"
    return Result(
        [
            Figure(f"{lost}: all there again", m["seconds_registered"], "s", AIM),
            Figure(f"{lost}: all verified", m["seconds_verified"], "s"),
            Figure(f"{lost}: repair runs", m["runs"], "runs", 1),
        ],
        m,
    )


BENCHMARK = Benchmark("velocity", "a Velocity restart, repaired in one run", run)
