"""The `zlh` command."""

import sys
from typing import Annotated

import typer
from rich.console import Console
from sqlalchemy.exc import SQLAlchemyError

from zlh_dagster.resources.services import Services
from zlh_dagster.resources.settings import SettingsError, load_settings

AsJson = Annotated[bool, typer.Option("--json", help="Print JSON.")]

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


@app.command()
def status(as_json: AsJson = False) -> None:
    """Who works, when it last looked, what is open. Example: zlh status --json."""
    from zlh_dagster.cli.status import gather, show

    with Services(load_settings()) as services:
        show(_out, gather(services), as_text=not as_json)


@app.command()
def plan(as_json: AsJson = False) -> None:
    """What would be repaired now and what refused; changes nothing. Example: zlh plan.

    Exit status: 0 nothing to do, 2 something to do, 1 error.
    """
    from zlh_dagster.cli.plan import look, show

    with Services(load_settings()) as services:
        tick, judgement = look(services)
        raise typer.Exit(show(_out, tick, judgement, as_text=not as_json))


@app.command()
def repair(
    action: Annotated[str, typer.Argument(help="edge_republish, dns_republish, ...")],
    vmid: Annotated[int, typer.Option(help="The server.")],
    live: Annotated[bool, typer.Option("--live", help="Write; else only record.")] = False,
) -> None:
    """One repair by hand. Example: zlh repair edge_republish --vmid 5000 --live."""
    from zlh_dagster.cli.repair import repair as run_repair

    with Services(load_settings()) as services:
        result = run_repair(services, vmid=vmid, action=action, live=live)
    for outcome in result.outcomes:
        what = "; ".join((*outcome.changes, outcome.reason)).strip("; ")
        say(f"{outcome.vmid} {outcome.status.value if outcome.status else 'in step'}: {what}")


@app.command()
def events(
    vmid: Annotated[int | None, typer.Option(help="Only this server.")] = None,
    limit: Annotated[int, typer.Option(help="How many, the newest first.", min=1)] = 50,
    as_json: AsJson = False,
) -> None:
    """The repair ledger. Example: zlh events --vmid 5000."""
    from zlh_dagster.cli.events import show

    with Services(load_settings()) as services:
        show(_out, services.ledger.events(vmid=vmid, limit=limit), as_text=not as_json)


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
        return Services().redactor.text(text)
    except SettingsError:
        return text


if __name__ == "__main__":
    main()
