"""`make demo`: everything on embedded parts, one record broken, and the loop seen repairing it."""

import argparse
import contextlib
import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
from rich.console import Console

from zlh_dagster.cli.demo_report import Evidence, judge, report, show_message
from zlh_dagster.core.policy import SOURCES
from zlh_dagster.resources.database import connect
from zlh_dagster.resources.ledger import Ledger
from zlh_dagster.resources.observe import DESIRED_EDGE
from zlh_dagster.resources.settings import Settings

HOME = Path(".zlh-demo")
SERVERS = 12
VMID = 5000
TICK_PATIENCE = 150.0
"""Seconds for one tick: a minute's wait, a start from cold, and a slow machine."""

_MARK = "made-by-zlh-demo"
_out = Console(highlight=False)


class DemoError(Exception):
    """The demo cannot go on; the message says why and what to look at."""


def main() -> int:
    """Runs the demo; exit 0 when the record was repaired and verified, 1 when not."""
    parser = argparse.ArgumentParser(prog="make demo ARGS=...", description=__doc__)
    parser.add_argument("--once", action="store_true", help="leave after the first repair")
    once = bool(parser.parse_args().once)
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, _interrupt)
    try:
        with contextlib.ExitStack() as stack:
            return _demo(stack, once=once)
    except (DemoError, httpx.HTTPError) as error:
        Console(stderr=True).print(f"demo: {error}", markup=False, highlight=False)
        return 1
    except KeyboardInterrupt:
        _out.print("\nstopped")
        return 0


def _demo(stack: contextlib.ExitStack, *, once: bool) -> int:
    home = _fresh_home()
    database = f"sqlite:///{home / 'platform.db'}"
    _step("starting the sandbox edge: Cloudflare, Technitium, Velocity, Proxmox, agents, Discord")
    state_file = home / "sandbox.json"
    stack.enter_context(
        _program(
            "sandbox",
            [
                *("-m", "zlh_dagster.sandbox", "serve", "--database", database),
                *("--servers", str(SERVERS), "--zone", "example.gg", "--port", "0"),
                *("--state", str(state_file)),
            ],
            home,
            _without_settings(),
        )
    )
    state = json.loads(_wait("the sandbox", 60, lambda: _text(state_file), home))
    web = _free_port(3000)
    environment = settings_of(home, database=database, sandbox=state["environment"], web=web)
    _write_env(home / ".env", environment)
    zlh = ["-m", "zlh_dagster.cli.main"]
    subprocess.run(
        [sys.executable, *zlh, "db", "upgrade"],
        env=environment,
        cwd=home,
        check=True,
        stdout=subprocess.DEVNULL,
    )
    _step("starting the controller: code server, daemon, web server, embedded Redis")
    stack.enter_context(_program("zlh", [*zlh, "up"], home, environment))
    _wait("the controller", 120, lambda: "zlh: up" in (_text(home / "zlh.log") or ""), home)
    _out.print(f"      web UI: [bold]http://127.0.0.1:{web}[/bold]")

    sandbox = stack.enter_context(httpx.Client(base_url=state["url"], timeout=10))
    engine = connect(database)
    stack.callback(engine.dispose)
    _step("waiting for the first tick (ticks come at every full minute)")
    _wait("the first tick", TICK_PATIENCE, lambda: _complete_ticks(home), home)
    _out.print(f"      {SERVERS} servers: records, backends, containers, agents, operations")

    evidence = _break(sandbox, state["environment"])
    _step(f"broke it: deleted [bold]{evidence.name}[/bold] over Cloudflare's API")
    _out.print("      nobody does anything now; the next tick finds it")
    ledger = Ledger(engine)
    _wait(
        "the repair", TICK_PATIENCE, lambda: [e for e in ledger.events() if e["finishedAt"]], home
    )
    # The message leaves after the repair; give it its time-out.
    with contextlib.suppress(DemoError):
        _wait("the Discord message", 15, lambda: sandbox.get("/sandbox/inbox").json(), home)
    evidence = evidence.gathered(
        events=ledger.events(),
        inbox=sandbox.get("/sandbox/inbox").json(),
        requests=sandbox.get("/sandbox/requests").json(),
        records=_records(sandbox, state["environment"], evidence.name),
    )
    problems = judge(evidence)
    report(_out, evidence, problems)
    if once or problems:
        _out.print(f"      logs: {home}/zlh.log", soft_wrap=True)
        return 1 if problems else 0
    _out.print(f"\nThe web UI is at [bold]http://127.0.0.1:{web}[/bold], logs in {home}/zlh.log.")
    _out.print("It stays up. Break something yourself and watch; Ctrl-C ends it all:\n")
    for example in examples(state["url"]):
        _out.print(f"  {example}", markup=False, soft_wrap=True)
    _out.print(f"\n  cd {home} && ../.venv/bin/zlh events   # zlh, on this demo\n", soft_wrap=True)
    _follow(sandbox)
    return 0


def settings_of(home: Path, *, database: str, sandbox: dict[str, str], web: int) -> dict[str, str]:
    """The environment of the demo's controller."""
    return {
        **_without_settings(),
        **sandbox,
        "ZLH_DATABASE_URL": database,
        "DAGSTER_HOME": str(home),
        "ZLH_REPAIR_MODE": "live",
        "ZLH_WEB_PORT": str(web),
        "ZLH_WEB_URL": f"http://127.0.0.1:{web}",
    }


