"""Processor time of a process and everything that it started, from /proc (Linux)."""

import os
from pathlib import Path

_TICKS = os.sysconf("SC_CLK_TCK")


def tree(root: int) -> dict[int, float]:
    """A process and all its descendants: processor seconds so far, with those waited for."""
    parents: dict[int, int] = {}
    seconds: dict[int, float] = {}
    for path in Path("/proc").glob("[0-9]*/stat"):
        try:
            fields = path.read_text().rpartition(")")[2].split()
        except OSError:
            continue
        pid = int(path.parent.name)
        parents[pid] = int(fields[1])
        # utime, stime, and of children that were waited for: cutime, cstime.
        seconds[pid] = sum(int(field) for field in fields[11:15]) / _TICKS
    found = {root: seconds[root]}
    grew = True
    while grew:
        new = {p: seconds[p] for p, parent in parents.items() if parent in found and p not in found}
        found |= new
        grew = bool(new)
    return found


def spent(root: int) -> float:
    """Processor seconds of the whole tree; those of the ended move to whoever waited for them."""
    return sum(tree(root).values())
