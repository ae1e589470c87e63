"""The `zlh` command.

Each command imports what it needs when it runs: help and mistakes are answered at once.
"""

import json
import os
import sys
from datetime import datetime, timezone
from typing import TYPE_CHECKING, Annotated

import typer
from rich.console import Console

from zlh_dagster.cli.parts import Drill, Part, Repair

if TYPE_CHECKING:
    from zlh_dagster.resources.services import Services
    from zlh_dagster.resources.settings import Settings

AsJson = Annotated[bool, typer.Option("--json", help="Print JSON.")]
Live = Annotated[bool, typer.Option("--live", help="Write; else only record.")]
OfSurface = Annotated[str | None, typer.Option("--surface", help="Only this surface.")]
OfServer = Annotated[int | None, typer.Option("--vmid", help="Only this server.")]

app = typer.Typer(
    name="zlh",
    help="The control loop of the hosting platform.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    add_completion=True,
)
db = typer.Typer(help="The tables that this project owns.", no_args_is_help=True)
app.add_typer(db, name="db")
breakers = typer.Typer(help="Breakers: what is kept from repair, and why.")
app.add_typer(breakers, name="breakers")

# In a pipe or a file nothing is cut off at the width of a window.
_WIDE = None if sys.stdout.isatty() or "COLUMNS" in os.environ else 400
_out = Console(highlight=False, soft_wrap=True, width=_WIDE)
_err = Console(stderr=True, highlight=False, soft_wrap=True)


def say(text: str) -> None:
    """One line for the person who runs the command."""
    _out.print(f"zlh: {text}", markup=False)


def _settings() -> "Settings":
    from zlh_dagster.resources.private import keep_private
    from zlh_dagster.resources.settings import load_settings

    settings = load_settings()
    keep_private(settings.home)
    return settings


def _services() -> "Services":
    from zlh_dagster.resources.services import Services

    return Services(_settings())


def _print_version(asked: bool) -> None:
    if asked:
        from importlib.metadata import version

        _out.print(version("zlh-dagster"))
        raise typer.Exit


@app.callback()
def root(
    debug: Annotated[bool, typer.Option("--debug", help="Show tracebacks.")] = False,
    version: Annotated[
        bool,
        typer.Option(
            "--version", help="Print the version.", is_eager=True, callback=_print_version
        ),
    ] = False,
) -> None:
    """The control loop of the hosting platform."""


@app.command()
def up(
    no_web: Annotated[bool, typer.Option("--no-web", help="Without the web UI.")] = False,
) -> None:
    """Run the controller in the foreground. Example: zlh up --no-web."""
    from zlh_dagster.cli.up import run

    raise typer.Exit(run(_settings(), web=not no_web, say=say))


@app.command()
def serve(
    part: Annotated[Part, typer.Argument(help="Which part.")],
) -> None:
    """Run one part of the controller, for systemd or a container. Example: zlh serve worker.

    Needs ZLH_REDIS_URL. Several machines also need ZLH_DAGSTER_DATABASE_URL, ZLH_DEPLOYMENT and
    ZLH_SNAPSHOT_URL.
    """
    from zlh_dagster.cli.serve import run

    run(_settings(), part, say=say)


@app.command()
def status(as_json: AsJson = False) -> None:
    """Who works, when it last looked, what is open. Example: zlh status --json.

    Exit status: 0 when it could be printed, whatever it says; zlh health is for probes.
    """
    from zlh_dagster.cli.status import gather, show

    with _services() as services:
        show(_out, gather(services), as_text=not as_json)


@app.command()
def health(
    as_json: AsJson = False,
    tell: Annotated[
        bool,
        typer.Option("--tell", help="tell Discord when it is unwell for 5 minutes, and when over"),
    ] = False,
) -> None:
    """Whether the loop works, for probes. Example: zlh health && echo well.

    Exit status: 0 while the last good tick is recent, this deployment leads or properly stands by
    and its daemon lives, 1 otherwise. `zlh up` tells Discord by itself; below another supervisor a
    probe does, with --tell.
    """
    from zlh_dagster.cli import health as loop

    with _services() as services:
        found = loop.look(services)
        if tell:
            loop.tell(services, found)
        raise typer.Exit(loop.show(_out, found, as_text=not as_json))


@app.command()
def doctor(as_json: AsJson = False) -> None:
    """Try each setting and each outside system, reading only. Example: zlh doctor.

    Exit status: 0 when nothing is wrong, 1 otherwise.
    """
    from zlh_dagster.cli.doctor import examine, show
    from zlh_dagster.cli.doctor_checks import bad_settings, checks_of
    from zlh_dagster.resources.settings import SettingsError

    try:
        opened = _services()
    except SettingsError as error:
        raise typer.Exit(show(_out, [bad_settings(error)], as_text=not as_json)) from None
    with opened as services:
        raise typer.Exit(show(_out, examine(checks_of(services)), as_text=not as_json))


