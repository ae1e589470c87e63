"""Every fault that the loop must survive, and what is promised for it."""

import os
import signal
import sqlite3
import time
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from datetime import timedelta

from tests.faults.machine import Clock, may_mount
from tests.faults.rig import BACK_SECONDS, LEASE_SECONDS, PARTS, Controller, Fault, Rig, kill
from tests.stack.stack import children_of, until
from zlh_dagster.cli.health import GOOD_SECONDS, STALL_SECONDS
from zlh_dagster.resources.gate import LIMIT_SECONDS
from zlh_dagster.resources.leader import KEY as LEADER
from zlh_dagster.resources.lease import KEY as LEASE
from zlh_dagster.resources.redis import connect
from zlh_dagster.sandbox.platform_rows import change_server

_A_LOOK = 14.0
"""Seconds in which a tick that was asked for is judged and repaired, on a machine with little to
do; so long a fault lasts that nobody has to wait for."""

NEXT_TICK = "the next tick repairs what is still wrong"


def _kill_between(part: str) -> Callable[[Rig], None]:
    def happen(rig: Rig) -> None:
        with _held_repair(rig) as leader:
            kill(leader.pid(part))

    return happen


@contextmanager
def _held_repair(rig: Rig) -> Iterator[Controller]:
    """A repair stands between its write and its check; yields who does it."""
    leader = rig.leads()
    with rig.between_write_and_check("cloudflare") as reached:
        for _ in range(3):
            rig.ask()
            if reached.wait(30):
                break
        assert reached.is_set(), "no repair was begun"
        yield leader


def _stop_the_holder(rig: Rig) -> None:
    """Everything of the leader stands still for longer than lease and lead, and then goes on."""
    with _held_repair(rig) as leader:
        family = leader.family()
        for pid in family:
            kill(pid, signal.SIGSTOP)
    time.sleep(LEASE_SECONDS + 8)
    for pid in family:
        kill(pid, signal.SIGCONT)


def _kill_everything(rig: Rig) -> None:
    """The machine of the leader is gone: the standby takes over; later it is back."""
    with _held_repair(rig) as leader:
        for pid in leader.family():
            kill(pid)
        assert leader.process is not None
        leader.process.wait()
        leader.process = None
    until(lambda: rig.leader not in (None, leader), seconds=3 * LEASE_SECONDS, what="the standby")
    leader.up()


def _stand_still(part: str) -> Callable[[Rig], None]:
    """A part of the leader lives and does nothing; the edge is repaired, then it starts anew."""

    def happen(rig: Rig) -> None:
        leader = rig.leads()
        hanging = leader.pid(part)
        for pid in {hanging, *children_of(hanging)}:
            kill(pid, signal.SIGSTOP)
        give_up = time.monotonic() + BACK_SECONDS
        while not rig.in_step():
            assert time.monotonic() < give_up, f"no repair while the {part} stands still"
            rig.ask()
            time.sleep(12)
        until(
            lambda: leader.pid(part) != hanging,
            seconds=GOOD_SECONDS + STALL_SECONDS + BACK_SECONDS,
            what=f"another {part}",
        )

    return happen


def _redis(action: Callable[[Rig], None], *, between: bool = False) -> Callable[[Rig], None]:
    def happen(rig: Rig) -> None:
        if not between:
            rig.ask()
            time.sleep(1)
            action(rig)
            return
        with _held_repair(rig):
            action(rig)

    return happen


def _restart_redis_empty(rig: Rig) -> None:
    rig.redis.kill()
    time.sleep(3)
    rig.redis.start()


def _hang_redis(rig: Rig) -> None:
    rig.redis.signal(signal.SIGSTOP)
    time.sleep(20)
    rig.redis.signal(signal.SIGCONT)


def _lose_answers(rig: Rig) -> None:
    """Every connection is cut, over and over."""
    give_up = time.monotonic() + _A_LOOK
    while time.monotonic() < give_up:
        with connect(rig.redis.url) as client:
            client.client_kill_filter(_type="normal", skipme=True)
        time.sleep(0.5)


def _overwrite_the_lease(rig: Rig) -> None:
    with connect(rig.redis.url) as client:
        client.set(LEASE, "somebody wrote here", px=5_000)


def _overwrite_for_good(key: str) -> Callable[[Rig], None]:
    """Before a repair begins, so that none succeeds while that stands there."""

    def happen(rig: Rig) -> None:
        with connect(rig.redis.url) as client:
            client.set(key, "somebody wrote here")
        rig.ask()

    return happen


def _lock_the_database(rig: Rig) -> None:
    with closing(sqlite3.connect(rig.database, isolation_level=None)) as connection:
        connection.execute("BEGIN EXCLUSIVE")
        rig.ask()
        time.sleep(_A_LOOK)
        connection.execute("ROLLBACK")


