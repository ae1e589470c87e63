"""Repairs by hand as real processes: two at once, and one that is killed in the middle."""

import signal
import socket
import subprocess
import tempfile
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.harness import edge_state
from tests.stack.stack import BIN, ROOT, SERVERS, Stack, repair_yaml, until
from zlh_dagster.schema.tables import own_metadata
from zlh_dagster.schema.upgrade import head

pytestmark = pytest.mark.slow

SRV = "_minecraft._tcp.mc-5000.example.gg"
EXECUTE = ("dagster", "job", "execute", "-m", "zlh_dagster.definitions", "-j")


@pytest.fixture
def bare(redis_url: str) -> Iterator[Stack]:
    """A deployment on which nothing was started yet, on a Redis of its own."""
    with tempfile.TemporaryDirectory(prefix="zlh-") as directory:
        stack = Stack(Path(directory), ZLH_REDIS_URL=redis_url, ZLH_LEASE_SECONDS="30")
        try:
            yield stack
        finally:
            stack.close()


@pytest.fixture
def stack(bare: Stack) -> Stack:
    """The same with Dagster's storage, without daemons."""
    home = bare.directory / "home"
    home.mkdir()
    (home / "dagster.yaml").write_text((ROOT / "dagster.yaml").read_text())
    prepared = bare.run("python", "-m", "zlh_dagster.cli.prepare")
    assert prepared.returncode == 0, prepared.stderr
    return bare


def open_home(stack: Stack) -> Path:
    """As `mkdir` makes it with the usual umask."""
    home = stack.directory / "home"
    home.mkdir()
    home.chmod(0o755)
    return home


def start(stack: Stack, config: Path) -> "subprocess.Popen[str]":
    return subprocess.Popen(
        [BIN / EXECUTE[0], *EXECUTE[1:], "level1_repair", "-c", config],
        env=stack.environment,
        cwd=ROOT,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        start_new_session=True,
    )


def test_of_two_repairs_at_once_one_works_and_one_says_who_holds_the_lease(stack):
    """The first listing is slow, so that both are certainly under way together."""
    before = edge_state(stack.sandbox)
    stack.delete_over_api(SRV)
    stack.sandbox.edge.journal.clear()
    stack.sandbox.edge.faults.switch_on("cloudflare", "hang", seconds=4.5, times=2, writes=False)
    config = repair_yaml(stack.directory)
    runs = [start(stack, config) for _ in range(2)]
    outputs = [run.communicate(timeout=150)[0] for run in runs]
    assert [run.returncode for run in runs] == [0, 0], outputs
    standby = [o for o in outputs if "the lease is held by" in o]
    worked = [o for o in outputs if "edge_republish: succeeded" in o]
    assert (len(standby), len(worked)) == (1, 1), outputs
    assert f"pid {runs[outputs.index(worked[0])].pid}" in standby[0]
    assert stack.controller_writes() == [("cloudflare", "POST")]
    assert edge_state(stack.sandbox) == before
    [event] = stack.finished_events()
    assert event["status"] == "succeeded"
    assert len(stack.sandbox.edge.discord.inbox()) == 1


@pytest.mark.long
def test_a_run_killed_between_write_and_check_is_closed_as_interrupted(stack):
    """kill -9 while the write's answer is awaited: the next run says so and repairs once."""
    stack.delete_over_api(SRV)
    stack.sandbox.edge.faults.switch_on("cloudflare", "hang", seconds=20, reads=False)
    run = start(stack, repair_yaml(stack.directory))
    until(lambda: stack.ledger.events(), seconds=60, what="the ledger row")
    [row] = stack.ledger.events()
    assert row["status"] == "running", "the row is there before the write is done"
    run.send_signal(signal.SIGKILL)
    run.communicate(timeout=30)
    stack.sandbox.edge.faults.clear()

    # The lease of the dead run ends by itself.
    def again() -> "subprocess.CompletedProcess[str]":
        return stack.run(*EXECUTE, "level1_repair", "-c", str(repair_yaml(stack.directory)))

    done = until(
        lambda: [out for out in [again()] if "is held by" not in out.stdout + out.stderr],
        seconds=120,
        what="the end of the dead run's lease",
    )[0]
    assert done.returncode == 0, done.stdout
    statuses = [event["status"] for event in reversed(stack.ledger.events())]
    assert statuses == ["interrupted", "succeeded"]
    assert len(stack.sandbox.edge.cloudflare.named(SRV)) == 1
    [message] = stack.sandbox.edge.discord.inbox()
    assert "in the middle of 1 repair" in message.payload["embeds"][0]["description"]


