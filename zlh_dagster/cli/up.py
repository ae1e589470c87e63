"""`zlh up`: the whole controller in the foreground, everything below `$DAGSTER_HOME`."""

import fcntl
import json
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable
from types import FrameType

import redis
from sqlalchemy.exc import SQLAlchemyError

from zlh_dagster.cli.children import Child, NotStarted
from zlh_dagster.cli.home import prepare_home
from zlh_dagster.resources.database import connect as connect_database
from zlh_dagster.resources.database import explain
from zlh_dagster.resources.redis import RedisUnavailable, connect, embedded_command
from zlh_dagster.resources.services import Services
from zlh_dagster.resources.settings import Settings
from zlh_dagster.schema.upgrade import current, head, upgrade

LOCATION = "zlh"
MODULE = "zlh_dagster.definitions"
_LOG_LEVEL = "warning"


class AlreadyUp(Exception):
    """Another `zlh up` works on the same `$DAGSTER_HOME`."""


def run(settings: Settings, *, web: bool, say: Callable[[str], None]) -> int:
    """Starts everything, keeps it running, and ends all of it on SIGTERM or SIGINT.

    Args:
        settings: The settings, already checked.
        web: Whether to serve the web UI.
        say: Where one-line messages go.

    Returns:
        The exit status.

    Raises:
        AlreadyUp: If this `$DAGSTER_HOME` is in use.
        NotStarted: If a part does not come up.
    """
    os.umask(0o077)
    home = settings.home
    home.mkdir(mode=0o700, parents=True, exist_ok=True)
    lock = (home / "zlh.lock").open("w")
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        raise AlreadyUp(
            f"another `zlh up` runs on {home}: stop it, or set another DAGSTER_HOME"
        ) from None
    stopping = _Stopping()
    children: list[Child] = []
    try:
        if web:
            _check_port(settings)
        _prepare(settings, say)
        children = _children(settings, web=web)
        for child in children:
            if stopping():
                break
            child.start()
            child.wait_ready(stopping)
        if not stopping():
            say(_greeting(settings, web=web))
        _watch(children, stopping, say)
    finally:
        for child in reversed(children):
            child.stop()
            if child.name == "code server":
                _give_up_the_lead(settings)
        lock.close()
    say("stopped")
    return 0


def _prepare(settings: Settings, say: Callable[[str], None]) -> None:
    home = settings.home
    told = prepare_home(home)
    if told is not None:
        say(told)
    grpc_server = {"socket": str(settings.socket("code")), "location_name": LOCATION}
    workspace = {"load_from": [{"grpc_server": grpc_server}]}
    (home / "workspace.yaml").write_text(json.dumps(workspace))
    _check_ledger(settings, say)
    command = [sys.executable, "-m", "zlh_dagster.cli.prepare"]
    done = subprocess.run(
        command,
        env=_environment(settings),
        cwd=home,
        check=False,
        capture_output=True,
        text=True,
    )
    if done.returncode:
        last = (done.stderr.strip().splitlines() or ["no message"])[-1]
        raise NotStarted(f"{home} could not be prepared for Dagster: {last}")


def _check_ledger(settings: Settings, say: Callable[[str], None]) -> None:
    """The ledger's table must be there; our own SQLite gets it, a platform's database is asked."""
    engine = connect_database(settings.database_url)
    try:
        if settings.zlh_database_url is None:
            upgrade(engine)
        elif current(engine) != head():
            raise NotStarted("the ledger's table is missing or old: run `zlh db upgrade` first")
    except SQLAlchemyError as error:
        say(f"{explain(error)}; nothing is repaired until it answers")
    finally:
        engine.dispose()


def _check_port(settings: Settings) -> None:
    family = socket.AF_INET6 if ":" in settings.zlh_web_host else socket.AF_INET
    with socket.socket(family, socket.SOCK_STREAM) as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((settings.zlh_web_host, settings.zlh_web_port))
        except OSError as error:
            raise NotStarted(
                f"ZLH_WEB_HOST, ZLH_WEB_PORT: {settings.zlh_web_host}:{settings.zlh_web_port}"
                f" cannot be listened on ({error.strerror}); set another, or use --no-web"
            ) from None


