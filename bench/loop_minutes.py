"""Two deployments side by side, one minute after the other: warm worker and default launcher.

Each minute holds, one after the other and never at the same time: a scheduled tick of the warm
deployment that finds a broken record, a tick of the other one that does, a quiet tick of each whose
processor time is counted, and seconds in which nothing happens.
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
_COLD_AT, _QUIET_AT, _IDLE_AT, _NEAR_AT, _END_AT = 8.0, 35.0, 48.0, 53.5, 59.5
_NEAR_SECONDS = 6.0
_REPAIR_SECONDS = 50.0


def measure(minutes: int) -> dict[str, Any]:
    """Seconds and processor seconds of both, a sample a minute."""
    with ExitStack() as stack:
        loops: dict[str, Controller] = {}
        for launcher in LAUNCHERS:
            # Its schedule rests from before the first full minute on, the warm one's goes on.
            deployment = Deployment(SERVERS, ZLH_RUN_LAUNCHER=launcher)
            stack.callback(deployment.close)
            loops[launcher] = stack.enter_context(controller(deployment))
        loops[COLD].rest()
        loops[COLD].wait(loops[COLD].tick()[1])
        loops[WARM].wait(loops[WARM].tick()[1])
        samples: dict[str, dict[str, list[float]]] = {
            launcher: {"repair": [], "tick": [], "idle": [], "near": []} for launcher in LAUNCHERS
        }
        for minute in range(minutes):
            _minute(loops, samples, server=_minecraft(minute))
    return {"samples": samples, **{launcher: _summary(s) for launcher, s in samples.items()}}


def _minute(
    loops: dict[str, Controller], samples: dict[str, dict[str, list[float]]], *, server: int
) -> None:
    warm, cold = loops[WARM], loops[COLD]
    _sleep_until(_NEAR_AT - 1)
    warm.deployment.break_srv(_srv(server))
    full = (time.time() // 60 + 1) * 60
    samples[WARM]["repair"].append(_verified(warm, server, since=full))
    _sleep_until(_COLD_AT)
    cold.deployment.break_srv(_srv(server))
    asked, _ = cold.tick()
    samples[COLD]["repair"].append(_verified(cold, server, since=asked))
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


def _verified(loop: Controller, server: int, *, since: float) -> float:
    """Seconds until the repair of a server stands in the ledger as succeeded."""
    ledger = loop.deployment.ledger

    def row() -> dict[str, Any] | None:
        rows = [e for e in ledger.events(vmid=server) if e["finishedAt"]]
        return rows[0] if rows else None

    found = until(row, seconds=_REPAIR_SECONDS + 60, what=f"the repair of {server}")
    if found is None or found["status"] != "succeeded":
        raise RuntimeError(f"the repair of {server} ended as {found}")
    return float(found["finishedAt"].timestamp() - since)


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
