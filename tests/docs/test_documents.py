"""The documents say what the program does, and every link leads somewhere."""

import ast
import re
from pathlib import Path

import pytest
import typer

from tests.cli.test_help import commands
from tests.faults.table import ROW, table
from zlh_dagster.cli.health import LOOP_STALLED
from zlh_dagster.cli.main import app
from zlh_dagster.core import holds, repair
from zlh_dagster.core.desired import ROW_UNUSABLE, guard_reason
from zlh_dagster.core.model import UNREADABLE, Action, DriftKind
from zlh_dagster.core.rules import POLICY, Kind
from zlh_dagster.resources import controller, operation_repairs
from zlh_dagster.resources.settings import Settings

ROOT = Path(__file__).parents[2]
PAGES = sorted([*ROOT.glob("*.md"), *ROOT.glob("docs/**/*.md")])
NAMES = {name.upper() for name in Settings.model_fields}


def test_every_setting_is_documented_once_with_its_default():
    rows = re.findall(
        r"^\| `([A-Z0-9_]+)` \| (.*?) \|", (ROOT / "docs/settings.md").read_text(), re.M
    )
    assert sorted(name for name, _ in rows) == sorted(NAMES)
    for name, default in rows:
        value = Settings.model_fields[name.lower()].default
        if isinstance(value, (int, float)):
            assert default == f"`{value}`", name


def test_every_command_is_in_the_readme():
    table = (ROOT / "README.md").read_text().split("## Commands")[1].split("\n## ")[0]
    for path in commands(typer.main.get_command(app)):
        assert f"`zlh {' '.join(path)}" in table, path


def test_the_example_settings_exist():
    named = re.findall(r"^#?([A-Z][A-Z0-9_]+)=", (ROOT / ".env.example").read_text(), re.M)
    assert named
    assert set(named) <= NAMES


def test_every_action_and_kind_of_drift_is_documented():
    text = "".join(page.read_text() for page in PAGES)
    for word in (*Action, *DriftKind):
        assert f"`{word.value}`" in text


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_links_between_documents_lead_somewhere(page):
    for target in re.findall(r"\]\((?!https?://)([^)#]+)", page.read_text()):
        assert (page.parent / target).exists(), target


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_links_to_headings_lead_to_one(page):
    for target, heading in re.findall(r"\]\((?!https?://)([^)#]*)#([^)]+)\)", page.read_text()):
        there = (page.parent / target).read_text() if target else page.read_text()
        assert heading in headings(there), f"{target}#{heading}"


def headings(text: str) -> set[str]:
    """The anchors that a page's headings get: lower case, hyphens for spaces, no punctuation."""
    found = re.findall(r"^#+ (.+)$", text, re.M)
    return {re.sub(r"[^\w\- ]", "", title.lower()).replace(" ", "-") for title in found}


def rows_under(page: str, heading: str) -> list[list[str]]:
    """The cells of the first table under a heading, without its head."""
    section = (ROOT / page).read_text().split(f"\n{heading}\n")[1].split("\n## ")[0]
    table = re.search(r"(?:^\|.*\n)+", section, re.M)
    assert table is not None
    lines = table[0].splitlines()[2:]
    return [[cell.strip() for cell in line.strip("|").split(" | ")] for line in lines]


def test_every_law_names_its_tests():
    text = (ROOT / "docs/safety.md").read_text()
    laws = re.findall(r"^\| (\d+)\. .*$", text, re.M)
    assert [int(law) for law in laws] == list(range(1, 14))
    for line in re.findall(r"^\| \d+\. .*$", text, re.M):
        number = int(re.match(r"\| (\d+)", line)[1])
        [name] = re.findall(r"`(test_\d\d_\w+\.py)`", line)
        assert name.startswith(f"test_{number:02}_"), line
        assert (ROOT / "tests/laws" / name).exists(), name
        for path in re.findall(r"`(tests/[\w/.]+)`", line):
            assert (ROOT / path).exists(), path
    named = set(re.findall(r"`(test_\d\d_\w+\.py)`", text))
    assert named == {path.name for path in (ROOT / "tests/laws").glob("test_*.py")}


def test_the_policy_is_the_one_in_the_code():
    assert rows_under("docs/safety.md", "## The policy") == [
        [
            f"[`{rule.kind.value}`](operations.md#{rule.kind.value})",
            rule.found,
            str(rule.level),
            f"`{rule.action.value}`" if rule.action else "-",
            rule.guards,
            rule.message.value,
            rule.does,
        ]
        for rule in POLICY
    ]