def _children(settings: Settings, *, web: bool) -> list[Child]:
    environment = _environment(settings)
    workspace = str(settings.home / "workspace.yaml")
    code = settings.socket("code")
    code.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    children = []
    if settings.zlh_redis_url is None:
        children.append(
            Child(
                "Redis",
                embedded_command(settings),
                {"PATH": os.environ.get("PATH", ""), "LC_ALL": "C"},
                settings.home,
                ready=lambda: _pings(settings.redis_url),
            )
        )
    if settings.zlh_run_launcher == "celery":
        # Nothing waits for it: while it is not there yet, runs are started without it.
        command = [sys.executable, "-m", "zlh_dagster.runs.worker"]
        children.append(Child("worker", command, environment, settings.home))
    children.append(
        Child(
            "code server",
            [
                *(sys.executable, "-m", "dagster", "api", "grpc"),
                *("--module-name", MODULE),
                *("--socket", str(code)),
                *("--location-name", LOCATION),
                *("--log-level", _LOG_LEVEL),
            ],
            environment,
            settings.home,
            ready=lambda: _accepts(str(code)),
        )
    )
    children.append(
        Child(
            "daemon",
            [
                *(sys.executable, "-m", "dagster._daemon", "run"),
                *("--workspace", workspace),
                *("--log-level", _LOG_LEVEL),
            ],
            environment,
            settings.home,
        )
    )
    if web:
        address = (settings.zlh_web_host, settings.zlh_web_port)
        children.append(
            Child(
                "web server",
                [
                    *(sys.executable, "-m", "dagster_webserver"),
                    *("--workspace", workspace),
                    *("--host", address[0], "--port", str(address[1])),
                    *("--dagster-log-level", _LOG_LEVEL),
                ],
                environment,
                settings.home,
                ready=lambda: _accepts(address),
            )
        )
    return children


def _watch(children: list[Child], stopping: "_Stopping", say: Callable[[str], None]) -> None:
    """Restarts whatever ends by itself, until asked to stop."""
    due: dict[str, float] = {}
    while not stopping():
        for child in children:
            if child.alive():
                continue
            if child.name not in due:
                pause = child.pause()
                due[child.name] = time.monotonic() + pause
                say(f"{child.name} ended by itself; starting it again in {pause:.1f} s")
            elif time.monotonic() >= due[child.name]:
                del due[child.name]
                child.stop()
                child.start()
        time.sleep(0.2)


class _Stopping:
    """Whether SIGTERM or SIGINT asked for the end."""

    def __init__(self) -> None:
        self._asked = False
        for number in (signal.SIGTERM, signal.SIGINT):
            signal.signal(number, self._ask)

    def __call__(self) -> bool:
        return self._asked

    def _ask(self, number: int, frame: FrameType | None) -> None:
        self._asked = True


def _give_up_the_lead(settings: Settings) -> None:
    """Lets a standby take over at once, instead of when the lead runs out."""
    try:
        with Services(settings) as services:
            services.leadership.release()
    except RedisUnavailable:
        # Then the lead runs out by itself.
        return


def _environment(settings: Settings) -> dict[str, str]:
    # Celery lets its own variables overrule the settings; another program's are not meant.
    given = {k: v for k, v in os.environ.items() if not k.startswith("CELERY_")}
    return {**given, **settings.environment()}


def _accepts(address: str | tuple[str, int]) -> bool:
    family = socket.AF_UNIX if isinstance(address, str) else socket.AF_UNSPEC
    try:
        if isinstance(address, str):
            with socket.socket(family, socket.SOCK_STREAM) as connection:
                connection.settimeout(1)
                connection.connect(address)
        else:
            socket.create_connection(address, timeout=1).close()
    except OSError:
        return False
    return True


def _pings(url: str) -> bool:
    client = connect(url)
    try:
        return bool(client.ping())
    except redis.RedisError:
        return False
    finally:
        client.close()


def _greeting(settings: Settings, *, web: bool) -> str:
    mode = "repairs are on" if settings.live else "dry run: nothing is written"
    surfaces = [
        name
        for name, on in (
            ("Cloudflare", settings.cloudflare_on),
            ("Technitium", settings.technitium_on),
            ("Velocity", settings.velocity_on),
            ("Proxmox", settings.proxmox_on),
        )
        if on
    ]
    parts = [f"up ({mode})", f"watching {', '.join(surfaces) or 'no surface yet'}"]
    if web:
        parts.append(f"web UI http://{settings.zlh_web_host}:{settings.zlh_web_port}")
    return "; ".join(parts)
