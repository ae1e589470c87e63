"""One deployment on two machines: the daemon on the one, the worker on the other.

A machine is a `$DAGSTER_HOME` of its own and the parts that `zlh serve` runs on it. They share what
docs/deployment.md says: PostgreSQL, Redis and a directory for snapshots.
"""

import os
import re
import signal
import subprocess
import tempfile
from collections.abc import Iterator
from pathlib import Path

import dagster as dg
import httpx
import pytest
import yaml
from dagster_postgres.storage import DagsterPostgresStorage

from tests.harness import edge_state
from tests.resources.databases import empty_database, postgresql
from tests.stack.stack import BIN, ROOT, Stack, alive, children_of, free_port, until
from zlh_dagster.jobs.level1_repair import LEVEL1_REPAIR
from zlh_dagster.jobs.observe import OBSERVE
from zlh_dagster.runs.locks import WORKER
from zlh_dagster.runs.shared_locks import SharedLocks

pytestmark = [pytest.mark.slow, pytest.mark.timeout(240)]

SRV = "_minecraft._tcp.mc-5000.example.gg"
DEPLOYMENT = "machines"
STARTS = 60.0
REPAIRED = 60.0


class Machine:
    """Some parts of a deployment, with a state directory of their own."""

    def __init__(self, stack: Stack, name: str) -> None:
        self._stack = stack
        self.home = stack.directory / name
        self.environment = {**stack.environment, "DAGSTER_HOME": str(self.home)}
        self.parts: dict[str, subprocess.Popen[bytes]] = {}

    def serve(self, part: str) -> subprocess.Popen[bytes]:
        with self.log(part).open("wb") as log:
            process = subprocess.Popen(
                [BIN / "zlh", "serve", part],
                # Relative to the directory in which it was started, as the default is.
                env={**self.environment, "DAGSTER_HOME": self.home.name},
                cwd=self._stack.directory,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )
        self.parts[part] = process
        return process

    def log(self, part: str) -> Path:
        return self._stack.directory / f"{self.home.name}-{part}.log"

    def says(self) -> str:
        return "".join(f"{part}: {self.log(part).read_text()}" for part in self.parts)

    def stop(self, part: str) -> int:
        """SIGTERM, as a supervisor sends it, and the exit status."""
        process = self.parts.pop(part)
        process.send_signal(signal.SIGTERM)
        try:
            return process.wait(timeout=30)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()
            raise


@pytest.fixture(scope="module")
def stack(redis_server: str) -> Iterator[Stack]:
    with (
        postgresql() as server,
        empty_database(server) as url,
        tempfile.TemporaryDirectory(prefix="zlh-") as directory,
    ):
        made = Stack(
            Path(directory),
            ZLH_REDIS_URL=redis_server,
            ZLH_DAGSTER_DATABASE_URL=url,
            ZLH_DEPLOYMENT=DEPLOYMENT,
            ZLH_SNAPSHOT_URL=f"file://{directory}/snapshots",
            ZLH_WEB_PORT=str(free_port()),
        )
        try:
            yield made
        finally:
            made.close()


@pytest.fixture(scope="module")
def machines(stack: Stack) -> Iterator[tuple[Machine, Machine]]:
    """The first has the daemon, the second the rest; all of them begin at the same moment."""
    first, second = Machine(stack, "first"), Machine(stack, "second")
    try:
        first.serve("daemon")
        second.serve("worker")
        second.serve("web")
        until(lambda: locks(stack).held(WORKER), seconds=STARTS, what="the worker")
        yield first, second
    finally:
        for machine in (first, second):
            for part in tuple(machine.parts):
                machine.stop(part)


@pytest.fixture(scope="module")
def storage(stack: Stack) -> Iterator[DagsterPostgresStorage]:
    opened = DagsterPostgresStorage(stack.environment["ZLH_DAGSTER_DATABASE_URL"])
    yield opened
    for part in (opened.run_storage, opened.event_log_storage, opened.schedule_storage):
        part.dispose()


def locks(stack: Stack) -> SharedLocks:
    return SharedLocks(stack.environment["ZLH_DAGSTER_DATABASE_URL"], DEPLOYMENT)


def succeeded(storage: DagsterPostgresStorage, job: str) -> dg.DagsterRun | None:
    """The newest run of a job that succeeded."""
    wanted = dg.RunsFilter(job_name=job, statuses=[dg.DagsterRunStatus.SUCCESS])
    return next(iter(storage.run_storage.get_runs(wanted, limit=1)), None)


