"""The files of Dagster's SQLite storage: one for each run, and a few that all runs share."""

import uuid
from collections.abc import Collection
from pathlib import Path

from dagster._core.storage.event_log import SqliteEventLogStorage
from dagster._core.storage.event_log.base import EventLogStorage

UNFINISHED = "-new"
"""Ends the name of a run's file while it is made."""

_INDEX, _RUNLESS = "index", ""


class RunFiles:
    """Files below one directory; any other storage than SQLite has none.

    Args:
        storage: Of the events.
    """

    def __init__(self, storage: EventLogStorage) -> None:
        self._folder: Path | None = None
        if isinstance(storage, SqliteEventLogStorage):
            self._folder = Path(storage.path_for_shard(_INDEX)).parent

    @property
    def has_runless(self) -> bool:
        """Whether there is a second copy of the events that no run reported."""
        return self._folder is not None and (self._folder / f"{_RUNLESS}.db").exists()

    @property
    def shared(self) -> list[Path]:
        """Those in which rows are deleted."""
        if self._folder is None:
            return []
        history = self._folder.parent
        shards = [self._folder / f"{name}.db" for name in (_INDEX, _RUNLESS)]
        return [*shards, history / "runs.db", history.parent / "schedules" / "schedules.db"]

    def delete(self, run_id: str) -> None:
        """Deletes a run's file and what SQLite keeps beside it."""
        if self._folder is not None:
            for end in ("", "-wal", "-shm", UNFINISHED):
                (self._folder / f"{run_id}.db{end}").unlink(missing_ok=True)

    def runs(self) -> set[str]:
        """Runs that have a file here, or something left of one."""
        if self._folder is None:
            return set()
        named = {path.name.split(".")[0] for path in self._folder.glob("*.db*")}
        return {name for name in named if _is_run_id(name)}

    def delete_all(self, run_ids: Collection[str]) -> int:
        """Deletes the files of several runs; returns of how many."""
        for run_id in run_ids:
            self.delete(run_id)
        return len(run_ids)


def _is_run_id(name: str) -> bool:
    try:
        return str(uuid.UUID(name)) == name
    except ValueError:
        return False
