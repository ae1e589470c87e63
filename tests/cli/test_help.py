"""Help is there for each command, with an example, and imports nothing heavy."""

import subprocess
import sys

import typer
from typer.testing import CliRunner

from zlh_dagster.cli.main import app

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


def test_every_command_has_a_help_with_an_example():
    found = list(commands(typer.main.get_command(app)))
    assert len(found) > 15
    for path in found:
        shown = CliRunner().invoke(app, [*path, "--help"]).output
        assert "Example: zlh " + " ".join(path) in " ".join(shown.split()), path
