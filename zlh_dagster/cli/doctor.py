"""`zlh doctor`: what each setting and each outside system says; reads only."""

import json
from collections.abc import Callable, Iterable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass
from enum import Enum
from typing import Any

from rich.console import Console

from zlh_dagster.cli.text import counted, hang


class State(str, Enum):
    """How serious a finding is."""

    OK = "ok"
    NOTE = "note"
    OFF = "off"
    PROBLEM = "problem"


_STYLES = {State.OK: "green", State.NOTE: "yellow", State.OFF: "dim", State.PROBLEM: "red"}


@dataclass(frozen=True, slots=True)
class Finding:
    """What came of one check.

    Attributes:
        name: The setting or system.
        state: How serious it is.
        tried: What was tried.
        got: What came of it.
        todo: What to do, or empty.
    """

    name: str
    state: State
    tried: str
    got: str
    todo: str = ""


Check = Callable[[], Iterable[Finding]]


def examine(checks: Iterable[Check]) -> list[Finding]:
    """The findings of all checks, made side by side, in the checks' order."""
    listed = list(checks)
    with ThreadPoolExecutor(max(len(listed), 1), "doctor") as pool:
        return [
            finding for found in pool.map(lambda check: list(check()), listed) for finding in found
        ]


def as_json(findings: list[Finding]) -> dict[str, Any]:
    """Keys are ``well`` and ``findings``, each with the fields of :class:`Finding`."""
    return {
        "well": not any(finding.state is State.PROBLEM for finding in findings),
        "findings": [{**asdict(finding), "state": finding.state.value} for finding in findings],
    }


def show(out: Console, findings: list[Finding], *, as_text: bool) -> int:
    """Prints them and returns the exit status: 0 without a problem, 1 with one."""
    answer = as_json(findings)
    status = 0 if answer["well"] else 1
    if not as_text:
        out.print_json(json.dumps(answer))
        return status
    wide = max(len(finding.name) for finding in findings)
    for finding in findings:
        word = f"[{_STYLES[finding.state]}]{finding.state.value:7}[/]"
        got = finding.got.removeprefix(f"{finding.name}: ")
        hang(out, f"{word}  {finding.name:{wide}}  ", f"{finding.tried}: {got}")
        if finding.todo:
            hang(out, f"{'':9}{'':{wide}}  ", finding.todo, style="bold")
    problems = sum(finding.state is State.PROBLEM for finding in findings)
    out.print(counted(problems, "problem"))
    return status