def test_one_tick_in_the_foreground(stack):
    done = stack.run(*EXECUTE, "observe")
    assert done.returncode == 0, done.stderr
    assert stack.controller_writes() == []
    reads = Counter(e.surface for e in stack.sandbox.edge.journal.entries())
    assert reads.pop("agents") == SERVERS + 1
    assert reads == {"cloudflare": 1, "technitium": 1, "velocity": 1, "proxmox": 1}


def test_nobody_else_reads_what_a_tick_leaves_in_an_open_home(bare):
    """Made by `mkdir`, used by Dagster's own command, which knows nothing of it."""
    home = open_home(bare)
    done = bare.run(*EXECUTE, "observe", umask=0o022)
    assert done.returncode == 0, done.stderr
    assert f"{home} was open to other users" in done.stderr
    left = [home, *home.rglob("*")]
    assert {"runs.db", "schedules.db", "snapshots"} <= {path.name for path in left}
    assert [path for path in left if path.lstat().st_mode & 0o077] == []


def test_nobody_else_reads_what_zlh_makes(bare):
    home = open_home(bare)
    made = home / "platform.db"
    del bare.environment["ZLH_DATABASE_URL"]
    done = bare.run("zlh", "db", "upgrade", umask=0o022)
    assert done.returncode == 0, done.stderr
    assert f"{home} was open to other users" in done.stderr
    assert [path.stat().st_mode & 0o077 for path in (home, made)] == [0, 0]


def test_zlh_plan_repair_and_events_tell_the_same_story(stack):
    assert stack.run("zlh", "plan").returncode == 0
    stack.delete_over_api(SRV)
    plan = stack.run("zlh", "plan")
    assert plan.returncode == 2
    assert "dns_republish" in plan.stdout
    dry = stack.run("zlh", "repair", "dns_republish", "--vmid", "5000")
    assert "5000 dry_run: would put back cloudflare SRV" in dry.stdout, dry.stderr
    assert stack.controller_writes() == []
    live = stack.run("zlh", "repair", "dns_republish", "--vmid", "5000", "--live")
    assert "5000 succeeded: put back cloudflare SRV" in live.stdout, live.stderr
    assert stack.controller_writes() == [("cloudflare", "POST")]
    events = stack.run("zlh", "events", "--json")
    assert '"status": "succeeded"' in events.stdout
    assert '"status": "dry_run"' in events.stdout
    assert stack.run("zlh", "plan").returncode == 0


def test_a_bad_setting_is_one_line_that_names_it_before_anything_is_touched(bare):
    good = dict(bare.environment)
    for command, name, value in (
        ("up", "ZLH_REPAIR_MODE", "yes"),
        ("plan", "CLOUDFLARE_ZONE_ID", ""),
        ("up", "ZLH_DATABASE_URL", "nonsense"),
    ):
        bare.environment = {**good, name: value}
        done = bare.run("zlh", command)
        assert done.returncode == 1
        assert name in done.stderr
        assert len(done.stderr.strip().splitlines()) == 1, done.stderr
        assert "Traceback" not in done.stdout + done.stderr
    assert bare.sandbox.edge.journal.entries() == []


def test_up_says_that_the_ledger_is_missing_before_it_starts_anything(bare):
    with bare.engine.begin() as connection:
        own_metadata.drop_all(connection)
        connection.exec_driver_sql("DROP TABLE zlh_alembic_version")
    done = bare.run("zlh", "up", "--no-web")
    assert done.returncode == 1
    assert "run `zlh db upgrade` first" in done.stderr
    upgraded = bare.run("zlh", "db", "upgrade")
    assert f"revision {head()}" in upgraded.stdout
    assert bare.ledger.events() == []


def test_up_says_that_its_port_is_taken(bare):
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        bare.environment["ZLH_WEB_PORT"] = str(taken.getsockname()[1])
        done = bare.run("zlh", "up")
    assert done.returncode == 1
    assert "ZLH_WEB_PORT" in done.stderr
    assert len(done.stderr.strip().splitlines()) == 1
