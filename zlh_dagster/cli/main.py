"""The `zlh` command."""

import sys
from typing import Annotated

import typer
from rich.console import Console
from sqlalchemy.exc import SQLAlchemyError

from zlh_dagster.resources.settings import SettingsError, load_settings

app = typer.Typer(
    name="zlh",
    help="The control loop of the hosting platform.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    add_completion=True,
)
db = typer.Typer(help="The tables that this project owns.", no_args_is_help=True)
app.add_typer(db, name="db")

_out = Console(highlight=False, soft_wrap=True)
_err = Console(stderr=True, highlight=False, soft_wrap=True)


def say(text: str) -> None:
    """One line for the person who runs the command."""
    _out.print(f"zlh: {text}", markup=False)


@app.callback()
def root(
    debug: Annotated[bool, typer.Option("--debug", help="Show tracebacks.")] = False,
) -> None:
    """The control loop of the hosting platform."""


@app.command()
def up(
    no_web: Annotated[bool, typer.Option("--no-web", help="Without the web UI.")] = False,
) -> None:
    """Run the controller in the foreground. Example: zlh up --no-web."""
    from zlh_dagster.cli.up import run

    raise typer.Exit(run(load_settings(), web=not no_web, say=say))


@db.command("upgrade")
def db_upgrade() -> None:
    """Create or migrate the tables that this project owns. Example: zlh db upgrade."""
    from zlh_dagster.resources.database import connect
    from zlh_dagster.schema.upgrade import upgrade

    engine = connect(load_settings().database_url)
    try:
        say(f"the ledger is at revision {upgrade(engine)}")
    finally:
        engine.dispose()


def main() -> None:
    """Entry point: known errors become one line on standard error and exit status 1."""
    try:
        app()
    except Exception as error:
        if "--debug" in sys.argv:
            raise
        _err.print(f"zlh: {explain(error)}", markup=False)
        raise SystemExit(1) from None


def explain(error: Exception) -> str:
    """One line for an error, without secrets."""
    if isinstance(error, SettingsError):
        return f"settings: {error}"
    if isinstance(error, SQLAlchemyError):
        from zlh_dagster.resources.database import explain as explain_database

        return explain_database(error)
    text = " ".join(str(error).split()) or type(error).__name__
    try:
        from zlh_dagster.resources.services import Services

        return Services().redactor.text(text)
    except SettingsError:
        return text


if __name__ == "__main__":
    main()
