"""The `zlh` command.

Each command imports what it needs when it runs: help and mistakes are answered at once.
"""

import json
import os
import sys
from datetime import datetime, timezone
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.console import Console

from zlh_dagster.cli.parts import (
    AsJson,
    Drill,
    Live,
    OfServer,
    OfSurface,
    Part,
    action_names,
    known_action,
)

if TYPE_CHECKING:
    from zlh_dagster.resources.services import Services
    from zlh_dagster.resources.settings import Settings

app = typer.Typer(
    name="zlh",
    help="The control loop of the hosting platform.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    rich_markup_mode="markdown",
    add_completion=True,
)
db = typer.Typer(
    help="The tables that this project owns. Example: zlh db upgrade.", no_args_is_help=True
)
app.add_typer(db, name="db")
breakers = typer.Typer(
    help="Breakers: what is kept from repair, and why. Example: zlh breakers reset server:5000."
)
app.add_typer(breakers, name="breakers")

# In a pipe or a file nothing is cut off at the width of a window.
_WIDE = None if sys.stdout.isatty() or "COLUMNS" in os.environ else 400
_out = Console(highlight=False, soft_wrap=True, width=_WIDE)
_err = Console(stderr=True, highlight=False, soft_wrap=True)


def say(text: str) -> None:
    """One line for the person who runs the command."""
    _out.print(f"zlh: {text}", markup=False)


def _answer(*answers: dict[str, Any], as_json: bool) -> None:
    """What a command did: each `message`, or all of it as JSON."""
    for answer in answers:
        if as_json:
            _out.print_json(json.dumps(answer))
        else:
            say(answer["message"])


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
        raise typer.Exit(show(_out, bad_settings(error), as_text=not as_json)) from None
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
    action: Annotated[
        str,
        typer.Argument(help="What to do.", callback=known_action, autocompletion=action_names),
    ],
    vmid: Annotated[int, typer.Option(help="The server.")],
    live: Live = False,
    operation: Annotated[
        str | None, typer.Option(help="Which operation, where the server has several.")
    ] = None,
    as_json: AsJson = False,
) -> None:
    """One repair by hand. Example: zlh repair edge_republish --vmid 5000 --live.

    Actions: dns_republish, velocity_reregister, edge_republish, clear_stale_operation_lock,
    fail_stuck_provisioning, stop_suspended_workload.

    Needs Redis for the lease: a zlh up that runs here, or ZLH_REDIS_URL.
    """
    from zlh_dagster.cli.holds import require_operation_action, require_server
    from zlh_dagster.cli.repair import exit_status, perform

    if operation is not None:
        require_operation_action(action)
    with _services() as services:
        require_server(services, vmid)
        done = perform(services, vmid=vmid, action=action, live=live, target=operation)
        _answer(*done, as_json=as_json)
    raise typer.Exit(exit_status(done))


@app.command()
def revert(
    event_id: Annotated[str, typer.Argument(help="A row of the ledger, see zlh events.")],
    live: Live = False,
    as_json: AsJson = False,
) -> None:
    """Put back what a repair overwrote; pauses the server. Example: zlh revert 3f2a91c0."""
    from zlh_dagster.cli.repair import event_named, exit_status, perform

    with _services() as services:
        target = event_named(services, event_id)
        done = perform(services, vmid=None, action="revert", live=live, target=target)
        _answer(*done, as_json=as_json)
    raise typer.Exit(exit_status(done))


@app.command()
def approve(
    incident: Annotated[str, typer.Argument(help="As the message names it.")],
    as_json: AsJson = False,
) -> None:
    """Let one escalated mass drift be repaired once. Example: zlh approve mass_drift:cloudflare."""
    from zlh_dagster.cli.holds import approve as approve_incident

    with _services() as services:
        _answer(approve_incident(services, incident), as_json=as_json)


@app.command()
def pause(
    span: Annotated[str | None, typer.Option("--for", help="30m, 2h, 1d12h.")] = None,
    reason: Annotated[str | None, typer.Option(help="Why.")] = None,
    surface: OfSurface = None,
    vmid: OfServer = None,
    as_json: AsJson = False,
) -> None:
    """Stop repairs; observation goes on. Example: zlh pause --for 2h --reason "DNS move"."""
    from zlh_dagster.cli.holds import pause as begin
    from zlh_dagster.cli.holds import scope_of

    scope = scope_of(surface=surface, vmid=vmid)
    with _services() as services:
        _answer(begin(services, scope, span=span, reason=reason), as_json=as_json)


@app.command()
def resume(surface: OfSurface = None, vmid: OfServer = None, as_json: AsJson = False) -> None:
    """End a pause. Example: zlh resume --vmid 5000."""
    from zlh_dagster.cli.holds import resume as end
    from zlh_dagster.cli.holds import scope_of

    scope = scope_of(surface=surface, vmid=vmid)
    with _services() as services:
        _answer(end(services, scope), as_json=as_json)


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
    name: Annotated[str | None, typer.Argument(help="cloudflare, server:5000, ...")] = None,
    servers: Annotated[bool, typer.Option("--servers", help="Those of all servers.")] = False,
    as_json: AsJson = False,
) -> None:
    """Close one breaker, or those of all servers. Example: zlh breakers reset server:5000."""
    from zlh_dagster.cli.holds import reset

    with _services() as services:
        _answer(*reset(services, name, servers=servers), as_json=as_json)


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
    """Delete a record and see it mended. Example: zlh drill cloudflare-srv --vmid 5000 --yes.

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
def db_upgrade(as_json: AsJson = False) -> None:
    """Create or migrate the tables that this project owns. Example: zlh db upgrade."""
    from zlh_dagster.cli.tables import upgrade

    _answer(upgrade(_settings()), as_json=as_json)


def main() -> None:
    """Entry point: errors, of usage too, become one line on standard error and exit status 1."""
    try:
        status = app(standalone_mode=False)
    except Exception as error:
        if "--debug" in sys.argv:
            raise
        from zlh_dagster.cli.mistakes import explain, usage

        # Of its own errors for a command line that it cannot use typer exports a few alone.
        told = getattr(error, "format_message", None)
        text = explain(error) if told is None else usage(told(), getattr(error, "ctx", None))
        if text:
            _err.print(f"zlh: {text}", markup=False)
        raise SystemExit(1) from None
    raise SystemExit(status or 0)


if __name__ == "__main__":
    main()