def test_the_level_of_every_action_is_documented():
    rows = rows_under("docs/safety.md", "## Levels")
    written = {
        (int(level), name, now.startswith("names only"))
        for level, _, actions, now in rows
        for name in re.findall(r"`(\w+)`", actions)
    }
    assert written == {(action.level, action.value, not action.built) for action in Action}


def test_every_code_is_documented_and_no_other():
    written = [row[0].strip("`") for row in rows_under("docs/safety.md", "## Codes")]
    assert len(set(written)) == len(written)
    assert set(written) == codes_in_the_source()
    text = (ROOT / "docs/safety.md").read_text().split("\n## Codes\n")[1]
    for rule in POLICY:
        # A finding with an action is in the ledger under its kind, unless the loop carries it out.
        if rule.action and (not rule.repairs or rule.kind is Kind.MASS_DRIFT):
            assert f"`{rule.kind.value}`" in text, rule.kind


def codes_in_the_source() -> set[str]:
    """Codes of refusals and failures, as far as the syntax tells; constants by their value."""
    constants = {
        "BREAKER_OPEN": repair.BREAKER_OPEN,
        "PAUSED": holds.PAUSED,
        "SURFACE_BREAKER_OPEN": repair.SURFACE_BREAKER_OPEN,
        "CHANGED": operation_repairs.CHANGED,
        "ROW_UNUSABLE": ROW_UNUSABLE,
    }
    fine = {"lifecycle": "active", "billingStatus": "active", "maintenanceReason": None}
    fine[UNREADABLE] = None
    broken = [("lifecycle", "suspended"), ("billingStatus", "suspended"), ("maintenanceReason", "")]
    reasons = [guard_reason({**fine, column: value}) for column, value in broken]
    found = {reason.split()[0].rstrip(":") for reason in reasons if reason}
    for path in (ROOT / "zlh_dagster").rglob("*.py"):
        if "sandbox" in path.parts:
            continue
        for node in ast.walk(ast.parse(path.read_text())):
            given: list[ast.expr | None] = []
            if isinstance(node, ast.Call):
                if isinstance(node.func, ast.Name) and node.func.id == "Refusal":
                    given.append(node.args[0])
                given += [word.value for word in node.keywords if word.arg == "code"]
            elif isinstance(node, ast.Dict):
                pairs = zip(node.keys, node.values, strict=True)
                given += [v for k, v in pairs if isinstance(k, ast.Constant) and k.value == "code"]
            elif isinstance(node, ast.FunctionDef):
                named = zip(node.args.kwonlyargs, node.args.kw_defaults, strict=True)
                given += [value for name, value in named if name.arg == "code"]
            for value in given:
                if isinstance(value, ast.Constant) and value.value:
                    found.add(value.value)
                elif isinstance(value, ast.Name) and value.id in constants:
                    found.add(constants[value.id])
    return found


def test_every_message_is_in_the_runbook():
    """A heading for each kind, and for what the loop tells of itself."""
    of_itself = {"breaker", "paused", "dry_run", "refused", "failed", "run_failed", "interrupted"}
    of_itself |= {controller.REDIS_LOST, LOOP_STALLED, "sensor_failed"}
    told = {kind.value for kind in Kind} | of_itself
    titles = re.findall(r"^### `(\w+)`$", (ROOT / "docs/operations.md").read_text(), re.M)
    assert len(set(titles)) == len(titles)
    assert set(titles) == told


def test_every_decision_has_a_status():
    decisions = sorted((ROOT / "docs/decisions").glob("*.md"))
    assert decisions
    for page in decisions:
        assert "Status: " in page.read_text(), page.name


def test_no_file_has_the_marks_of_a_merge_that_was_not_finished():
    left = re.compile(r"^(<{7} |={7}$|>{7} )", re.M)
    pages = [*PAGES, ROOT / "Makefile", ROOT / "pyproject.toml", *ROOT.glob("*.yaml")]
    assert [page.name for page in pages if left.search(page.read_text())] == []


def test_every_fault_is_on_the_page_with_its_promise_and_figures():
    text = (ROOT / "docs/reliability.md").read_text()
    assert table(text, {}) == text
    assert all(re.search(r"\d", figure) for row in ROW.findall(text) for figure in row[1:])
