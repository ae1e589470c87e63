"""Takes the latest results into the document: its table, its plots and their committed copy."""

import re
import sys
from typing import Any

from bench.__main__ import MODULES
from bench.harness import ROOT, Figure, number, say
from bench.results_file import LATEST, PUBLISHED, figures, mixed, read

PAGE = ROOT / "docs/performance.md"
_BEGIN, _END = "<!-- figures -->", "<!-- end of figures -->"


def table(results: dict[str, Any]) -> str:
    """Machine and figures as the document shows them."""
    machine = results["machine"]
    versions = ", ".join(f"{name} {v}" for name, v in sorted(machine["versions"].items()))
    lines = [
        f"Measured on {machine['cores']} cores ({machine['processor']}) with"
        f" {machine['memory_gib']} GiB of memory; {machine['system']}, Python"
        f" {machine['python']}, {versions}.",
        "",
        "| figure | aim | measured | |",
        "| --- | --- | --- | --- |",
    ]
    for name in sorted(results["benchmarks"]):
        lines += [_row(figure) for figure in figures(results, name)]
    return "\n".join(lines)


def section(page: str) -> str:
    """What stands between the marks."""
    found = re.search(f"{_BEGIN}\n(.*)\n{_END}", page, re.DOTALL)
    if found is None:
        raise ValueError(f"{PAGE} has no marks for the table")
    return found[1]


def _row(figure: Figure) -> str:
    verdict = {None: "", True: "met", False: "**missed**"}[figure.met]
    measured = f"{number(figure.value)} {figure.unit}"
    if figure.note:
        measured += f" ({figure.note})"
    return f"| {figure.name} | {figure.aim_text} | {measured} | {verdict} |"


def main() -> None:
    """Publishes the latest results."""
    from bench import plots

    results = read(LATEST)
    problem = mixed(results, MODULES)
    if problem:
        sys.exit(f"nothing is published: {problem}; run all of `make bench` first")
    PUBLISHED.write_text(LATEST.read_text())
    page = PAGE.read_text()
    PAGE.write_text(page.replace(section(page), table(results)))
    for path in plots.draw(results):
        say(f"drew {path.relative_to(ROOT)}")


if __name__ == "__main__":
    main()
