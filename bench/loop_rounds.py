"""Two deployments side by side that take turns: warm worker and default launcher.

First minutes in which each has a quiet tick whose processor time is counted, and seconds in which
nothing happens; then rounds in which a record is broken in the one, a tick asked for and its repair
awaited, and after that in the other. Never both at the same time.
"""

import statistics
import time
from contextlib import ExitStack
from itertools import pairwise
from typing import Any

from bench.controller import Controller, controller
from bench.deployment import Deployment, until
from bench.processes import spent
from zlh_dagster.sandbox.fleet import game_vmid

SERVERS = 20
WARM, COLD = "celery", "default"
LAUNCHERS = (WARM, COLD)
_QUIET_AT, _IDLE_AT, _NEAR_AT, _END_AT = 35.0, 48.0, 53.5, 59.5
"""Seconds of a minute: the tick is asked for, it is over, the schedule is due soon, it is due."""

_NEAR_SECONDS = 6.0
_AFTER_THE_LAST = 20.0
"""Second at which a tick of the minute's schedule is long over."""

_REPAIR_SECONDS = 110.0


def measure(rounds: int, minutes: int) -> dict[str, Any]:
    """Seconds and processor seconds of both: a repair each round, a quiet tick each minute."""
    with ExitStack() as stack:
        loops: dict[str, Controller] = {}
        for launcher in LAUNCHERS:
            deployment = Deployment(SERVERS, ZLH_RUN_LAUNCHER=launcher)
            stack.callback(deployment.close)
            loops[launcher] = stack.enter_context(controller(deployment))
        # The other one's schedule goes on while the stack is idle, for that is a part of idling.
        loops[COLD].rest()
        loops[COLD].wait(loops[COLD].tick()[1])
        loops[WARM].wait(loops[WARM].tick()[1])
        samples: dict[str, dict[str, list[float]]] = {
            launcher: {"repair": [], "tick": [], "idle": [], "near": []} for launcher in LAUNCHERS
        }
        for _ in range(minutes):
            _minute(loops, samples)
        loops[WARM].rest()
        _sleep_until(_AFTER_THE_LAST)
        for number in range(rounds):
            for launcher, loop in loops.items():
                samples[launcher]["repair"].append(_repaired(loop, _minecraft(number)))
    return {"samples": samples, **{launcher: _summary(s) for launcher, s in samples.items()}}


def _minute(loops: dict[str, Controller], samples: dict[str, dict[str, list[float]]]) -> None:
    _sleep_until(_QUIET_AT)
    marks = [_spent(loops)]
    for loop in loops.values():
        loop.tick()
    for second in (_IDLE_AT, _NEAR_AT, _END_AT):
        _sleep_until(second)
        marks.append(_spent(loops))
    for launcher in LAUNCHERS:
        quiet, idle, near = (
            after[launcher] - before[launcher] for before, after in pairwise(marks)
        )
        samples[launcher]["tick"].append(quiet)
        samples[launcher]["idle"].append(idle / (_NEAR_AT - _IDLE_AT))
        samples[launcher]["near"].append(near / (_END_AT - _NEAR_AT))


def _summary(samples: dict[str, list[float]]) -> dict[str, float]:
    idle = statistics.mean(samples["idle"])
    near = statistics.mean(samples["near"])
    window = _IDLE_AT - _QUIET_AT
    ticks = [quiet - idle * window for quiet in samples["tick"]]
    return {
        "repair_median": statistics.median(samples["repair"]),
        "repair_worst": max(samples["repair"]),
        "tick_processor": statistics.median(ticks),
        "idle_share": (idle * (60 - _NEAR_SECONDS) + near * _NEAR_SECONDS) / 60,
        "idle_share_after": idle,
        "idle_share_before_a_tick": near,
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


def _spent(loops: dict[str, Controller]) -> dict[str, float]:
    return {launcher: spent(loop.pid) for launcher, loop in loops.items()}


def _sleep_until(second: float) -> None:
    """Until that second of a minute: this one, or the next when it is over."""
    time.sleep((second - time.time() % 60) % 60)
