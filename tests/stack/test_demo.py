"""`make demo ARGS=--once` is what people try first, so it is tested like everything else."""

import subprocess
import sys

import pytest

from tests.stack.stack import ROOT

pytestmark = pytest.mark.slow


@pytest.mark.timeout(500)
def test_the_demo_shows_a_repair_and_leaves_nothing_behind(tmp_path):
    done = subprocess.run(
        [sys.executable, "-m", "zlh_dagster.cli.demo", "--once"],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        timeout=480,
        check=False,
    )
    output = done.stdout + done.stderr
    assert done.returncode == 0, output
    for said in ("deleted _minecraft._tcp.mc-5000.example.gg", "Discord #repair", "web UI"):
        assert said in output
    assert "repaired and verified" in output
    log = (tmp_path / ".zlh-demo" / "zlh.log").read_text()
    assert "stopped" in log
    assert "Traceback" not in log
    assert "Warning" not in log
    assert str(ROOT) not in output
