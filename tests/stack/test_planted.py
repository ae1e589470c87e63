"""The search for secrets finds them, or the tests that search would prove nothing."""

import base64
import os
import socket
import sqlite3
import zlib
from contextlib import closing

import pandas as pd
import pytest

from tests.stack.listening import listening
from tests.stack.planted import (
    NOT_PLANTED,
    SECRET_SETTINGS,
    files,
    leaks,
    planted_config,
    secrets_of,
    with_tokens,
)
from zlh_dagster.sandbox.server import Sandbox

TOKEN = "0123456789abcdef0123"
PART = f"refused: {TOKEN[2:16]}… "


def database(path, value):
    with closing(sqlite3.connect(path)) as connection:
        connection.execute("CREATE TABLE snapshots (id INTEGER, body)")
        connection.execute("INSERT INTO snapshots VALUES (1, ?)", (value,))
        connection.commit()


def log(path):
    path.write_text(PART)


def parquet(path):
    """Compressed as the controller's own; the first and the last value would be in the footer."""
    rows = pd.DataFrame({"detail": ["a", *(f"agent {n}: {PART}" for n in range(500)), "z"]})
    rows.to_parquet(path, compression="zstd")


def snapshot(path):
    """As Dagster keeps a job's."""
    database(path, zlib.compress(PART.encode() * 50))


def encoded(path):
    database(path, base64.b64encode(zlib.compress(PART.encode() * 50)).decode())


@pytest.mark.parametrize("write", [log, parquet, snapshot, encoded])
def test_a_part_of_a_secret_is_found(tmp_path, write):
    environment = {"CLOUDFLARE_API_TOKEN": TOKEN, "ZPACK_SECRET": "f" * 40}
    path = tmp_path / ("rows.parquet" if write is parquet else "file")
    write(path)
    assert leaks(environment, files(tmp_path)) == [f"CLOUDFLARE_API_TOKEN stands in {path}"]


def test_every_secret_setting_is_planted_and_searched_for():
    """And every password that an address carries, whatever the setting."""
    with Sandbox(planted_config()) as sandbox:
        environment = sandbox.environment()
    environment |= {
        "ZLH_DATABASE_URL": "sqlite:////tmp/platform.db",
        "ZLH_REDIS_URL": "unix:///tmp/redis.sock",
        "ZLH_DAGSTER_DATABASE_URL": "postgresql://postgres@/zlh?host=/tmp",
    }
    planted = with_tokens(environment)
    environment |= planted
    searched = secrets_of(environment)
    assert SECRET_SETTINGS - set(searched) == set(NOT_PLANTED)
    for name in planted:
        assert searched[name] in environment[name]
        assert len(searched[name]) == 40
    assert secrets_of({**environment, "X_URL": f"http://me:{TOKEN}@h/"})["X_URL"] == TOKEN


def test_a_socket_that_is_open_to_all_is_seen():
    with socket.create_server(("0.0.0.0", 0)) as every, socket.create_server(("127.0.0.1", 0)):
        found = listening({os.getpid()})
        port = every.getsockname()[1]
    assert f"0.0.0.0:{port}" in found
    assert any(address.startswith("127.0.0.1:") for address in found)
