"""The image has what `zlh` needs, and nobody in it is root."""

import json
import re
import shutil
import subprocess
import sys
from fnmatch import fnmatch

import pytest
from packaging.specifiers import SpecifierSet

from tests.deploy.files import DEPLOY, ROOT

Instruction = tuple[str, str]


@pytest.fixture(scope="module")
def stages() -> dict[str, list[Instruction]]:
    """The instructions of each stage, those of the stages that it comes from included."""
    text = re.sub(r"\\\n", " ", (DEPLOY / "Dockerfile").read_text())
    found: dict[str, list[Instruction]] = {}
    for line in text.splitlines():
        if not line.strip() or line.startswith("#"):
            continue
        word, _, rest = line.strip().partition(" ")
        if word == "FROM":
            source, _, name = rest.partition(" AS ")
            found[name] = [*found.get(source, [("FROM", source)])]
        else:
            found[name].append((word, " ".join(rest.split())))
    return found


def values(stage: list[Instruction], word: str) -> list[str]:
    return [rest for found, rest in stage if found == word]


def copied() -> list[str]:
    text = (DEPLOY / "Dockerfile").read_text()
    lines = re.findall(r"^COPY (?!--from)(.+)$", text, re.M)
    return [source for line in lines for source in line.split()[:-1]]


def test_what_is_copied_is_there_and_let_through_by_dockerignore():
    lines = (ROOT / ".dockerignore").read_text().splitlines()
    assert "*" in lines, "everything is left out but what is named"
    let_through = [line[1:] for line in lines if line.startswith("!")]
    assert sorted(let_through) == sorted(set(copied()))
    for source in let_through:
        assert (ROOT / source).exists(), source
    assert not any(fnmatch(secret, line) for secret in (".env", ".zlh") for line in let_through)


@pytest.mark.parametrize("name", ["zlh", "kubernetes"])
def test_nobody_is_root_and_state_is_a_volume(stages, name):
    stage = stages[name]
    [user] = values(stage, "USER")
    assert re.fullmatch(r"[1-9]\d{3,}:[1-9]\d{3,}", user), "a number, for runAsNonRoot"
    assert values(stage, "VOLUME") == ["/var/lib/zlh"]
    assert any("DAGSTER_HOME=/var/lib/zlh" in env for env in values(stage, "ENV"))
    made = next(run for run in values(stage, "RUN") if "install -d" in run)
    assert "-o zlh -g zlh -m 0700 /var/lib/zlh /snapshots" in made


def test_the_last_stage_is_zlh_and_that_of_kubernetes_has_no_entrypoint(stages):
    assert list(stages)[-1] == "zlh"
    assert values(stages["zlh"], "ENTRYPOINT") == ['["zlh"]']
    assert json.loads(values(stages["zlh"], "CMD")[-1]) == ["--help"]
    # The chart gives `dagster api grpc` as arguments; an entrypoint would be put before them.
    assert not values(stages["kubernetes"], "ENTRYPOINT")


def test_packages_come_with_hashes_and_ours_without_dependencies(stages):
    installs = [run for run in values(stages["packages-kubernetes"], "RUN") if "pip install" in run]
    assert len(installs) == 3
    for run in installs:
        assert "--require-hashes" in run or "--no-deps --no-build-isolation --no-index" in run
    assert stages["packages"][0] == stages["base"][0]
    version = stages["packages"][0][1].removeprefix("python:").removesuffix("-slim")
    wanted = re.search(r'requires-python = "(.+)"', (ROOT / "pyproject.toml").read_text())
    assert wanted is not None
    assert f"{version}.1" in SpecifierSet(wanted[1])


def test_the_package_in_place_finds_the_dagster_yaml_beside_it(tmp_path):
    for source in copied():
        (tmp_path / source).parent.mkdir(parents=True, exist_ok=True)
        if (ROOT / source).is_dir():
            shutil.copytree(ROOT / source, tmp_path / source)
        else:
            shutil.copy(ROOT / source, tmp_path / source)
    code = (
        "import sys, pathlib, zlh_dagster.cli.home as home\n"
        "assert home.__file__.startswith(sys.argv[1]), home.__file__\n"
        "assert home.prepare_home(pathlib.Path(sys.argv[2])) is None"
    )
    command = [sys.executable, "-c", code, str(tmp_path), str(tmp_path / "home")]
    done = subprocess.run(
        command, cwd=tmp_path, capture_output=True, text=True, check=False, timeout=120
    )
    assert done.returncode == 0, done.stderr
    assert (tmp_path / "home/dagster.yaml").read_text() == (ROOT / "dagster.yaml").read_text()
