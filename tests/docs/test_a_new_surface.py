"""The page says how a surface is added; somebody who follows it has one that the loop repairs."""

import json
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

from tests.docs.new_surface import STEPS, apply

ROOT = Path(__file__).parents[2]


def steps_of_the_page() -> dict[int, str]:
    """Number and text of each step."""
    page = (ROOT / "docs/development.md").read_text()
    section = page.split("## Add a surface")[1].split("\n## ")[0]
    found = re.findall(r"^(\d)\. (.*?)(?=^\d\. |^$)", section, re.M | re.S)
    return {int(number): text for number, text in found}


def test_every_step_names_the_files_that_change():
    page = steps_of_the_page()
    for number, files in STEPS.items():
        named = page[number].replace("<name>", "hickory")
        for name in files:
            assert f"`{name}`" in named, f"step {number} does not name {name}"
    assert set(page) - set(STEPS) == {6}, "the pretend provider, which this brings itself"


def test_a_surface_that_is_added_by_the_page_is_observed_and_repaired(platform, tmp_path):
    copy = tmp_path / "copy"
    shutil.copytree(ROOT / "zlh_dagster", copy / "zlh_dagster")
    shutil.copytree(ROOT / "tests", copy / "tests")
    shutil.copy(ROOT / "pyproject.toml", copy)
    apply(copy / "zlh_dagster", STEPS)
    environment = platform.environment(DAGSTER_HOME=str(tmp_path / "home"))
    done = subprocess.run(
        [sys.executable, "-m", "tests.docs.new_surface"],
        env={"PATH": os.environ["PATH"], "PYTHONPATH": str(copy), **environment},
        cwd=copy,
        capture_output=True,
        text=True,
        timeout=200,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr[-300:]
    seen = json.loads(done.stdout.split("SEEN ")[1].splitlines()[0])
    assert seen == {
        "quiet": 0,
        "repaired": True,
        "same": True,
        "writes": 1,
        "events": [["hickory", "dns_republish", "succeeded"]],
        "doctor": "ok",
    }
