"""Two whole deployments on one Redis and one database, over one pretend edge; to be broken."""

import contextlib
import itertools
import json
import os
import signal
import subprocess
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from datetime import datetime, timezone
from pathlib import Path
from typing import Any

import httpx
import redis

from tests.faults.laws import SLACK, check_rows, check_told, check_writes, utc
from tests.faults.machine import Clock, Disk
from tests.harness import edge_state, writes
from tests.stack.stack import Stack, children_of, free_port, until
from zlh_dagster.resources.leader import KEY as LEADER
from zlh_dagster.resources.lease import KEY as LEASE
from zlh_dagster.resources.redis import answers, connect, server_program
from zlh_dagster.sandbox.fault_kinds import FAULT_KINDS
from zlh_dagster.sandbox.faults import Fault as EdgeFault

SERVERS = 120
"""More than are broken within an hour: none comes to its limit of three repairs."""

BACK_SECONDS = 120.0
"""Within so many seconds after a fault ended, the loop is back to verified repairs."""

LEASE_SECONDS, OPEN_SECONDS = 30, 20
PARTS = {
    "worker": "zlh_dagster.runs.worker",
    "code server": "dagster api grpc",
    "daemon": "dagster._daemon",
    "web server": "dagster_webserver",
}
_ASK_EVERY = 12.0
_ALL = 10_000


class OwnRedis:
    """A Redis that can be killed, started empty, and stopped for a while."""

    def __init__(self, directory: Path, environment: dict[str, str]) -> None:
        self._directory = directory
        self._environment = {**os.environ, **environment}
        self.url = f"unix://{directory / 'r.sock'}"
        self._process: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        """Starts it, empty."""
        socket = self._directory / "r.sock"
        options = ("--port", "0", "--unixsocket", str(socket), "--dir", str(self._directory))
        quiet = {"stdout": subprocess.DEVNULL, "stderr": subprocess.DEVNULL}
        self._process = subprocess.Popen(
            [server_program(), *options, "--save", "", "--appendonly", "no"],
            env=self._environment,
            **quiet,
        )
        until(lambda: answers(self.url), seconds=20, what="Redis")

    @property
    def pid(self) -> int:
        assert self._process is not None
        return self._process.pid

    def signal(self, number: int) -> None:
        assert self._process is not None
        self._process.send_signal(number)

    def holds(self, key: str) -> bool:
        with connect(self.url) as client:
            return bool(client.exists(key))

    def kill(self) -> None:
        """As if the power went."""
        if self._process is not None:
            self._process.kill()
            self._process.wait()
            self._process = None


class Controller(Stack):
    """One of two deployments; the platform and the edge are those of the rig."""

    def __init__(self, directory: Path, shared: dict[str, str], name: str) -> None:
        self.directory = directory
        self.name = name
        self.disk = Disk(directory / name)
        self.environment = {
            **shared,
            "DAGSTER_HOME": str(directory / name),
            "ZLH_WEB_PORT": str(free_port()),
        }
        self.log = directory / f"{name}.log"
        self.process = None

    @property
    def home(self) -> Path:
        return Path(self.environment["DAGSTER_HOME"])

    def close(self) -> None:
        if self.process is not None:
            self.down()
        self.disk.close()

    def pid(self, part: str) -> int:
        """The process of a part, waited for: it may just be starting again."""
        found = until(lambda: self._find(part), seconds=60, what=f"the {part} of {self.name}")
        assert found is not None
        return found

    def _find(self, part: str) -> int | None:
        assert self.process is not None
        for child in sorted(children_of(self.process.pid)):
            with contextlib.suppress(OSError):
                parent = int(Path(f"/proc/{child}/stat").read_text().rpartition(")")[2].split()[1])
                words = Path(f"/proc/{child}/cmdline").read_bytes().replace(b"\0", b" ").decode()
                if parent == self.process.pid and PARTS[part] in words:
                    return child
        return None

    def family(self) -> set[int]:
        """All its processes."""
        assert self.process is not None
        return {self.process.pid, *children_of(self.process.pid)}


@dataclass
class Seen:
    """What became of one fault."""

    fault: str
    seconds: float
    """From the end of the fault to the edge as desired, proved and closed in the ledger."""

    statuses: Counter[str] = field(default_factory=Counter)
    titles: list[str] = field(default_factory=list)


