"""The real processes of one deployment, over a sandbox edge of its own."""

import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar

import httpx
import sqlalchemy as sa

from tests.stack.planted import planted_config, with_tokens
from zlh_dagster.resources.ledger import Ledger
from zlh_dagster.sandbox.fleet import create_platform_tables, write_fleet
from zlh_dagster.sandbox.publish import publish_database
from zlh_dagster.sandbox.server import Sandbox
from zlh_dagster.schema.upgrade import upgrade

ROOT = Path(__file__).parents[2]
BIN = Path(sys.executable).parent
SERVERS = 8
_T = TypeVar("_T")


def until(look: Callable[[], _T], *, seconds: float, what: str) -> _T:
    """What ``look`` finds, once it finds something."""
    give_up = time.monotonic() + seconds
    while time.monotonic() < give_up:
        found = look()
        if found:
            return found
        time.sleep(0.2)
    raise AssertionError(f"{what} did not come within {seconds:.0f} s")


class Stack:
    """A platform, a sandbox edge, and `zlh` as a user starts it; Redis is the embedded one."""

    def __init__(self, directory: Path, *, servers: int = SERVERS, **overrides: str) -> None:
        self.directory = directory
        url = f"sqlite:///{directory / 'platform.db'}"
        self.engine = sa.create_engine(url)
        create_platform_tables(self.engine)
        write_fleet(self.engine, servers=servers, loopback=True)
        upgrade(self.engine)
        self.sandbox = Sandbox(planted_config())
        self.sandbox.start()
        publish_database(self.sandbox.edge, self.engine)
        self.ledger = Ledger(self.engine)
        settings = {**self.sandbox.environment(), "ZLH_DATABASE_URL": url, **overrides}
        self.environment = {
            "PATH": os.environ["PATH"],
            "HOME": str(directory),
            "ZLH_REPAIR_MODE": "live",
            "DAGSTER_HOME": str(directory / "home"),
            **settings,
            **with_tokens(settings),
        }
        self.log = directory / "zlh.log"
        self.process: subprocess.Popen[bytes] | None = None

    def up(self, *arguments: str) -> "Stack":
        """`zlh up`, waited for until it says so."""
        with self.log.open("wb") as log:
            self.process = subprocess.Popen(
                [BIN / "zlh", "up", *arguments],
                env=self.environment,
                cwd=self.directory,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )
        until(self._is_up, seconds=120, what="`zlh up`")
        return self

    def _is_up(self) -> bool:
        text = self.log.read_text()
        assert self.process is not None
        assert self.process.poll() is None, text
        return "zlh: up" in text

    def down(self) -> int:
        """SIGTERM, and the exit status."""
        assert self.process is not None
        self.process.send_signal(signal.SIGTERM)
        status = self.process.wait(timeout=90)
        self.process = None
        return status

    def close(self) -> None:
        if self.process is not None:
            self.down()
        self.sandbox.stop()
        self.engine.dispose()

    def run(self, *command: str, **options: Any) -> "subprocess.CompletedProcess[str]":
        """A command of the installation, in the environment of this deployment."""
        return subprocess.run(
            [BIN / command[0], *command[1:]],
            env=self.environment,
            cwd=ROOT,
            capture_output=True,
            text=True,
            check=False,
            **{"timeout": 180, **options},
        )

    def ask_for_a_tick(self) -> None:
        """Instead of waiting for the full minute; over the web server where there is one."""
        if "ZLH_WEB_PORT" not in self.environment:
            command = ("dagster", "job", "launch", "-w", "workspace.yaml", "-j", "observe")
            done = self.run(*command)
            assert done.returncode == 0, done.stderr
            return
        selector = {
            "repositoryLocationName": "zlh",
            "repositoryName": "__repository__",
            "jobName": "observe",
        }
        query = (
            "mutation ($selector: JobOrPipelineSelector!) { launchRun(executionParams:"
            " {selector: $selector}) { __typename ... on PythonError { message } } }"
        )
        url = f"http://127.0.0.1:{self.environment['ZLH_WEB_PORT']}/graphql"
        asked = {"query": query, "variables": {"selector": selector}}
        answer = httpx.post(url, json=asked, timeout=60).json()
        assert answer["data"]["launchRun"]["__typename"] == "LaunchRunSuccess", answer

    def delete_over_api(self, name: str) -> None:
        """Deletes a Cloudflare record the way an operator's mistake would."""
        environment = self.environment
        zone = environment["CLOUDFLARE_ZONE_ID"]
        with httpx.Client(
            base_url=environment["CLOUDFLARE_API_BASE"],
            headers={"Authorization": f"Bearer {environment['CLOUDFLARE_API_TOKEN']}"},
        ) as client:
            path = f"/zones/{zone}/dns_records"
            [record] = client.get(path, params={"name": name}).json()["result"]
            client.delete(f"{path}/{record['id']}").raise_for_status()

    def finished_events(self) -> list[dict[str, Any]]:
        return [event for event in self.ledger.events(limit=500) if event["finishedAt"]]

    def controller_writes(self) -> list[tuple[str, str]]:
        """Writes to the edge that no test made."""
        return [
            (entry.surface, entry.method)
            for entry in self.sandbox.edge.journal.entries()
            if entry.write and entry.surface != "discord" and entry.method != "DELETE"
        ]


def repair_yaml(directory: Path, *, action: str = "edge_republish", live: bool = True) -> Path:
    """The config of the contract, as a file."""
    path = directory / "repair.yaml"
    path.write_text(
        f"""ops:
  level1_repair:
    config:
      repairs:
        - {{vmid: 5000, action: {action}}}
      requested_by: operator
      live: {str(live).lower()}
"""
    )
    return path


def free_port() -> int:
    """A TCP port on which nobody listens."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def children_of(pid: int) -> set[int]:
    """All descendants of a process."""
    found: set[int] = set()
    for status in Path("/proc").glob("[0-9]*/stat"):
        try:
            parent = int(status.read_text().rpartition(")")[2].split()[1])
        except (OSError, ValueError):
            continue
        if parent == pid:
            child = int(status.parent.name)
            found |= {child} | children_of(child)
    return found


def alive(pids: set[int]) -> set[int]:
    """Those that still run; one that ended and only waits to be collected does not."""
    running = set()
    for pid in pids:
        try:
            state = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
        except OSError:
            continue
        if state != "Z":
            running.add(pid)
    return running
