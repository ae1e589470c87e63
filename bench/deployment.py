"""A platform, a pretend edge in a process of its own, and a controller over them."""

import json
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from types import TracebackType
from typing import Any, TypeVar

import httpx

from tests.stack.stack import free_port
from zlh_dagster.resources import database
from zlh_dagster.resources.ledger import Ledger
from zlh_dagster.resources.redis import answers, server_program
from zlh_dagster.resources.services import Services
from zlh_dagster.resources.settings import load_settings
from zlh_dagster.schema.upgrade import upgrade

_START_SECONDS = 120.0
_STOP_SECONDS = 90.0
_T = TypeVar("_T")


class Deployment:
    """One fleet with its edge; everything below one directory, and gone in the end.

    Args:
        servers: Size of the fleet.
        settings: Settings of the controller beside those of the edge.
    """

    def __init__(self, servers: int, **settings: str) -> None:
        # Sockets need a short path.
        self.directory = Path(tempfile.mkdtemp(prefix="zlh-bench-"))
        self.home = self.directory / "home"
        url = f"sqlite:///{self.directory / 'platform.db'}"
        state = self.directory / "sandbox.json"
        self.processes: list[subprocess.Popen[bytes]] = []
        command = ["-m", "zlh_dagster.sandbox", "serve", "--database", url, "--state", str(state)]
        self._start([sys.executable, *command, "--servers", str(servers)], dict(os.environ))
        until(state.exists, seconds=_START_SECONDS, what="the sandbox")
        told = json.loads(state.read_text())
        self.control = httpx.Client(base_url=f"{told['url']}/sandbox", timeout=60)
        self.engine = database.connect(url)
        upgrade(self.engine)
        self.ledger = Ledger(self.engine)
        self.environment: dict[str, str] = {
            "PATH": os.environ["PATH"],
            "HOME": str(self.directory),
            **told["environment"],
            "ZLH_DATABASE_URL": url,
            "ZLH_REPAIR_MODE": "live",
            "DAGSTER_HOME": str(self.home),
            **settings,
        }

    def __enter__(self) -> "Deployment":
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()

    def up(self, *, web: bool) -> int:
        """`zlh up`, waited for; returns its process id.

        Args:
            web: Whether with the web server, on a port that is free now.
        """
        program = str(Path(sys.executable).parent / "zlh")
        log = self.directory / "zlh.log"
        command = [program, "up", *([] if web else ["--no-web"])]
        environment = self.environment | ({"ZLH_WEB_PORT": str(free_port())} if web else {})
        process = self._start(command, environment, log)

        def is_up() -> bool:
            if process.poll() is not None:
                raise RuntimeError(log.read_text())
            return "zlh: up" in log.read_text()

        until(is_up, seconds=_START_SECONDS, what="`zlh up`")
        return process.pid

    @contextmanager
    def services(self) -> Iterator[Services]:
        """The controller's outside systems in this process, with a Redis of their own."""
        socket = self.directory / "redis.sock"
        command = [server_program(), "--port", "0", "--unixsocket", str(socket), "--save", ""]
        self._start([*command, "--dir", str(self.directory)], {"PATH": os.environ["PATH"]})
        self.environment["ZLH_REDIS_URL"] = url = f"unix://{socket}"
        until(lambda: answers(url), seconds=_START_SECONDS, what="Redis")
        with self.as_environment(), Services(load_settings(env_file=None)) as services:
            yield services

    @contextmanager
    def as_environment(self) -> Iterator[None]:
        """This process with the environment of the deployment."""
        before = dict(os.environ)
        os.environ.update(self.environment)
        try:
            yield
        finally:
            os.environ.clear()
            os.environ.update(before)

    def requests(self) -> list[dict[str, Any]]:
        """Every request that reached the edge since the last clearing."""
        found: list[dict[str, Any]] = self.control.get("/requests").json()
        return found

    def break_srv(self, name: str) -> None:
        """Deletes a Cloudflare record the way an operator's mistake would."""
        environment = self.environment
        path = f"/zones/{environment['CLOUDFLARE_ZONE_ID']}/dns_records"
        token = {"Authorization": f"Bearer {environment['CLOUDFLARE_API_TOKEN']}"}
        with httpx.Client(base_url=environment["CLOUDFLARE_API_BASE"], headers=token) as client:
            [record] = client.get(path, params={"name": name}).json()["result"]
            client.delete(f"{path}/{record['id']}").raise_for_status()

    def close(self) -> None:
        """Ends every process that was started, the controller first."""
        self.control.close()
        for process in reversed(self.processes):
            if process.poll() is None:
                process.send_signal(signal.SIGTERM)
                process.wait(_STOP_SECONDS)
        self.engine.dispose()
        shutil.rmtree(self.directory, ignore_errors=True)

    def _start(
        self, command: list[str], environment: dict[str, str], log: Path | None = None
    ) -> "subprocess.Popen[bytes]":
        with (log or Path(os.devnull)).open("wb") as out:
            process = subprocess.Popen(
                command,
                env=environment,
                cwd=self.directory if log else None,
                stdin=subprocess.DEVNULL,
                stdout=out,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )
        self.processes.append(process)
        return process


def until(look: Callable[[], _T], *, seconds: float, what: str) -> _T:
    """What ``look`` finds, once it finds something."""
    give_up = time.monotonic() + seconds
    while time.monotonic() < give_up:
        found = look()
        if found:
            return found
        time.sleep(0.05)
    raise TimeoutError(f"{what} did not come within {seconds:.0f} s")
