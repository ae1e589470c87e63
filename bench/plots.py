"""Two plots for the document, from the results."""

from pathlib import Path
from typing import Any

import matplotlib as mpl
import matplotlib.pyplot as plt

from bench.harness import ROOT
from bench.loop_rounds import COLD, WARM

_FOLDER = ROOT / "docs/images"
_BLUE, _ORANGE, _GREY = "#0b6e99", "#d9730d", "#9b9a97"


def draw(results: dict[str, Any]) -> list[Path]:
    """Draws what there are results for, and returns the files."""
    mpl.use("svg")
    # The same results make the same file.
    mpl.rcParams.update({"svg.hashsalt": "zlh", "font.size": 9, "figure.figsize": (6.4, 3.4)})
    _FOLDER.mkdir(parents=True, exist_ok=True)
    made = []
    for name, draw_one in (("compare", _growth), ("loop", _repairs)):
        if name in results["benchmarks"]:
            made.append(draw_one(results["benchmarks"][name]["details"]))
    return made


def _growth(details: dict[str, Any]) -> Path:
    measures = details["measures"]
    servers = [m["servers"] for m in measures]
    figure, axes = plt.subplots()
    for key, label, colour in (
        ("compare_seconds", "compare", _BLUE),
        ("judge_seconds", "compare and decide", _ORANGE),
    ):
        axes.loglog(servers, [m[key] for m in measures], "o-", color=colour, label=label)
    middle = measures[1]
    linear = [middle["compare_seconds"] * n / middle["servers"] for n in servers]
    axes.loglog(servers, linear, "--", color=_GREY, label="linear")
    axes.set(xlabel="servers, four records each", ylabel="seconds", title="One tick compared")
    return _save(figure, axes, "compare-growth.svg")


def _repairs(details: dict[str, Any]) -> Path:
    figure, axes = plt.subplots()
    for launcher, label, colour in (
        (COLD, "a process for each run", _ORANGE),
        (WARM, "warm worker", _BLUE),
    ):
        seconds = sorted(details["samples"][launcher]["repair"])
        shares = [(n + 1) / len(seconds) for n in range(len(seconds))]
        axes.plot(seconds, shares, "o-", color=colour, label=label)
    axes.set(
        xlabel="seconds from a tick to the verified repair",
        ylabel="share of repairs",
        title="Tick to repair",
        ylim=(0, 1.05),
    )
    axes.set_xlim(left=0)
    return _save(figure, axes, "tick-to-repair.svg")


def _save(figure: Any, axes: Any, name: str) -> Path:
    axes.legend(frameon=False)
    axes.grid(visible=True, alpha=0.25)
    axes.spines[["top", "right"]].set_visible(False)
    figure.tight_layout()
    path = _FOLDER / name
    figure.savefig(path, metadata={"Date": None})
    plt.close(figure)
    # Lint and people dislike what the drawer leaves at the ends of lines.
    path.write_text("\n".join(line.rstrip() for line in path.read_text().splitlines()) + "\n")
    return path
