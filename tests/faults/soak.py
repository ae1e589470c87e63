"""Faults at random from a seed, for so many minutes: `make soak ARGS="--seed 7 --minutes 60"`.

After each one the loop must be back by itself and no law broken. In the end no secret stands
anywhere, and memory and open files of the processes that lived all the time have not grown.
"""

import argparse
import json
import random
import re
import statistics
import sys
import tempfile
import time
from collections import defaultdict
from pathlib import Path

from tests.faults import usage
from tests.faults.catalogue import ALL
from tests.faults.rig import Rig, Seen
from tests.stack.planted import files, leaks, redis_keys, web_pages

RESULTS = Path(__file__).parents[2] / "bench" / "results" / "soak.json"


def main() -> int:
    """Runs until the time is over or every fault was met so often; prints each."""
    parser = argparse.ArgumentParser(prog="soak", description=__doc__)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--minutes", type=float, default=20.0)
    parser.add_argument("--only", default="", help="only faults whose name matches")
    given = parser.parse_args()
    chance = random.Random(given.seed)
    faults = []
    for fault in ALL:
        if not fault.possible():
            _say(f"not possible here: {fault.name}")
        elif re.search(given.only, fault.name):
            faults.append(fault)
    if not faults:
        parser.error(f"no fault's name matches {given.only!r}")
    with tempfile.TemporaryDirectory(prefix="zlh-") as directory:
        rig = Rig(Path(directory))
        try:
            rig.start()
            seen, looks, problems = _endure(rig, faults, chance, seconds=given.minutes * 60)
            use = list(usage.judge(looks))
            problems += [*(text for text, bad in use if bad), *_leaked(rig)]
        finally:
            rig.close()
    for text, _ in use:
        _say(text)
    for problem in problems:
        _say(f"PROBLEM: {problem}")
    RESULTS.parent.mkdir(exist_ok=True)
    result = {"seed": given.seed, "faults": _table(seen), "problems": problems}
    result["use"] = [text for text, _ in use]
    RESULTS.write_text(json.dumps(result, indent=1))
    _say(f"{len(seen)} faults, {len(_table(seen))} kinds, {len(problems)} problems")
    return 1 if problems else 0


def _endure(rig: Rig, faults: list, chance: random.Random, *, seconds: float) -> tuple:
    """Every fault once in a random order, then again, until the time is over.

    One that the loop does not endure is a problem; the others are met all the same, as long as the
    edge comes to be as desired at all.
    """
    seen: list[Seen] = []
    problems: list[str] = []
    looks: list[dict[str, usage.Use]] = []
    give_up = time.monotonic() + seconds
    left: list = []
    while time.monotonic() < give_up:
        left = left or chance.sample(faults, len(faults))
        fault = left.pop()
        try:
            one = rig.endure(fault)
        except Exception as error:  # noqa: BLE001 - the hour goes on
            problems.append(f"{fault.name}: {type(error).__name__}: {error}")
            _say(f"PROBLEM: {problems[-1]}")
            if not rig.recovers():
                problems.append(f"{fault.name}: the loop did not come back at all")
                break
            continue
        seen.append(one)
        looks.append(usage.look(rig))
        statuses = ", ".join(f"{n} {status}" for status, n in sorted(one.statuses.items()))
        _say(f"{fault.name}: back after {one.seconds:.1f} s; {statuses}; told {len(one.titles)}")
    return seen, looks, problems


def _leaked(rig: Rig) -> list[str]:
    """Where a secret stands that the controllers were given."""
    told = [(f"Discord {m.id}", str(m.payload).encode()) for m in rig.sandbox.edge.discord.inbox()]
    places = [*files(rig.directory), *redis_keys(rig.redis.url), *told]
    for controller in rig.controllers:
        places += web_pages(f"http://127.0.0.1:{controller.environment['ZLH_WEB_PORT']}")
    return leaks(rig.controllers[0].environment, places)


def _table(seen: list[Seen]) -> list[dict[str, object]]:
    """One row for each kind of fault."""
    by_fault: dict[str, list[Seen]] = defaultdict(list)
    for one in seen:
        by_fault[one.fault].append(one)
    promises = {fault.name: fault.promise for fault in ALL}
    return [
        {
            "fault": name,
            "promise": promises[name],
            "times": len(ones),
            "median": round(statistics.median(one.seconds for one in ones), 1),
            "worst": round(max(one.seconds for one in ones), 1),
            "rows": _rows(ones),
        }
        for name, ones in sorted(by_fault.items())
    ]


def _rows(ones: list[Seen]) -> str:
    """How many rows of each status one fault left, such as ``1 succeeded, 0 to 2 failed``."""
    counts = {status: [one.statuses[status] for one in ones] for o in ones for status in o.statuses}
    return ", ".join(
        f"{min(found)} {status}"
        if min(found) == max(found)
        else f"{min(found)} to {max(found)} {status}"
        for status, found in sorted(counts.items())
    )


def _say(text: str) -> None:
    sys.stdout.write(f"{text}\n")
    sys.stdout.flush()


if __name__ == "__main__":
    sys.exit(main())
