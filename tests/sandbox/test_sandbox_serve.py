"""The sandbox as a program in the foreground."""

import json
import signal
import stat
import subprocess
import sys
import time
from pathlib import Path

import httpx
import pytest
import sqlalchemy as sa

from zlh_dagster.schema.tables import container_instance


def _serve(tmp_path: Path, *options: str) -> subprocess.Popen[str]:
    command = [
        *(sys.executable, "-W", "error", "-m", "zlh_dagster.sandbox", "serve"),
        *("--database", f"sqlite:///{tmp_path / 'platform.db'}"),
        *("--state", str(tmp_path / "state" / "sandbox.json")),
        *options,
    ]
    return subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)


def _state(tmp_path: Path, process: subprocess.Popen[str]) -> dict:
    path = tmp_path / "state" / "sandbox.json"
    give_up = time.monotonic() + 15
    while not path.exists():
        assert process.poll() is None, process.communicate()
        assert time.monotonic() < give_up
        time.sleep(0.02)
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert [p.name for p in path.parent.iterdir()] == ["sandbox.json"]
    return json.loads(path.read_text())


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_it_writes_a_fleet_serves_it_and_ends_cleanly(tmp_path, number):
    """Once the state file is there, connections are accepted."""
    process = _serve(tmp_path, "--servers", "5", "--zone", "play.example")
    try:
        state = _state(tmp_path, process)
        answer = httpx.get(f"{state['url']}/sandbox/state").json()
        assert answer["zone"] == state["environment"]["ZLH_ZONE"] == "play.example"
        assert answer["cloudflare"]["records"] == 16
        assert state["environment"]["ZLH_DATABASE_URL"].endswith("platform.db")
        agent = f"http://127.60.0.1:{state['environment']['ZLH_AGENT_PORT']}/health"
        assert httpx.get(agent).json() == {"status": "ok"}
        process.send_signal(number)
        out, err = process.communicate(timeout=10)
        assert (process.returncode, err) == (0, "")
        assert "5 game servers" in out
    finally:
        process.kill()
        process.communicate()


def test_a_database_with_servers_is_served_as_it_is(tmp_path):
    """No second fleet is written into it, at a second start neither."""
    for _ in range(2):
        process = _serve(tmp_path, "--servers", "3")
        try:
            _state(tmp_path, process)
            process.terminate()
            process.communicate(timeout=10)
        finally:
            process.kill()
            process.communicate()
        (tmp_path / "state" / "sandbox.json").unlink()
    engine = sa.create_engine(f"sqlite:///{tmp_path / 'platform.db'}")
    with engine.connect() as connection:
        count = connection.scalar(sa.select(sa.func.count()).select_from(container_instance))
    engine.dispose()
    assert count == 4


def test_an_error_is_one_line(tmp_path):
    """On standard error, with exit code 1."""
    process = _serve(tmp_path / "missing")
    _, err = process.communicate(timeout=15)
    assert process.returncode == 1
    assert err.startswith("sandbox: ")
    assert len(err.splitlines()) == 1