def _database_gone(rig: Rig) -> None:
    """For a minute every connection fails: the file is another one's, and no database."""
    aside = rig.database.with_name("aside.db")
    os.rename(rig.database, aside)
    rig.database.write_bytes(b"this is no database" * 100)
    rig.ask()
    time.sleep(60)
    os.replace(aside, rig.database)


def _change_the_row(rig: Rig) -> None:
    """Between a repair's look and its write the server goes into maintenance, for a while."""
    vmid, known = rig.broken, len(rig.ledger.events(limit=100_000))

    def refused() -> bool:
        rows = rig.ledger.events(limit=100_000)
        return len(rows) > known and not any(row["finishedAt"] is None for row in rows)

    def change() -> None:
        change_server(rig.engine, vmid, maintenanceReason="moving disks")

    try:
        with rig.between_look_and_write("cloudflare", change):
            rig.ask()
            until(refused, seconds=90, what="the refused repair")
        [event] = rig.ledger.events(vmid=vmid, limit=1)
        assert (event["status"], event["error"]["code"]) == ("refused", "maintenance"), event
    finally:
        change_server(rig.engine, vmid, maintenanceReason=None)


def _edge(
    surface: str, kind: str, seconds: float = _A_LOOK, **options: object
) -> Callable[[Rig], None]:
    def happen(rig: Rig) -> None:
        rig.sandbox.edge.faults.switch_on(surface, kind, **options)
        rig.ask()
        time.sleep(_A_LOOK)
        rig.sandbox.edge.faults.switch_off(surface)

    return happen


def _nobody_listens(rig: Rig) -> None:
    """Every connection is refused: those to the edge, to Proxmox, to agents, to Discord."""
    rig.sandbox.stop()
    rig.ask()
    time.sleep(_A_LOOK)
    rig.sandbox.start()


def _agents(mode: str) -> Callable[[Rig], None]:
    """All agents, for a look; the edge is repaired meanwhile."""

    def happen(rig: Rig) -> None:
        containers = rig.sandbox.edge.containers
        for container in containers.containers():
            containers.change_agent(container.vmid, mode=mode)
        rig.ask()
        until(rig.in_step, seconds=90, what="the repair while no agent answers")
        for container in containers.containers():
            containers.change_agent(container.vmid, mode="healthy")

    return happen


def _discord(kind: str, **options: object) -> Callable[[Rig], None]:
    """The repair is done while Discord is away; its message may come later, or be in the log."""

    def happen(rig: Rig) -> None:
        rig.sandbox.edge.faults.switch_on("discord", kind, **options)
        rig.ask()
        until(rig.in_step, seconds=90, what="the repair while Discord is away")
        rig.sandbox.edge.faults.switch_off("discord")

    return happen


PROCESSES = [
    Fault(
        f"kill -9 of the {part}, between write and check",
        f"`zlh up` starts it again; {NEXT_TICK}, the row is closed as interrupted or succeeded",
        _kill_between(part),
        quick=part in ("daemon", "worker", "code server"),
    )
    for part in PARTS
] + [
    Fault(
        "the holder of the lease stands still for longer than the lease, and goes on",
        "the standby takes over; the late one writes nothing more",
        _stop_the_holder,
        quick=True,
    ),
    *(
        Fault(
            f"the {part} of the leader stands still for good",
            f"repairs go on {how} within two minutes; `zlh up` starts it again after {after}",
            _stand_still(part),
        )
        for part, how, after in (
            ("worker", "in processes of their own", "two"),
            ("code server", "by the standby", "two"),
            ("daemon", "by the standby", "eight"),
        )
    ),
    Fault(
        "kill -9 of a whole deployment, between write and check",
        "the standby takes over within two lease times",
        _kill_everything,
    ),
]

REDIS = [
    Fault(
        "Redis killed and started empty",
        f"no repair without it; {NEXT_TICK}",
        _redis(_restart_redis_empty),
    ),
    Fault(
        "Redis killed and started empty, between write and check",
        f"nothing more is written by that run; {NEXT_TICK}",
        _redis(_restart_redis_empty, between=True),
        quick=True,
    ),
    Fault("Redis hangs for 20 s", "every call to it is bounded in time", _redis(_hang_redis)),
    Fault(
        "Redis hangs for 20 s, between write and check",
        f"nothing more is written by that run; {NEXT_TICK}",
        _redis(_hang_redis, between=True),
    ),
    Fault("connections to Redis are cut over and over", "as without Redis", _redis(_lose_answers)),
    Fault(
        "connections to Redis are cut over and over, between write and check",
        f"nothing more is written by that run; {NEXT_TICK}",
        _redis(_lose_answers, between=True),
    ),
    Fault(
        "the lease is overwritten, between write and check",
        f"nothing more is written by that run; {NEXT_TICK}",
        _redis(_overwrite_the_lease, between=True),
        quick=True,
    ),
    Fault(
        "the lease is overwritten for good",
        "no repair begins until what stands there ends, one lease after the first that would",
        _overwrite_for_good(LEASE),
    ),
    Fault(
        "the lead is overwritten for good",
        "both stand by until what stands there ends after one lease",
        _overwrite_for_good(LEADER),
    ),
]