class Rig:
    """The platform, the edge, Redis, and two controllers.

    Args:
        directory: Short, for sockets are below it.
    """

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        self.clock = Clock(directory)
        self.redis = OwnRedis(directory, self.clock.environment())
        self.redis.start()
        self._base = Stack(
            directory,
            servers=SERVERS,
            ZLH_REDIS_URL=self.redis.url,
            ZLH_LEASE_SECONDS=str(LEASE_SECONDS),
            ZLH_SURFACE_OPEN_SECONDS=str(OPEN_SECONDS),
        )
        self.sandbox, self.ledger = self._base.sandbox, self._base.ledger
        self.engine = self._base.engine
        self.database = directory / "platform.db"
        self.desired = edge_state(self.sandbox)
        shared = {k: v for k, v in self._base.environment.items() if k != "DAGSTER_HOME"}
        shared |= self.clock.environment()
        self.controllers = [Controller(directory, shared, name) for name in ("one", "two")]
        self._next = itertools.count()
        self.broken = 0

    def start(self) -> "Rig":
        for controller in self.controllers:
            controller.up()
        until(lambda: self.leader is not None, seconds=60, what="a leader")
        return self

    def close(self) -> None:
        for controller in self.controllers:
            controller.close()
        self._base.close()
        self.redis.kill()

    @property
    def leader(self) -> Controller | None:
        """Who leads, as Redis says."""
        with contextlib.suppress(redis.RedisError, ValueError), connect(self.redis.url) as client:
            name = json.loads(client.get(LEADER) or "{}").get("name", "")
            for controller in self.controllers:
                if f"({controller.home})" in name:
                    return controller
        return None

    def leads(self) -> Controller:
        """The same, waited for."""
        found = until(lambda: self.leader, seconds=90, what="a leader")
        assert found is not None
        return found

    def ask(self) -> None:
        """Asks both for a tick now; who cannot be asked has the minute's."""
        for controller in self.controllers:
            with contextlib.suppress(httpx.HTTPError, AssertionError, ValueError, KeyError):
                controller.ask_for_a_tick()

    def break_one(self, surface: str = "cloudflare") -> int:
        """One server's record on a surface is gone, each time another's; ``broken`` is it."""
        edge = self.sandbox.edge
        while True:
            self.broken = vmid = 5000 + next(self._next) % SERVERS
            if surface == "cloudflare":
                record = next(r for r in edge.cloudflare.records() if _of(r.name, vmid))
                edge.cloudflare.remove(record.id)
                return vmid
            if surface == "technitium":
                record = next(r for r in edge.technitium.records() if _of(r.name, vmid))
                edge.technitium.remove(record.key())
                return vmid
            backends = edge.velocity.backends()
            left = [backend for backend in backends if not _of(backend.name, vmid)]
            if left != backends:  # servers of other games are not registered
                edge.velocity.restart()
                edge.velocity.seed(left)
                return vmid

    @contextlib.contextmanager
    def between_write_and_check(self, surface: str) -> Iterator[threading.Event]:
        """The first look after the next write hangs; the event tells that it has begun."""
        original, reached = self.sandbox.edge.faults.take, threading.Event()
        armed = threading.Event()
        options = {name: option.default for name, option in FAULT_KINDS["hang"].options.items()}

        def take(asked: str, *, write: bool, listing: bool, page: str | None) -> EdgeFault | None:
            if asked == surface and write:
                armed.set()
            elif asked == surface and armed.is_set():
                reached.set()
                return EdgeFault("hang", {**options, "seconds": 60})
            return original(asked, write=write, listing=listing, page=page)

        with self._asked_before_the_edge(take):
            yield reached

    @contextlib.contextmanager
    def between_look_and_write(self, surface: str, happen: Callable[[], None]) -> Iterator[None]:
        """It happens during the next look of a repair: a listing while the lease is held."""
        original, happened = self.sandbox.edge.faults.take, threading.Event()

        def take(asked: str, *, write: bool, listing: bool, page: str | None) -> EdgeFault | None:
            of_a_look = asked == surface and listing and not write and not happened.is_set()
            if of_a_look and self.redis.holds(LEASE):
                happened.set()
                happen()
            return original(asked, write=write, listing=listing, page=page)

        with self._asked_before_the_edge(take):
            yield

    @contextlib.contextmanager
    def _asked_before_the_edge(self, take: Callable[..., EdgeFault | None]) -> Iterator[None]:
        """Every call to the edge takes its fault from there."""
        board = self.sandbox.edge.faults
        board.take = take
        try:
            yield
        finally:
            del board.take

    def in_step(self) -> bool:
        """The edge is as desired, and no row of the ledger is open."""
        return edge_state(self.sandbox) == self.desired and not any(
            event["finishedAt"] is None for event in self.ledger.events(limit=_ALL)
        )

    def endure(self, fault: "Fault") -> Seen:
        """Breaks a record, lets the fault happen, and waits for a verified repair.

        Where the edge is as desired by a write whose run ended before its check, another record is
        broken: the loop has yet to show that it repairs.

        Raises:
            AssertionError: If it does not within its time, or a law was broken.
        """
        assert self.in_step(), "the rig is out of step before the fault"
        self.clock.settle()
        known = {event["id"] for event in self.ledger.events(limit=_ALL)}
        began = datetime.now(timezone.utc)
        self.sandbox.edge.journal.clear()
        told = len(self.sandbox.edge.discord.inbox())
        broken = {self.break_one(fault.surface)}
        fault.happen(self)
        healed = time.monotonic()
        self._wait_until_in_step(fault)
        if not any(e["status"] == "succeeded" for e in self._since(known)):
            broken.add(self.break_one(fault.surface))
            self._wait_until_in_step(fault)
        seconds = time.monotonic() - healed
        assert seconds < fault.back, f"a verified repair only after {seconds:.0f} s"
        self._settle()
        embeds = [m.payload["embeds"][0] for m in self.sandbox.edge.discord.inbox()[told:]]
        titles = [embed["title"] for embed in embeds]
        events = self._since(known)
        for event in events:
            for name in ("createdAt", "finishedAt"):
                event[name] = self._real(event[name], since=began)
        seen = Seen(fault.name, seconds, Counter(e["status"] for e in events), titles)
        self._check_laws(events, fault.surface, broken)
        twice = [title for title, count in Counter(titles).items() if count > 1]
        assert twice == [], f"told more than once: {twice}"
        if fault.told:
            check_told({e["status"] for e in events if e["vmid"] in broken}, embeds)
        return seen

    def _since(self, known: set[str]) -> list[dict[str, Any]]:
        """The rows of the ledger that are not among those known."""
        return [e for e in self.ledger.events(limit=_ALL) if e["id"] not in known]

    def _real(self, moment: datetime, *, since: datetime) -> datetime:
        """When the controllers wrote that, by the clock of this process."""
        now = datetime.now(timezone.utc) + SLACK
        return self.clock.real(utc(moment), since=since - SLACK, until=now)

    def recovers(self) -> bool:
        """Whether the edge comes to be as desired without any fault, given five times as long."""
        self.sandbox.edge.faults.clear()
        return self._comes_in_step(5 * BACK_SECONDS)

    def _wait_until_in_step(self, fault: "Fault") -> None:
        if not self._comes_in_step(fault.back, ask=fault.ask):
            wrong = [r for r in self.desired if r not in edge_state(self.sandbox)]
            raise AssertionError(f"not back after {fault.back} s: {wrong[:3]}")

    def _comes_in_step(self, seconds: float, *, ask: bool = True) -> bool:
        give_up = time.monotonic() + seconds
        asked = 0.0
        while not self.in_step():
            now = time.monotonic()
            if now > give_up:
                return False
            if ask and now - asked > _ASK_EVERY:
                self.ask()
                asked = time.monotonic()
            time.sleep(0.2)
        return True

    def _settle(self) -> None:
        """The run that repaired ends, and its message comes."""
        time.sleep(3)

    def _check_laws(self, events: list[dict[str, Any]], surface: str, broken: set[int]) -> None:
        check_rows(events, surface, broken)
        check_writes(writes(self.sandbox), events, surface)


@dataclass(frozen=True)
class Fault:
    """Something that goes wrong, and what is promised then.

    Attributes:
        name: For tables.
        promise: What the operator may rely on.
        happen: Lets it happen and end.
        surface: Where the record is broken that is to be repaired.
        quick: Whether it is short enough for every test run.
        back: Within so many seconds after it ended the loop is back.
        possible: Tells whether it can be made to happen on this machine.
        ask: Whether ticks are asked for; else those of the schedule must do.
        told: Whether Discord can be told meanwhile.
    """

    name: str
    promise: str
    happen: Callable[[Rig], None]
    surface: str = "cloudflare"
    quick: bool = False
    back: float = BACK_SECONDS
    possible: Callable[[], bool] = lambda: True
    ask: bool = True
    told: bool = True


def kill(pid: int, number: int = signal.SIGKILL) -> None:
    """Ends a process of ours; one that is gone already is no error."""
    with contextlib.suppress(ProcessLookupError):
        os.kill(pid, number)


def _of(name: str, vmid: int) -> bool:
    return f"-{vmid}." in f"{name}." and "-" in name