@app.command()
def plan(
    policy: Annotated[bool, typer.Option("--policy", help="Print the policy instead.")] = False,
    as_json: AsJson = False,
) -> None:
    """What would be repaired now and what refused; changes nothing. Example: zlh plan.

    Exit status: 2 when something is to be done, even if not everything was seen; 1 when something
    was not seen and nothing is known to be done, or on an error; 0 when nothing is to be done.
    """
    from zlh_dagster.cli.plan import look, show, show_policy

    if policy:
        show_policy(_out, as_text=not as_json)
        return
    with _services() as services:
        found = look(services)
        raise typer.Exit(show(_out, services.settings, found, as_text=not as_json))


@app.command()
def repair(
    action: Annotated[Repair, typer.Argument(help="What to do.")],
    vmid: Annotated[int, typer.Option(help="The server.")],
    live: Live = False,
    operation: Annotated[
        str | None, typer.Option(help="Which operation, where the server has several.")
    ] = None,
) -> None:
    """One repair by hand. Example: zlh repair edge_republish --vmid 5000 --live.

    Needs Redis for the lease: a zlh up that runs here, or ZLH_REDIS_URL.
    """
    from zlh_dagster.cli.holds import require_operation_action, require_server

    if operation is not None:
        require_operation_action(action.value)
    with _services() as services:
        require_server(services, vmid)
        _run(services, vmid=vmid, action=action.value, live=live, target=operation)


@app.command()
def revert(
    event_id: Annotated[str, typer.Argument(help="A row of the ledger, see zlh events.")],
    live: Live = False,
) -> None:
    """Put back what a repair overwrote; pauses the server. Example: zlh revert 3f2a91c0."""
    from zlh_dagster.cli.repair import event_named

    with _services() as services:
        target = event_named(services, event_id)
        _run(services, vmid=None, action="revert", live=live, target=target)


def _run(
    services: "Services", *, vmid: int | None, action: str, live: bool, target: str | None
) -> None:
    from zlh_dagster.cli.repair import repair as run_repair
    from zlh_dagster.core.repair import Status

    result = run_repair(services, vmid=vmid, action=action, live=live, target=target)
    for outcome in result.outcomes:
        what = "; ".join((*outcome.changes, outcome.reason)).strip("; ")
        say(f"{outcome.name} {outcome.status.value if outcome.status else 'in step'}: {what}")
    if result.with_status(Status.REFUSED):
        raise typer.Exit(1)


@app.command()
def approve(
    incident: Annotated[str, typer.Argument(help="As the message names it.")],
) -> None:
    """Let one escalated mass drift be repaired once. Example: zlh approve mass_drift:cloudflare."""
    from zlh_dagster.cli.holds import approve as approve_incident

    with _services() as services:
        approve_incident(services, incident)
    say(f"{incident} is approved for the next tick that still shows it")


@app.command()
def pause(
    span: Annotated[str | None, typer.Option("--for", help="30m, 2h, 1d12h.")] = None,
    reason: Annotated[str | None, typer.Option(help="Why.")] = None,
    surface: OfSurface = None,
    vmid: OfServer = None,
) -> None:
    """Stop repairs; observation goes on. Example: zlh pause --for 2h --reason "DNS move"."""
    from zlh_dagster.cli.holds import pause as begin
    from zlh_dagster.cli.holds import scope_of

    scope = scope_of(surface=surface, vmid=vmid)
    with _services() as services:
        say(begin(services, scope, span=span, reason=reason))


@app.command()
def resume(surface: OfSurface = None, vmid: OfServer = None) -> None:
    """End a pause. Example: zlh resume --vmid 5000."""
    from zlh_dagster.cli.holds import resume as end
    from zlh_dagster.cli.holds import scope_of

    scope = scope_of(surface=surface, vmid=vmid)
    with _services() as services:
        say(end(services, scope))


@breakers.callback(invoke_without_command=True)
def list_breakers(context: typer.Context, as_json: AsJson = False) -> None:
    """Breakers that have seen failures. Example: zlh breakers --json."""
    from zlh_dagster.cli.holds import breakers as found
    from zlh_dagster.cli.holds import show_breakers

    if context.invoked_subcommand is None:
        with _services() as services:
            show_breakers(_out, found(services), as_text=not as_json)