def _write_env(path: Path, environment: dict[str, str]) -> None:
    """The demo's settings, so that `zlh` in its directory speaks to it."""
    names = [name.upper() for name in Settings.model_fields]
    lines = [f"{name}={environment[name]}\n" for name in names if name in environment]
    path.touch(mode=0o600)
    path.write_text("".join(lines))


def _fresh_home() -> Path:
    """An empty directory that only a demo ever used."""
    home = HOME.absolute()
    if home.exists():
        if not (home / _MARK).exists():
            raise DemoError(f"{home} was not made by a demo; move it away first")
        shutil.rmtree(home)
    home.mkdir(mode=0o700)
    (home / _MARK).touch()
    return home


@contextlib.contextmanager
def _program(
    name: str, arguments: list[str], home: Path, environment: dict[str, str]
) -> Iterator[None]:
    """A Python program in the background, its output in a file, ended on the way out.

    It runs in the demo's own directory, where no `.env` of a real platform is found.
    """
    with (home / f"{name}.log").open("wb") as log:
        process = subprocess.Popen(
            [sys.executable, *arguments],
            env=environment,
            cwd=home,
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )
    try:
        yield
    finally:
        process.terminate()
        try:
            process.wait(timeout=60)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()


def _wait(what: str, seconds: float, look: Any, home: Path) -> Any:
    """What ``look`` finds, once it finds something."""
    give_up = time.monotonic() + seconds
    with _out.status(f"waiting for {what} ..."):
        while time.monotonic() < give_up:
            found = look()
            if found:
                return found
            time.sleep(0.2)
    raise DemoError(f"{what} did not come within {seconds:.0f} s; look at {home}/*.log")


def _break(sandbox: httpx.Client, environment: dict[str, str]) -> Evidence:
    name = f"_minecraft._tcp.mc-{VMID}.{environment['ZLH_ZONE']}"
    record = _records(sandbox, environment, name)[0]
    sandbox.delete("/sandbox/requests")
    broken_at = time.time()
    answer = sandbox.delete(
        f"{_zone_path(environment)}/{record['id']}", headers=_bearer(environment)
    )
    answer.raise_for_status()
    return Evidence(name=name, vmid=VMID, broken_at=broken_at, was=record)


def _records(sandbox: httpx.Client, environment: dict[str, str], name: str) -> list[Any]:
    answer = sandbox.get(
        _zone_path(environment), params={"name": name}, headers=_bearer(environment)
    )
    answer.raise_for_status()
    return list(answer.json()["result"])


def _zone_path(environment: dict[str, str]) -> str:
    return f"/client/v4/zones/{environment['CLOUDFLARE_ZONE_ID']}/dns_records"


def _bearer(environment: dict[str, str]) -> dict[str, str]:
    return {"Authorization": f"Bearer {environment['CLOUDFLARE_API_TOKEN']}"}


def _follow(sandbox: httpx.Client) -> None:
    """Shows each Discord message as it arrives, until Ctrl-C."""
    seen = {message["id"] for message in sandbox.get("/sandbox/inbox").json()}
    while True:
        for message in sandbox.get("/sandbox/inbox").json():
            if message["id"] not in seen:
                seen.add(message["id"])
                show_message(_out, message)
        time.sleep(1)


def _complete_ticks(home: Path) -> list[Path]:
    files = {f"{source}.parquet" for source in (*SOURCES, DESIRED_EDGE)}
    ticks = home.glob("snapshots/*")
    return [tick for tick in ticks if files <= {path.name for path in tick.iterdir()}]


def examples(url: str) -> tuple[str, ...]:
    """What to break next: repaired; told and not repaired; unknown, and so not missing."""
    put = f"curl -X PUT {url}/sandbox"
    fault = '{"kind": "status", "code": 500}'
    unpaid = '{"billingStatus": "suspended"}'
    return (
        f"{put}/velocity/restart   # Velocity forgets everything",
        f"{put}/platform/servers/5001 -d '{unpaid}'   # unpaid, and it runs on",
        f"{put}/faults/cloudflare -d '{fault}'   # it fails, until: curl -X DELETE of the same",
    )


def _free_port(wanted: int) -> int:
    for port in (wanted, 0):
        with socket.socket() as probe, contextlib.suppress(OSError):
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            probe.bind(("127.0.0.1", port))
            return int(probe.getsockname()[1])
    raise DemoError("no free port on 127.0.0.1")


def _without_settings() -> dict[str, str]:
    """The environment without this machine's own settings: a demo never touches a real platform."""
    prefixes = (
        *("ZLH_", "CLOUDFLARE_", "TECHNITIUM_", "VELOCITY_", "TRAEFIK_", "ZPACK_"),
        *("PROXMOX_", "DISCORD_", "DAGSTER_"),
    )
    return {k: v for k, v in os.environ.items() if not k.upper().startswith(prefixes)}


def _text(path: Path) -> str | None:
    try:
        return path.read_text()
    except FileNotFoundError:
        return None


def _step(text: str) -> None:
    _out.print(f"[bold cyan]{time.strftime('%H:%M:%S')}[/bold cyan]  {text}")


def _interrupt(number: int, frame: Any) -> None:
    raise KeyboardInterrupt


if __name__ == "__main__":
    sys.exit(main())