DATABASE = [
    Fault("the database is locked", "no write without a ledger row", _lock_the_database),
    Fault(
        "the database is gone for a minute",
        "payloads are unobserved: nothing is drift",
        _database_gone,
    ),
    Fault(
        "a row changes between a repair's look and its write",
        "that server is refused and nothing written; later it is repaired",
        _change_the_row,
        quick=True,
    ),
]


def _clock(hours: int) -> Callable[[Rig], None]:
    def happen(rig: Rig) -> None:
        rig.clock.jump(timedelta(hours=hours))

    return happen


def _fill_the_disk(rig: Rig) -> None:
    """Nothing fits below the leader's state directory for a minute."""
    leader = rig.leads()
    leader.disk.fill()
    rig.ask()
    time.sleep(60)
    leader.disk.free()


MACHINE = [
    Fault(
        "the clock jumps an hour forward",
        "ticks are too old for once; the next one is judged",
        _clock(1),
        possible=lambda: Clock.available,
        ask=False,
    ),
    Fault(
        "the clock jumps an hour back",
        "`zlh up` starts the daemon again, which goes on from now; the next tick is judged",
        _clock(-1),
        possible=lambda: Clock.available,
        ask=False,
    ),
    Fault(
        "the disk under the leader's DAGSTER_HOME is full for a minute",
        "the standby takes over; nothing has to be cleaned up",
        _fill_the_disk,
        possible=may_mount,
    ),
]

_LISTING = "the surface is unobserved, nothing on it is drift"
_WRITING = "a write counts only when a fresh read shows it"
_LIMIT = "nothing is sent there until then"
_NO_LIMIT = f"nothing is sent there for {LIMIT_SECONDS / 60:.0f} minutes"
_CONTAINERS = "containers and agents are unobserved; the edge is repaired all the same"
API = [
    Fault(
        f"{surface}: {name}",
        _CONTAINERS if surface == "proxmox" else promise,
        _edge(surface, kind, **options),
        "cloudflare" if surface == "proxmox" else surface,
        back=back,
    )
    for surface in ("cloudflare", "technitium", "velocity", "proxmox")
    for name, promise, kind, options, back in (
        ("401", _LISTING, "status", {"code": 401}, BACK_SECONDS),
        ("403", _LISTING, "status", {"code": 403}, BACK_SECONDS),
        ("429 with Retry-After", _LIMIT, "status", {"code": 429, "retry_after": 3}, BACK_SECONDS),
        ("429 without", _NO_LIMIT, "status", {"code": 429}, LIMIT_SECONDS + BACK_SECONDS),
        ("500", _LISTING, "status", {"code": 500}, BACK_SECONDS),
        ("hangs", _LISTING, "hang", {}, BACK_SECONDS),
        ("cuts the connection", _LISTING, "disconnect", {}, BACK_SECONDS),
        ("HTML instead of JSON", _LISTING, "html", {}, BACK_SECONDS),
        ("truncated JSON", _LISTING, "truncated_json", {}, BACK_SECONDS),
        ("wrong types", _LISTING, "wrong_types", {}, BACK_SECONDS),
        ("an empty list", _LISTING, "empty", {}, BACK_SECONDS),
        ("a list cut short", _LISTING, "cut_short", {}, BACK_SECONDS),
        ("an answer of 64 MB", _LISTING, "huge", {}, BACK_SECONDS),
        ("a write that says yes and does nothing", _WRITING, "write_ignored", {}, BACK_SECONDS),
        ("a write whose answer is lost", _WRITING, "write_answer_lost", {}, BACK_SECONDS),
    )
    # The bridge tells no total: what it lists is what it has, and is mended at once.
    if not (surface == "velocity" and kind in ("empty", "cut_short"))
    # Proxmox tells no total either, and nothing is written there.
    if not (surface == "proxmox" and kind in ("cut_short", "write_ignored", "write_answer_lost"))
] + [
    Fault("every API refuses connections", _LISTING, _nobody_listens, quick=True),
    Fault(
        "every agent refuses connections",
        "told once, not once a server; the edge is repaired all the same",
        _agents("refused"),
    ),
    Fault("every agent is silent", "as above", _agents("silent")),
]

DISCORD = [
    Fault(
        "Discord hangs",
        "no repair waits for it for longer than seconds",
        _discord("hang"),
        told=False,
    ),
    Fault("Discord limits", "as above", _discord("status", code=429, retry_after=60), told=False),
    Fault(
        "Discord: 404",
        "as above; the next message is tried again",
        _discord("status", code=404),
        told=False,
    ),
    Fault("Discord: 500", "as above", _discord("status", code=500), told=False),
]

ALL = [*PROCESSES, *REDIS, *DATABASE, *MACHINE, *API, *DISCORD]