def process_of(storage: DagsterPostgresStorage, run: dg.DagsterRun) -> int:
    """The process that executed a run, as its events tell."""
    for entry in storage.event_log_storage.get_logs_for_run(run.run_id):
        found = re.search(r"in process \(pid: (\d+)\)", entry.message)
        if found:
            return int(found[1])
    raise AssertionError(f"no event of {run.run_id} names its process")


def home_of(pid: int) -> str:
    """The state directory that a process was given."""
    entries = Path(f"/proc/{pid}/environ").read_bytes().decode().split("\0")
    return next(e.partition("=")[2] for e in entries if e.startswith("DAGSTER_HOME="))


def test_a_record_is_put_back_by_the_worker_of_the_other_machine(stack, machines, storage):
    first, second = machines
    before = edge_state(stack.sandbox)
    stack.delete_over_api(SRV)
    asked = subprocess.run(
        [BIN / "dagster", "job", "launch", "-w", first.home / "workspace.yaml", "-j", OBSERVE],
        env=first.environment,
        cwd=first.home,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert asked.returncode == 0, asked.stderr
    until(
        lambda: [e for e in stack.finished_events() if e["status"] == "succeeded"],
        seconds=REPAIRED,
        what="the repair",
    )
    assert edge_state(stack.sandbox) == before
    assert [(e["vmid"], e["action"]) for e in stack.ledger.events()] == [(5000, "dns_republish")]
    assert stack.controller_writes() == [("cloudflare", "POST")]

    worker = second.parts["worker"].pid
    for job in (OBSERVE, LEVEL1_REPAIR):
        run = until(lambda job=job: succeeded(storage, job), seconds=30, what=job)
        assert run is not None
        executed_by = process_of(storage, run)
        assert executed_by in children_of(worker), second.says()
        assert home_of(executed_by) == str(second.home)
    # What the tick saw was written by the second machine and judged by the first.
    assert list((stack.directory / "snapshots").rglob("*.parquet"))
    for machine in machines:
        assert not (machine.home / "snapshots").exists()
        assert not (machine.home / "history").exists(), "SQLite"


def test_the_web_ui_of_the_other_machine_shows_the_run(stack, machines):
    _, second = machines
    url = f"http://127.0.0.1:{stack.environment['ZLH_WEB_PORT']}"

    def look() -> list[str] | None:
        assert second.parts["web"].poll() is None, second.says()
        try:
            asked = httpx.post(
                f"{url}/graphql",
                json={"query": "{ runsOrError { ... on Runs { results { jobName } } } }"},
                timeout=20,
            )
        except httpx.TransportError:
            return None
        return [run["jobName"] for run in asked.json()["data"]["runsOrError"]["results"]]

    jobs = until(look, seconds=STARTS, what="the web UI")
    assert jobs is not None
    assert {OBSERVE, LEVEL1_REPAIR} <= set(jobs)


def test_the_health_checks_of_the_compose_file_know_the_living(stack, machines):
    first, _ = machines
    services = yaml.safe_load((ROOT / "deploy/compose.yaml").read_text())["services"]
    port = stack.environment["ZLH_WEB_PORT"]
    for name, living in (("daemon", True), ("web", True), ("web", False)):
        kind, *words = services[name]["healthcheck"]["test"]
        assert kind == "CMD"
        words = [word.replace(":3000/", f":{port if living else free_port()}/") for word in words]
        checked = subprocess.run(
            [BIN / words[0], *words[1:]],
            env=first.environment,
            cwd=first.home,
            capture_output=True,
            text=True,
            timeout=60,
            check=False,
        )
        assert (checked.returncode == 0) == living, checked.stdout + checked.stderr


def test_a_part_runs_once_on_a_machine(machines):
    """A second worker belongs on another machine, or at least on another `$DAGSTER_HOME`."""
    _, second = machines
    again = subprocess.run(
        [BIN / "zlh", "serve", "worker"],
        env=second.environment,
        cwd=second.home,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert again.returncode == 1
    assert "another `zlh serve worker` runs" in again.stderr


def test_sigterm_ends_each_part_and_all_that_it_started(machines):
    first, second = machines
    pids = [process.pid for machine in machines for process in machine.parts.values()]
    family = {pid for parent in pids for pid in (parent, *children_of(parent))}
    assert len(family) > len(pids)
    for pid in pids:
        os.kill(pid, signal.SIGTERM)
    for machine, part in ((second, "worker"), (second, "web"), (first, "daemon")):
        status = machine.stop(part)
        assert status in (0, -signal.SIGTERM), (part, status, machine.log(part).read_text())
    until(lambda: not alive(family), seconds=15, what="the end of every process")
