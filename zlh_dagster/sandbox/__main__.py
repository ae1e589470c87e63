"""Runs the sandbox in the foreground: ``python -m zlh_dagster.sandbox serve``."""

import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from types import FrameType
from typing import Annotated

import sqlalchemy as sa
import typer

from zlh_dagster.sandbox.config import SandboxConfig
from zlh_dagster.sandbox.fleet import create_platform_tables, is_empty, write_fleet
from zlh_dagster.sandbox.server import Sandbox, SandboxError
from zlh_dagster.sandbox.state_file import write_state_file

_WATCH_SECONDS = 0.5

app = typer.Typer(add_completion=False, help="A pretend edge on the loopback interface.")


@app.callback()
def sandbox() -> None:
    """A pretend edge on the loopback interface."""


@app.command()
def serve(
    database: Annotated[str, typer.Option(help="SQLAlchemy URL of the platform database.")],
    state: Annotated[Path, typer.Option(help="File that is told the URL and the settings.")],
    servers: Annotated[
        int, typer.Option(min=0, help="Fleet for an empty database; 0 takes what is there.")
    ] = 0,
    zone: Annotated[str, typer.Option(help="Zone of both DNS surfaces.")] = "example.gg",
    port: Annotated[int, typer.Option(min=0, max=65535, help="Port; 0 takes a free one.")] = 0,
    seed: Annotated[int, typer.Option(help="Same seed, same fleet.")] = 1,
) -> None:
    """Serve the edge of a platform database until SIGTERM or SIGINT."""
    try:
        with _ending_signals() as ended:
            _prepare(database, servers=servers, zone=zone, seed=seed)
            running = Sandbox(SandboxConfig(zone=zone), database_url=database, port=port)
            count = running.seed_from_database()
            if ended.is_set():
                return
            with running:
                write_state_file(state, running)
                typer.echo(f"sandbox on {running.url} with {count} game servers")
                while not ended.wait(_WATCH_SECONDS):
                    if not running.running:
                        raise SandboxError("the server ended by itself")
    except (SandboxError, sa.exc.SQLAlchemyError, OSError) as error:
        typer.echo(f"sandbox: {str(error).splitlines()[0]}", err=True)
        raise typer.Exit(1) from error


def _prepare(database: str, *, servers: int, zone: str, seed: int) -> None:
    engine = sa.create_engine(database)
    try:
        create_platform_tables(engine)
        if servers and is_empty(engine):
            write_fleet(engine, servers=servers, zone=zone, seed=seed, loopback=True)
    finally:
        engine.dispose()


@contextmanager
def _ending_signals() -> Iterator[threading.Event]:
    """An event that SIGTERM and SIGINT set, while the block lasts."""
    ended = threading.Event()

    def end(number: int, frame: FrameType | None) -> None:
        ended.set()

    before = {number: signal.signal(number, end) for number in (signal.SIGTERM, signal.SIGINT)}
    try:
        yield ended
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


if __name__ == "__main__":
    app()
