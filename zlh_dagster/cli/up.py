"""`zlh up`: the whole controller in the foreground, everything below `$DAGSTER_HOME`."""

import fcntl
import os
import signal
import socket
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from queue import Empty, SimpleQueue
from types import FrameType

from zlh_dagster.cli.children import Child, NotStarted, lock_of
from zlh_dagster.cli.hangs import Hangs, serves_code
from zlh_dagster.cli.health import Watch, look
from zlh_dagster.cli.home import (
    LOCATION,
    LOG_LEVEL,
    MODULE,
    claim,
    environment_of,
    prepare,
    prepare_storage,
    web_command,
    workspace_of,
)
from zlh_dagster.core.snapshot import AHEAD_SECONDS
from zlh_dagster.resources.redis import RedisUnavailable, answers, embedded_command
from zlh_dagster.resources.services import Services
from zlh_dagster.resources.settings import Settings
from zlh_dagster.runs.broker import takes_runs
from zlh_dagster.web.alive import serves_web

WORKER, CODE_SERVER, DAEMON = "worker", "code server", "daemon"
_END_SECONDS = 15.0
_LOOK_SECONDS = 15.0


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
    lock = claim(settings.home, fcntl.LOCK_EX)
    stopping = _Stopping()
    children: list[Child] = []
    try:
        if web:
            _check_port(settings)
        grpc_server = {"socket": str(settings.socket("code")), "location_name": LOCATION}
        prepare(settings, {"grpc_server": grpc_server}, say)
        children = _children(settings, web=web)
        for child in children:
            if stopping():
                break
            child.start()
            child.wait_ready(stopping)
        if not stopping():
            say(_greeting(settings, web=web))
        with _watched(settings, children, say) as hanging:
            _watch(
                children,
                stopping,
                say,
                hanging=hanging,
                set_back=lambda: _set_back(settings, children, say),
            )
    finally:
        for child in reversed(children):
            child.stop()
            if child.name == CODE_SERVER:
                _give_up_the_lead(settings)
        lock.close()
    say("stopped")
    return 0


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
    environment = environment_of(settings)
    workspace = str(workspace_of(settings))
    code = settings.socket("code")
    children = []
    if settings.zlh_redis_url is None:
        children.append(
            Child(
                "Redis",
                embedded_command(settings),
                {"PATH": os.environ.get("PATH", ""), "LC_ALL": "C"},
                settings.home,
                ready=lambda: answers(settings.redis_url),
            )
        )
    if settings.zlh_run_launcher == "celery":
        # Nothing waits for it: while it is not there yet, runs are started without it.
        command = [sys.executable, "-m", "zlh_dagster.runs.worker"]
        children.append(
            Child(
                *(WORKER, command, environment, settings.home),
                works=lambda: takes_runs(settings),
            )
        )
    children.append(
        Child(
            CODE_SERVER,
            [
                *(sys.executable, "-m", "dagster", "api", "grpc"),
                *("--module-name", MODULE),
                *("--socket", str(code)),
                *("--location-name", LOCATION),
                *("--log-level", LOG_LEVEL),
            ],
            environment,
            settings.home,
            ready=lambda: _accepts(str(code)),
            works=lambda: serves_code(str(code)),
        )
    )
    children.append(
        Child(
            DAEMON,
            [
                *(sys.executable, "-m", "dagster._daemon", "run"),
                *("--workspace", workspace),
                *("--log-level", LOG_LEVEL),
            ],
            environment,
            settings.home,
            lock=lock_of(settings.home, DAEMON),
        )
    )
    if web:
        address = (settings.zlh_web_host, settings.zlh_web_port)
        children.append(
            Child(
                "web server",
                web_command(settings),
                environment,
                settings.home,
                ready=lambda: _accepts(address),
                works=lambda: serves_web(*address),
            )
        )
    return children


def _watch(
    children: list[Child],
    stopping: Callable[[], bool],
    say: Callable[[str], None],
    *,
    hanging: "SimpleQueue[list[Child]]",
    set_back: Callable[[], None],
) -> None:
    """Restarts what ends by itself, and what may hang or wait for an old clock, until the end."""
    due: dict[str, float] = {}
    began = time.time() - time.monotonic()
    while not stopping():
        ahead, began = began, time.time() - time.monotonic()
        if ahead - began > AHEAD_SECONDS:
            set_back()
        with suppress(Empty):
            _start_again(hanging.get_nowait(), say)
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


def _set_back(settings: Settings, children: list[Child], say: Callable[[str], None]) -> None:
    """The daemon and what it keeps would wait until the clock is where it was before."""
    say("the clock was set back; the daemon starts again and goes on from now")
    [daemon] = [child for child in children if child.name == DAEMON]
    daemon.stop()
    try:
        prepare_storage(settings)
    except NotStarted as error:
        say(f"it may stand still until the clock is where it was: {error}")
    daemon.start()


def _start_again(children: list[Child], say: Callable[[str], None]) -> None:
    say(f"starting again what may hang: {', '.join(child.name for child in children)}")
    for child in reversed(children):
        child.stop()
    for child in children:
        child.start()


@contextmanager
def _watched(
    settings: Settings, children: list[Child], say: Callable[[str], None]
) -> Iterator["SimpleQueue[list[Child]]"]:
    """Tells the operator when the loop stands still; yields who is to be started again."""
    over, hanging = threading.Event(), SimpleQueue[list[Child]]()
    # The daemon answers nobody: that it hangs shows in nothing but a loop that stands still.
    loop = [child for child in children if child.name in (WORKER, CODE_SERVER, DAEMON)]
    hangs = Hangs(children)
    with Services(settings) as services:
        watch = Watch(
            lambda: look(services), services.discord.send, lambda: hanging.put(loop), say=say
        )

        def run() -> None:
            while not over.wait(_LOOK_SECONDS):
                try:
                    watch.once()
                    for child in hangs.once():
                        hanging.put([child])
                except Exception as error:  # noqa: BLE001 - it looks again, whatever it was
                    say(f"whether all is well is not known: {type(error).__name__}: {error}")

        thread = threading.Thread(target=run, name="health", daemon=True)
        thread.start()
        try:
            yield hanging
        finally:
            over.set()
            thread.join(_END_SECONDS)


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
