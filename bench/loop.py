"""From a tick to a verified repair, and what ticks cost, with and without the warm worker."""

from typing import Any

from bench.harness import Benchmark, Figure, Result, number
from bench.loop_rounds import COLD, WARM, measure

ROUNDS, SMALL_ROUNDS = 10, 1
MINUTES, SMALL_MINUTES = 4, 2
SECONDS_AIM, RATIO_AIM = 5.0, 4.0
PROCESSOR_AIM, IDLE_AIM = 0.5, 10.0


def run(small: bool) -> Result:
    """Repairs in turn, and what minutes with a tick and without one cost."""
    rounds = SMALL_ROUNDS if small else ROUNDS
    m = measure(rounds, SMALL_MINUTES if small else MINUTES)
    warm, cold = m[WARM], m[COLD]
    of = f"of {rounds}"
    repair, tick = "tick to verified repair", "processor time of a tick, whole stack"
    ratio, idle = "warm against default launcher", "processor share without ticks, whole stack"
    return Result(
        [
            Figure(f"{repair}, warm, median {of}", warm["repair_median"], "s", SECONDS_AIM),
            Figure(f"{repair}, warm, worst {of}", warm["repair_worst"], "s"),
            Figure(f"{repair}, default launcher, median {of}", cold["repair_median"], "s"),
            Figure(f"{repair}, default launcher, worst {of}", cold["repair_worst"], "s"),
            Figure(
                f"{repair}, {ratio}",
                cold["repair_median"] / warm["repair_median"],
                "times",
                RATIO_AIM,
                at_least=True,
            ),
            Figure(f"{tick}, warm", warm["tick_processor"], "s", PROCESSOR_AIM, note=_spread(warm)),
            Figure(f"{tick}, default launcher", cold["tick_processor"], "s", note=_spread(cold)),
            Figure(f"{idle}, warm", 100 * warm["idle_share"], "% of a core", IDLE_AIM),
            Figure(f"{idle}, default launcher", 100 * cold["idle_share"], "% of a core"),
        ],
        m,
    )


def _spread(summary: dict[str, Any]) -> str:
    spread = summary["tick_give_or_take"]
    return "of one minute" if spread is None else f"give or take {number(spread)} s"


BENCHMARK = Benchmark("loop", "tick to repair, and what ticks cost, both launchers", run)
