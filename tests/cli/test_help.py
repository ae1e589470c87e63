"""Help is there for each command, with an example, and imports nothing heavy."""

import subprocess
import sys

import pytest
import typer
from typer.testing import CliRunner

from zlh_dagster.cli.main import app
from zlh_dagster.cli.parts import SURFACES, Repair
from zlh_dagster.core.model import Surface

HEAVY = ("dagster", "pandas", "pyarrow", "sqlalchemy", "redis", "httpx", "pydantic")


def commands(group: typer.main.TyperGroup, path: tuple[str, ...] = ()):
    for name, command in group.commands.items():
        if hasattr(command, "commands"):
            yield from commands(command, (*path, name))
        else:
            yield (*path, name)


def test_help_imports_nothing_heavy():
    program = (
        "import sys; from zlh_dagster.cli.main import app; "
        f"print([name for name in {HEAVY!r} if name in sys.modules])"
    )
    done = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, check=True, timeout=60
    )
    assert done.stdout.strip() == "[]"


def groups(group: typer.main.TyperGroup, path: tuple[str, ...] = ()):
    for name, command in group.commands.items():
        if hasattr(command, "commands"):
            yield (*path, name)


@pytest.mark.parametrize("path", list(groups(typer.main.get_command(app))))
def test_every_group_has_an_example_too(path):
    shown = " ".join(
        CliRunner().invoke(app, [*path, "--help"]).output.split("─ Options")[0].split()
    )
    assert "Example: zlh " + " ".join(path) in shown


def test_the_list_of_commands_has_an_example_of_each():
    shown = CliRunner().invoke(app, ["--help"]).output.replace("│", " ")
    told = " ".join(shown.split())
    for name in typer.main.get_command(app).commands:
        assert f"Example: zlh {name}" in told, name


def test_a_paragraph_is_as_wide_as_the_window():
    shown = CliRunner().invoke(app, ["health", "--help"], env={"COLUMNS": "200"}).output
    assert "or properly stands by and its daemon lives, 1 otherwise" in shown


def test_the_actions_of_a_repair_are_listed_whole(monkeypatch):
    shown = CliRunner().invoke(app, ["repair", "--help"], env={"COLUMNS": "80"}).output
    for action in Repair:
        assert action.value in shown


def test_the_surfaces_of_a_pause_are_those_that_are_there():
    assert list(SURFACES) == [surface.value for surface in Surface]
    shown = CliRunner().invoke(app, ["pause", "--help"]).output
    assert all(name in shown for name in SURFACES)


def test_every_command_has_a_help_with_an_example():
    found = list(commands(typer.main.get_command(app)))
    assert len(found) > 15
    for path in found:
        shown = CliRunner().invoke(app, [*path, "--help"]).output
        assert "Example: zlh " + " ".join(path) in " ".join(shown.split()), path