@breakers.command("reset")
def reset_breaker(
    name: Annotated[str, typer.Argument(help="cloudflare, server:5000, ...")],
) -> None:
    """Close one breaker. Example: zlh breakers reset server:5000."""
    from zlh_dagster.cli.holds import require_breaker

    with _services() as services:
        require_breaker(services, name)
        was_there = services.gate.reset(name)
    say(f"{name} is closed" if was_there else f"{name} was not open; its count begins anew")


@app.command()
def events(
    vmid: Annotated[int | None, typer.Option(help="Only this server.")] = None,
    limit: Annotated[int, typer.Option(help="How many, the newest first.", min=1)] = 50,
    as_json: AsJson = False,
) -> None:
    """The repair ledger. Example: zlh events --vmid 5000."""
    from zlh_dagster.cli.events import show

    with _services() as services:
        show(_out, services.ledger.events(vmid=vmid, limit=limit), as_text=not as_json)


@app.command()
def history(
    days: Annotated[int, typer.Option(help="How many days, today included.", min=1)] = 30,
    as_json: AsJson = False,
) -> None:
    """What each day was like. Example: zlh history --days 90."""
    from zlh_dagster.cli.history import gather, show

    now = datetime.now(timezone.utc)
    with _services() as services:
        show(_out, gather(services, days=days, now=now), as_text=not as_json)


@app.command()
def drill(
    what: Annotated[Drill, typer.Argument(help="What to take away.")],
    vmid: Annotated[int, typer.Option(help="The server; its payload carries disposable: true.")],
    yes: Annotated[bool, typer.Option("--yes", help="Really delete the record.")] = False,
    nameserver: Annotated[
        list[str] | None, typer.Option(help="Ask this one, not those that the zone names.")
    ] = None,
    no_dns: Annotated[bool, typer.Option("--no-dns", help="Ask no nameserver.")] = False,
    as_json: AsJson = False,
) -> None:
    """Delete a record of a disposable server, and see the loop put it back.

    Example: zlh drill cloudflare-srv --vmid 5000 --yes

    Exit status: 0 when the loop repaired it and all of it was verified, at the zone's own
    nameservers too unless --no-dns; 1 otherwise.
    """
    from zlh_dagster.cli.authority import authorities, named
    from zlh_dagster.cli.drill import DrillRefused, Exercise, prepare

    with _services() as services:
        servers = [named(text) for text in nameserver or ()]
        target = prepare(services, vmid)
        if not yes:
            raise DrillRefused(f"{target.wanted.name} would be deleted; --yes does it")
        if not servers and not no_dns:
            servers = authorities(services.settings.zlh_zone or "")
        quiet = (lambda _: None) if as_json else say
        report = Exercise(services, target, say=quiet, nameservers=servers).run()
        if as_json:
            _out.print_json(json.dumps(report.to_json()))
        else:
            _out.print(f"\n{report.markdown()}", markup=False)
        if report.problems:
            raise typer.Exit(1)


@db.command("upgrade")
def db_upgrade() -> None:
    """Create or migrate the tables that this project owns. Example: zlh db upgrade."""
    from zlh_dagster.resources.database import connect
    from zlh_dagster.schema.upgrade import upgrade

    engine = connect(_settings().database_url, create=True)
    try:
        say(f"the tables are at revision {upgrade(engine)}")
    finally:
        engine.dispose()


def main() -> None:
    """Entry point: errors, of usage too, become one line on standard error and exit status 1."""
    try:
        status = app(standalone_mode=False)
    except Exception as error:
        if "--debug" in sys.argv:
            raise
        # Of its own errors for a command line that it cannot use typer exports a few alone.
        told = getattr(error, "format_message", None)
        text = explain(error) if told is None else usage(told(), getattr(error, "ctx", None))
        if text:
            _err.print(f"zlh: {text}", markup=False)
        raise SystemExit(1) from None
    raise SystemExit(status or 0)


def usage(message: str, context: typer.Context | None) -> str:
    """One line for a command line that cannot be used; empty when help was shown instead."""
    text = " ".join(message.replace("Value error, ", "").split()).rstrip(".")
    command = context.command_path if context else "zlh"
    return f"{text}. See {command} --help." if text else ""


def explain(error: Exception) -> str:
    """One line for an error, without secrets."""
    from sqlalchemy.exc import SQLAlchemyError

    from zlh_dagster.resources.services import Services
    from zlh_dagster.resources.settings import SettingsError, load_settings

    if isinstance(error, SettingsError):
        return f"settings: {error}"
    if isinstance(error, SQLAlchemyError):
        from zlh_dagster.resources.database import explain as explain_database

        return explain_database(error)
    text = " ".join(str(error).split()) or type(error).__name__
    try:
        return Services(load_settings()).redactor.text(text)
    except SettingsError:
        return text


if __name__ == "__main__":
    main()
