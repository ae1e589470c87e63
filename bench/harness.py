"""What every benchmark shares: figures with units and aims, processes of their own, clocks."""

import json
import statistics
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parents[1]
MEBIBYTE = 2**20
TICKS_A_DAY = 1_440


@dataclass(frozen=True, slots=True)
class Figure:
    """One number.

    Attributes:
        name: What was measured, in words; unique among all figures.
        value: The measure.
        unit: Of value and aim.
        aim: The limit, or ``None`` for what is shown only for comparison.
        at_least: Whether the aim is a lower limit.
        note: What to know of it.
    """

    name: str
    value: float
    unit: str
    aim: float | None = None
    at_least: bool = False
    note: str = ""

    @property
    def met(self) -> bool | None:
        if self.aim is None:
            return None
        return self.value >= self.aim if self.at_least else self.value <= self.aim

    @property
    def aim_text(self) -> str:
        """The aim in words."""
        if self.aim is None:
            return "-"
        return f"{'at least' if self.at_least else 'at most'} {number(self.aim)} {self.unit}"

    @property
    def line(self) -> str:
        """The figure as one line."""
        verdict = {None: "", True: ", met", False: ", MISSED"}[self.met]
        aim = "" if self.aim is None else f"  (aim: {self.aim_text}{verdict})"
        note = f"  ({self.note})" if self.note else ""
        return f"{self.name}: {number(self.value)} {self.unit}{note}{aim}"

    def to_json(self) -> dict[str, Any]:
        return asdict(self)

    @staticmethod
    def from_json(value: dict[str, Any]) -> "Figure":
        return Figure(**value)


@dataclass(frozen=True, slots=True)
class Result:
    """What one benchmark found; the details are what plots are drawn from."""

    figures: list[Figure]
    details: dict[str, Any] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Benchmark:
    """A benchmark by name.

    Attributes:
        run: Does it; given whether the smallest size is enough, to see that it works.
    """

    name: str
    what: str
    run: Callable[[bool], Result]


@dataclass(frozen=True, slots=True)
class Spent:
    """Seconds of several runs of the same work, and what the first one returned."""

    wall: list[float]
    processor: list[float]
    value: Any

    @property
    def median(self) -> float:
        return statistics.median(self.wall)

    @property
    def least_processor(self) -> float:
        """The least of the processor seconds: what a shared machine disturbs least."""
        return min(self.processor)


def clock(work: Callable[[], Any], *, times: int) -> Spent:
    """Runs the work several times, on the wall clock and this process's processor clock."""
    wall, processor, value = [], [], None
    for turn in range(times):
        began, spent = time.perf_counter(), time.process_time()
        result = work()
        wall.append(time.perf_counter() - began)
        processor.append(time.process_time() - spent)
        if turn == 0:
            value = result
        del result
    return Spent(wall, processor, value)


def in_own_process(function: str, *arguments: Any) -> Any:
    """Calls ``module:function`` in a fresh process and returns its result, which is JSON.

    Memory is counted for each process, and one measure does not warm up the next one.
    """
    command = [sys.executable, "-m", "bench.child", function, json.dumps(arguments)]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    if done.returncode:
        raise RuntimeError(f"{function}{arguments} failed:\n{done.stderr[-4000:]}")
    return json.loads(done.stdout.splitlines()[-1])


def number(value: float) -> str:
    """A number with three digits that count."""
    if value == int(value) and abs(value) < 1e15:
        return f"{int(value):,}"
    return f"{value:,.0f}" if abs(value) >= 100 else f"{value:.3g}"


def say(text: str) -> None:
    """The one place that prints."""
    print(text, flush=True)  # noqa: T201 - benchmarks talk to whoever runs them
