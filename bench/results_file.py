"""The file of results: one for the last run, and one that the document shows."""

import json
from collections.abc import Iterable
from datetime import datetime, timezone
from pathlib import Path
from typing import Any

from bench.harness import ROOT, Figure, Result
from bench.machine import describe

LATEST = ROOT / "bench/results/latest.json"
PUBLISHED = ROOT / "bench/results/published.json"


def read(path: Path) -> dict[str, Any]:
    """Results by benchmark, with the machine that they were had on."""
    if not path.exists():
        return {"machine": {}, "benchmarks": {}}
    value: dict[str, Any] = json.loads(path.read_text())
    return value


def keep(name: str, result: Result, *, seconds: float, run: str, path: Path = LATEST) -> None:
    """Puts the results of one benchmark in place of its last ones.

    Args:
        name: Of the benchmark.
        result: What it found.
        seconds: How long it took.
        run: Which call of `make bench` this was: figures of two are not published side by side.
        path: Of the file.
    """
    known = read(path)
    known["machine"] = describe()
    known["benchmarks"][name] = {
        "run": run,
        "measured_at": datetime.now(timezone.utc).isoformat(timespec="minutes"),
        "seconds": round(seconds, 1),
        "figures": [figure.to_json() for figure in result.figures],
        "details": result.details,
    }
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(known, indent=1, sort_keys=True) + "\n")


def figures(results: dict[str, Any], name: str) -> list[Figure]:
    """The figures of one benchmark."""
    return [Figure.from_json(f) for f in results["benchmarks"][name]["figures"]]


def mixed(results: dict[str, Any], names: Iterable[str]) -> str | None:
    """Why results are not one whole run's, or ``None`` if they are."""
    benchmarks = results["benchmarks"]
    missing = sorted(set(names) - set(benchmarks))
    if missing:
        return f"not measured: {', '.join(missing)}"
    newest = max(benchmarks.values(), key=lambda one: str(one["measured_at"])).get("run", "")
    others = sorted(name for name, one in benchmarks.items() if one.get("run") != newest)
    return f"of another run than the newest: {', '.join(others)}" if others else None
