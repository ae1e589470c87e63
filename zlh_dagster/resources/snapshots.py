"""Snapshots on disk or any other fsspec file system: one Parquet file for each source and tick.

The file carries its own facts (outcome, reason, time) in the Parquet schema's metadata, so a
snapshot is one file and is either there whole or not at all.
"""

import io
import json
import posixpath
import uuid
from datetime import datetime, timezone
from typing import Any

import fsspec
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq

from zlh_dagster.core.snapshot import Outcome, Snapshot

_FACTS = b"zlh_snapshot"
_WRITTEN_WORDS = ("mtime", "LastModified", "last_modified", "updated", "created")


class SnapshotMissing(Exception):
    """No snapshot of that source and tick is there, or it cannot be read."""


class SnapshotStore:
    """Snapshots below one URL.

    Args:
        url: Any fsspec URL or path, such as ``/var/lib/zlh/snapshots`` or ``s3://bucket/zlh``.
    """

    def __init__(self, url: str) -> None:
        self._fs, self._root = fsspec.core.url_to_fs(url)

    def ready(self) -> bool:
        """Whether anything was written here yet.

        Raises:
            Exception: Whatever its file system says when it cannot be listed.
        """
        self._fs.invalidate_cache()
        try:
            return bool(self._fs.ls(self._root, detail=False))
        except FileNotFoundError:
            return False

    def path(self, source: str, tick: str) -> str:
        """Where a snapshot lies: ``<root>/<tick>/<source>.parquet``."""
        return posixpath.join(self._root, tick, f"{source}.parquet")

    def write(self, snapshot: Snapshot) -> str:
        """Writes a snapshot and returns its path; a reader never sees half of it."""
        facts = {
            "source": snapshot.source,
            "tick": snapshot.tick,
            "taken_at": snapshot.taken_at.isoformat(),
            "outcome": snapshot.outcome.value,
            "reason": snapshot.reason,
            "requests": snapshot.requests,
            "seconds": snapshot.seconds,
            "extra": dict(snapshot.extra),
        }
        table = pa.Table.from_pandas(snapshot.rows, preserve_index=False)
        table = table.replace_schema_metadata(
            {**(table.schema.metadata or {}), _FACTS: json.dumps(facts).encode()}
        )
        buffer = io.BytesIO()
        pq.write_table(table, buffer, compression="zstd")
        path = self.path(snapshot.source, snapshot.tick)
        self._fs.makedirs(posixpath.dirname(path), exist_ok=True)
        partial = f"{path}.{uuid.uuid4().hex}.partial"
        with self._fs.open(partial, "wb") as file:
            file.write(buffer.getvalue())
        self._fs.mv(partial, path)
        return path

    def read(self, source: str, tick: str) -> Snapshot:
        """Reads a snapshot.

        Raises:
            SnapshotMissing: If it is not there or cannot be read whole.
        """
        # Object stores remember listings, in which what others have written since is not.
        self._fs.invalidate_cache()
        try:
            with self._fs.open(self.path(source, tick), "rb") as file:
                table = pq.read_table(io.BytesIO(file.read()))
            facts = json.loads((table.schema.metadata or {})[_FACTS])
            return Snapshot(
                source=facts["source"],
                tick=facts["tick"],
                taken_at=datetime.fromisoformat(facts["taken_at"]).astimezone(timezone.utc),
                outcome=Outcome(facts["outcome"]),
                reason=facts["reason"],
                rows=_frame(table),
                requests=facts["requests"],
                seconds=facts["seconds"],
                extra=facts["extra"],
            )
        except (OSError, KeyError, TypeError, ValueError, pa.ArrowException) as error:
            raise SnapshotMissing(
                f"no snapshot of {source} at tick {tick} that can be read"
            ) from error

    def newest_first(self) -> list[str]:
        """Identifiers of all ticks, the one written last first, complete or not."""
        files = self._files()
        done = [(_written(f), name) for name, f in files.items() if name.endswith(".parquet")]
        ticks = (posixpath.basename(posixpath.dirname(name)) for _, name in sorted(done)[::-1])
        return list(dict.fromkeys(ticks))

    def ticks(self) -> dict[str, datetime]:
        """All ticks that have files here, and when the last file of each was written."""
        newest: dict[str, datetime] = {}
        for name, info in self._files().items():
            tick = posixpath.basename(posixpath.dirname(name))
            written = _moment(_written(info))
            newest[tick] = max(written, newest.get(tick, written))
        return newest

    def sources(self, tick: str) -> list[str]:
        """The sources that have a snapshot of a tick."""
        self._fs.invalidate_cache()
        try:
            found: list[str] = self._fs.find(posixpath.join(self._root, tick))
        except OSError:
            return []
        names = [posixpath.basename(name) for name in found]
        return [name.removesuffix(".parquet") for name in names if name.endswith(".parquet")]

    def delete(self, tick: str) -> None:
        """Deletes all files of a tick.

        Raises:
            OSError: If they could not be deleted.
        """
        self._fs.rm(posixpath.join(self._root, tick), recursive=True)

    def _files(self) -> dict[str, dict[str, Any]]:
        self._fs.invalidate_cache()
        try:
            found: dict[str, dict[str, Any]] = self._fs.find(self._root, detail=True)
        except OSError:
            return {}
        root = self._root.rstrip("/")
        # What lies deeper is another store's.
        return {
            name: info
            for name, info in found.items()
            if posixpath.dirname(posixpath.dirname(name)) == root
        }


def _written(info: dict[str, Any]) -> Any:
    """When a file was written; each file system has its own word for it, and its own type."""
    return next(info[word] for word in _WRITTEN_WORDS if word in info)


def _moment(written: Any) -> datetime:
    if isinstance(written, str):
        written = datetime.fromisoformat(written)
    if isinstance(written, datetime):
        return written if written.tzinfo else written.replace(tzinfo=timezone.utc)
    return datetime.fromtimestamp(written, timezone.utc)


def _frame(table: pa.Table) -> pd.DataFrame:
    frame: pd.DataFrame = table.to_pandas()
    return frame
