"""SQLite files are made smaller when that is worth it."""

import shutil
import sqlite3
from contextlib import closing

import pytest

from zlh_dagster.resources import compaction
from zlh_dagster.resources.compaction import compact

MB = 2**20


@pytest.fixture
def file(tmp_path, monkeypatch):
    """Two megabytes in WAL mode, as Dagster's files are."""
    monkeypatch.setattr(compaction, "FREE_BYTES", MB)
    monkeypatch.setattr(compaction, "_BUSY_SECONDS", 0.05)
    path = tmp_path / "index.db"
    with closing(sqlite3.connect(path)) as connection, connection:
        connection.execute("PRAGMA journal_mode=WAL")
        connection.execute("CREATE TABLE t (id INTEGER PRIMARY KEY, text TEXT)")
        connection.executemany("INSERT INTO t (text) VALUES (?)", [("x" * 2000,)] * 1000)
    return path


def delete(path, share):
    with closing(sqlite3.connect(path)) as connection, connection:
        connection.execute("DELETE FROM t WHERE id > ?", (round(1000 * (1 - share)),))


def rows(path):
    with closing(sqlite3.connect(path)) as connection:
        return connection.execute("SELECT count(*) FROM t").fetchone()[0]


def test_a_file_that_is_mostly_free_becomes_small(file):
    delete(file, 0.9)
    before = file.stat().st_size
    assert compact(file) > MB
    assert file.stat().st_size < before / 5
    assert rows(file) == 100
    assert compact(file) == 0


@pytest.mark.parametrize("share", [0.0, 0.2])
def test_a_file_that_is_mostly_used_is_left_alone(file, share):
    delete(file, share)
    before = file.stat().st_size
    assert compact(file) == 0
    assert file.stat().st_size == before


def test_little_free_space_is_not_worth_it(file, monkeypatch):
    delete(file, 0.9)
    monkeypatch.setattr(compaction, "FREE_BYTES", 8 * MB)
    assert compact(file) == 0


def test_a_file_with_much_in_it_is_left_alone_for_it_would_take_long(file, monkeypatch):
    delete(file, 0.6)
    monkeypatch.setattr(compaction, "MOST_BYTES", MB // 2)
    assert compact(file) == 0


def test_a_disk_without_room_is_not_filled(file, monkeypatch):
    delete(file, 0.9)
    monkeypatch.setattr(shutil, "disk_usage", lambda path: shutil._ntuple_diskusage(1, 1, 1000))
    assert compact(file) == 0


def test_who_writes_just_now_is_not_disturbed(file):
    delete(file, 0.9)
    with closing(sqlite3.connect(file)) as writer:
        writer.execute("INSERT INTO t (text) VALUES ('mine')")
        assert compact(file) == 0
        writer.commit()
    assert rows(file) == 101


def test_a_file_that_is_not_there_is_not_made(tmp_path):
    assert compact(tmp_path / "none.db") == 0
    assert list(tmp_path.iterdir()) == []
