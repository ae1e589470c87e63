"""Gives the space of deleted rows in a SQLite file back to the disk."""

import logging
import shutil
import sqlite3
from contextlib import closing
from pathlib import Path

FREE_SHARE = 1 / 3
"""A file is compacted when at least this share of it is free; less is used again by itself."""

FREE_BYTES = 8 * 2**20
"""And at least this much."""

MOST_BYTES = 512 * 2**20
"""A file with more than this in use is left alone: writers wait while it is rewritten."""

_BUSY_SECONDS = 2.0
_log = logging.getLogger(__name__)


def compact(path: Path) -> int:
    """Rewrites a SQLite file when that is worth it, and returns how many bytes it gave back.

    Readers go on meanwhile, writers wait for the seconds that it takes. The file is left as it is
    when somebody else writes to it just now, or the disk does not take it.
    """
    if not path.exists():
        return 0
    try:
        return _compact(path)
    except sqlite3.OperationalError as error:
        _log.info("%s was not compacted: %s", path, error)
        return 0


def _compact(path: Path) -> int:
    with closing(sqlite3.connect(path, timeout=_BUSY_SECONDS, isolation_level=None)) as connection:
        size, pages, free = _pages(connection)
        used = (pages - free) * size
        worthwhile = free >= pages * FREE_SHARE and free * size >= FREE_BYTES
        # The new file is written twice: beside the old one, then into its log.
        room = shutil.disk_usage(path.parent).free > 2 * used
        if not worthwhile or used > MOST_BYTES or not room:
            return 0
        connection.execute("VACUUM")
        connection.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchall()
        _, left, _ = _pages(connection)
    return (pages - left) * size


def _pages(connection: sqlite3.Connection) -> tuple[int, int, int]:
    """Size of a page in bytes, how many there are, how many of them are free."""
    names = ("page_size", "page_count", "freelist_count")
    size, pages, free = (connection.execute(f"PRAGMA {name}").fetchone()[0] for name in names)
    return int(size), int(pages), int(free)
