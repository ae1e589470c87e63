"""Dagster's storage on disk or on a server, and what is left in it."""

import contextlib
import shutil
import uuid
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import dagster as dg
import pytest
import sqlalchemy as sa
import yaml
from dagster._core.storage.event_log.schema import SqlEventLogStorageMetadata
from dagster._core.storage.runs.schema import RunStorageSqlMetadata

from tests.resources.databases import postgresql
from zlh_dagster.resources.services import Services

MIRRORED = {
    dg.DagsterEventType.ASSET_MATERIALIZATION,
    dg.DagsterEventType.ASSET_CHECK_EVALUATION,
    dg.DagsterEventType.PIPELINE_SUCCESS,
}
ROOT = Path(__file__).parents[2]


@dataclass
class Stored:
    """An instance configured as the shipped file says, but for its storage."""

    instance: dg.DagsterInstance
    home: Path

    @property
    def history(self) -> Path:
        return self.home / "history" / "runs"

    def rows(self, table: str, *columns: str) -> list[Any]:
        """Rows of a table of the events, from the index where SQLite has several files."""
        found = SqlEventLogStorageMetadata.tables[table]
        with self.instance.event_log_storage.index_connection() as connection:
            return connection.execute(sa.select(*(found.c[c] for c in columns))).all()

    def run_rows(self, table: str, *columns: str) -> list[Any]:
        """Rows of a table of the runs."""
        found = RunStorageSqlMetadata.tables[table]
        with self.instance.run_storage.connect() as connection:
            return connection.execute(sa.select(*(found.c[c] for c in columns))).all()

    def runless_rows(self) -> int:
        """Rows of SQLite's second copy of events that no run reported."""
        events = SqlEventLogStorageMetadata.tables["event_logs"]
        with self.instance.event_log_storage.run_connection("") as connection:
            query = sa.select(sa.func.count()).select_from(events).where(events.c.run_id == "")
            return connection.scalar(query)

    def files_of_runs(self) -> set[str]:
        """Runs that have a file of their own, or something left of one."""
        return {path.name.split(".")[0] for path in self.history.glob("*.db*")} - {"index", ""}

    def repeat(self, run_id: str, *, tags: dict[str, str]) -> str:
        """Another run like one that is over, with the events that other tables mirror."""
        instance, again = self.instance, str(uuid.uuid4())
        run = instance.get_run_by_id(run_id)
        assert run is not None
        instance.run_storage.add_run(run._replace(run_id=again, tags=tags))
        file = self.history / f"{run_id}.db"
        if file.exists():
            # Making one takes SQLite longer than all that is written into it.
            shutil.copyfile(file, self.history / f"{again}.db")
        for record in instance.get_records_for_run(run_id, of_type=MIRRORED).records:
            instance.event_log_storage.store_event(record.event_log_entry._replace(run_id=again))
        return again

    def runs_named_anywhere(self) -> set[str]:
        """Runs that any table or file still knows, runless events aside."""
        found = {row[0] for row in self.run_rows("runs", "run_id")}
        found |= {row[0] for row in self.run_rows("run_tags", "run_id")}
        found |= {row[0] for row in self.rows("event_logs", "run_id")}
        found |= {row[0] for row in self.rows("asset_check_executions", "run_id")}
        return (found | self.files_of_runs()) - {""}


@contextlib.contextmanager
def stored(kind: str, home: Path) -> Iterator[Stored]:
    """Storage of one kind: ``sqlite`` or ``postgresql``."""
    home.mkdir()
    settings = yaml.safe_load((ROOT / "dagster.yaml").read_text())
    with contextlib.ExitStack() as stack:
        if kind == "postgresql":
            url = stack.enter_context(postgresql())
            settings["storage"] = {"postgres": {"postgres_url": url}}
        patch = stack.enter_context(pytest.MonkeyPatch.context())
        patch.setenv("DAGSTER_HOME", str(home))
        (home / "dagster.yaml").write_text(yaml.safe_dump(settings))
        instance = stack.enter_context(dg.DagsterInstance.from_config(str(home)))
        yield Stored(instance, home)


def ticks_on_disk(services: Services) -> set[str]:
    return set(services.snapshots.ticks())
