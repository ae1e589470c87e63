"""Two deployments side by side that take turns: warm worker and default launcher.

First whole minutes, in turn with the schedule of ticks at work and without it: the difference is
what a tick costs, its schedule, its start and its judgement included. Then rounds in which a record
is broken in the one, a tick asked for and its repair awaited, and after that in the other. Never
both at the same time.
"""

import statistics
import time
from contextlib import ExitStack
from typing import Any

from bench.controller import Controller, controller
from bench.deployment import Deployment, until
from bench.processes import spent
from zlh_dagster.sandbox.fleet import game_vmid

SERVERS = 20
WARM, COLD = "celery", "default"
LAUNCHERS = (WARM, COLD)
_TURN_AT = 20.0
"""Second at which one minute's count ends and the next begins: the minute's tick is long over, and
the sensor does not wait for the next one yet."""

_MINUTE = 60.0
_TO_STOP = 1.0
"""Seconds of it in which the schedule is stopped again."""

_REPAIR_SECONDS, _FIRST_TICK_SECONDS = 110.0, 120.0


def measure(rounds: int, minutes: int) -> dict[str, Any]:
    """Seconds and processor seconds of both.

    Args:
        rounds: How many repairs.
        minutes: How many minutes, the first with a tick, the second without, and so on.
    """
    with ExitStack() as stack:
        loops: dict[str, Controller] = {}
        for launcher in LAUNCHERS:
            deployment = Deployment(SERVERS, ZLH_RUN_LAUNCHER=launcher)
            stack.callback(deployment.close)
            loops[launcher] = stack.enter_context(controller(deployment, web=True))
        for loop in loops.values():
            loop.rest()
            loop.resume()
        # The first tick of all is not counted: whatever is loaded late is loaded then.
        until(
            lambda: all(loop.ticks() for loop in loops.values()),
            seconds=_FIRST_TICK_SECONDS,
            what="the first tick of both",
        )
        _sleep_until(_TURN_AT)
        for loop in loops.values():
            loop.rest()
        samples: dict[str, dict[str, list[float]]] = {
            launcher: {"repair": [], "with_tick": [], "without": []} for launcher in LAUNCHERS
        }
        for minute in range(minutes):
            ticks = minute % 2 == 0
            for launcher, seconds in _minute(loops, ticks=ticks).items():
                samples[launcher]["with_tick" if ticks else "without"].append(seconds)
        for number in range(rounds):
            for launcher, loop in loops.items():
                samples[launcher]["repair"].append(_repaired(loop, _minecraft(number)))
    return {"samples": samples, **{launcher: summary(s) for launcher, s in samples.items()}}


def _minute(loops: dict[str, Controller], *, ticks: bool) -> dict[str, float]:
    """Processor seconds of the minute that begins, by launcher, with one tick in it or none."""
    ends = time.time() + _MINUTE
    before = {launcher: (spent(loop.pid), loop.ticks()) for launcher, loop in loops.items()}
    if ticks:
        for loop in loops.values():
            loop.resume()
    time.sleep(_MINUTE - _TO_STOP)
    if ticks:
        for loop in loops.values():
            loop.rest()
    time.sleep(max(ends - time.time(), 0.0))
    after = {launcher: (spent(loop.pid), loop.ticks()) for launcher, loop in loops.items()}
    for launcher, (_, count) in after.items():
        if count - before[launcher][1] != int(ticks):
            raise RuntimeError(f"{launcher}: {count - before[launcher][1]} ticks in a minute")
    return {launcher: after[launcher][0] - before[launcher][0] for launcher in loops}


def summary(samples: dict[str, list[float]]) -> dict[str, float | None]:
    """What a launcher's samples say, in seconds.

    Args:
        samples: Seconds of each ``repair``; processor seconds of each minute ``with_tick`` and
            ``without``.

    Returns:
        Among others ``tick_processor`` and ``tick_give_or_take``, the standard error of that
        difference of two means; null for fewer than two minutes of a kind.
    """
    ticks, idle = samples["with_tick"], samples["without"]
    spread = None
    if min(len(ticks), len(idle)) > 1:
        spread = sum(statistics.variance(kind) / len(kind) for kind in (ticks, idle)) ** 0.5
    return {
        "repair_median": statistics.median(samples["repair"]),
        "repair_worst": max(samples["repair"]),
        "tick_processor": statistics.mean(ticks) - statistics.mean(idle),
        "tick_give_or_take": spread,
        "idle_share": statistics.mean(idle) / _MINUTE,
    }


def _repaired(loop: Controller, server: int) -> float:
    """Seconds from a tick until the repair of a server stands in the ledger as succeeded."""
    ledger = loop.deployment.ledger
    loop.deployment.break_srv(_srv(server))
    loop.until_near_a_look()
    asked, run_id = loop.tick()

    def row() -> dict[str, Any] | None:
        rows = [e for e in ledger.events(vmid=server) if e["finishedAt"]]
        return rows[0] if rows else None

    found = until(row, seconds=_REPAIR_SECONDS, what=f"the repair of {server}")
    if found is None or found["status"] != "succeeded":
        raise RuntimeError(f"the repair of {server} ended as {found}")
    loop.wait(run_id)
    loop.wait(str(found["runId"]))
    return float(found["finishedAt"].timestamp() - asked)


def _minecraft(number: int) -> int:
    """The nth server that is Minecraft: every fifth one is not."""
    return game_vmid(number + number // 4)


def _srv(vmid: int) -> str:
    return f"_minecraft._tcp.mc-{vmid}.example.gg"


def _sleep_until(second: float) -> None:
    """Until that second of a minute: this one, or the next when it is over."""
    time.sleep((second - time.time() % 60) % 60)
