"""Runs benchmarks: ``python -m bench [--small] [NAME ...]``."""

import argparse
import importlib
import sys
import time
import uuid

from bench import results_file
from bench.harness import Benchmark, say

MODULES = {
    "compare": "bench.compare",
    "octodns": "bench.octodns_plan",
    "requests": "bench.tick_requests",
    "agents": "bench.agents",
    "velocity": "bench.velocity_restart",
    "loop": "bench.loop",
    "disk": "bench.disk",
}


def load(name: str) -> Benchmark:
    """A benchmark by name; only that of octoDNS needs octoDNS."""
    benchmark: Benchmark = importlib.import_module(MODULES[name]).BENCHMARK
    return benchmark


def main() -> int:
    """Runs those named, or all; each prints its figures, which go into a file of results."""
    parser = argparse.ArgumentParser(prog="bench", description=__doc__)
    parser.add_argument("names", nargs="*", help=f"of {', '.join(MODULES)}; none: all")
    parser.add_argument("--small", action="store_true", help="smallest sizes; nothing is kept")
    arguments = parser.parse_args()
    unknown = set(arguments.names) - set(MODULES)
    if unknown:
        parser.error(f"no benchmark {', '.join(sorted(unknown))}; there are {', '.join(MODULES)}")
    run = uuid.uuid4().hex
    for name in arguments.names or MODULES:
        benchmark = load(name)
        say(f"# {name}: {benchmark.what}")
        began = time.monotonic()
        result = benchmark.run(arguments.small)
        seconds = time.monotonic() - began
        for figure in result.figures:
            say(figure.line)
        say(f"# {name}: {seconds:.0f} s\n")
        if not arguments.small:
            results_file.keep(name, result, seconds=seconds, run=run)
    return 0


if __name__ == "__main__":
    sys.exit(main())
