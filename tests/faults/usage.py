"""Memory and open files of the processes of the rig, over all faults that they lived through."""

import contextlib
import os
import statistics
from collections import defaultdict
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from tests.faults.rig import PARTS, Rig
from tests.stack.stack import children_of

GROWTH = 1.25
"""Memory and open files may end at so many times what they were after the first faults."""

TAKEN_OVER = 12
"""So many files more may be open at the end: what a standby opens when it first leads.

The code server of the first leader has 24 open from the start, the standby's 15 until it leads.
"""

WARM = 5
"""So many looks make a figure, the median of them."""

_ENOUGH = 8 * WARM
"""After so many faults each part must have lived long enough somewhere to be judged."""


@dataclass(frozen=True, slots=True)
class Use:
    """What a process and all below it take: resident memory, and open files."""

    pid: int
    kib: int
    files: int


def look(rig: Rig) -> dict[str, Use]:
    """What each part takes now: those of both deployments, their supervisors, and Redis."""
    found = {}
    for controller in rig.controllers:
        for part in PARTS:
            with contextlib.suppress(OSError, AssertionError):
                pid = controller.pid(part)
                found[f"{controller.name} {part}"] = _use(pid, {pid, *children_of(pid)})
        if controller.process is not None:
            pid = controller.process.pid
            with contextlib.suppress(OSError):
                found[f"{controller.name} supervisor"] = _use(pid, {pid})
    with contextlib.suppress(OSError, AssertionError):
        found["Redis"] = _use(rig.redis.pid, {rig.redis.pid})
    return found


def judge(looks: list[dict[str, Use]]) -> Iterator[tuple[str, bool]]:
    """What became of each part, and whether it is a problem.

    Of a part the process counts that lived through the most faults.
    """
    lives: dict[str, dict[int, list[Use]]] = defaultdict(lambda: defaultdict(list))
    for uses in looks:
        for part, use in uses.items():
            lives[part][use.pid].append(use)
    for part, by_process in sorted(lives.items()):
        longest = max(by_process.values(), key=len)
        if len(longest) < 2 * WARM:
            yield f"{part} lived through {len(longest)} faults at most", len(looks) >= _ENOUGH
            continue
        for what, figures, more in (
            ("MiB", [use.kib / 1024 for use in longest], 0),
            ("open files", [float(use.files) for use in longest], TAKEN_OVER),
        ):
            before, after = statistics.median(figures[:WARM]), statistics.median(figures[-WARM:])
            text = f"{part}, {len(longest)} faults: from {before:.0f} to {after:.0f} {what}"
            yield text, after > GROWTH * before + more


def _use(pid: int, family: set[int]) -> Use:
    kib, files = 0, 0
    for one in family:
        with contextlib.suppress(OSError):
            status = Path(f"/proc/{one}/status").read_text()
            kib += int(status.partition("VmRSS:")[2].split()[0])
            files += len(os.listdir(f"/proc/{one}/fd"))
    return Use(pid, kib, files)
