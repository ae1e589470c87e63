"""The units: each a part of `zlh serve`, and shut in as far as the parts allow."""

import re
import shutil
import subprocess

import pytest

from tests.deploy.files import DEPLOY, ROOT, SETTINGS
from zlh_dagster.cli.parts import Part
from zlh_dagster.core.pulse import GOOD_SECONDS
from zlh_dagster.resources.watchdog import INTERVAL
from zlh_dagster.runs.launcher import TERMINATE_SECONDS

FOLDER = DEPLOY / "systemd"
UNITS = [f"zlh-{part.value}.service" for part in Part]
MOST_EXPOSED = 15
"""Of 100, as `systemd-analyze security` counts; 12 with systemd 252."""

OF_OTHERS = {
    "DAGSTER_DAEMON_HEARTBEAT_TOLERANCE",
    "PYTHONUNBUFFERED",
    "PYTHONDONTWRITEBYTECODE",
}
SHUT_IN = {
    "NoNewPrivileges": "yes",
    "CapabilityBoundingSet": "",
    "ProtectSystem": "strict",
    "ProtectHome": "yes",
    "PrivateTmp": "yes",
    "PrivateDevices": "yes",
    "MemoryDenyWriteExecute": "yes",
    "RestrictAddressFamilies": "AF_UNIX AF_INET AF_INET6",
    "SystemCallArchitectures": "native",
    "UMask": "0077",
}
each_unit = pytest.mark.parametrize("unit", UNITS)


def lines(unit: str) -> list[tuple[str, str]]:
    return re.findall(r"^(\w+)=(.*)$", (FOLDER / unit).read_text(), re.M)


def with_a_program_that_exists(directory):
    """The units as they are, but for the program, which is not installed here."""
    for path in FOLDER.iterdir():
        text = path.read_text().replace("/opt/zlh/.venv/bin/zlh", "/bin/true")
        (directory / path.name).write_text(text)
    return directory


@pytest.fixture(scope="module")
def analyze():
    program = shutil.which("systemd-analyze")
    if program is None:
        pytest.skip("systemd-analyze is not installed")
    shown = subprocess.run([program, "--version"], capture_output=True, text=True).stdout
    version = re.search(r"systemd (\d+)", shown)
    if version is None or int(version[1]) < 250:
        pytest.skip("systemd-analyze is older than 250 and cannot judge a file")
    return program


def test_the_target_starts_every_part():
    [wanted] = [value for key, value in lines("zlh.target") if key == "Wants"]
    assert sorted(wanted.split()) == sorted(UNITS)
    for unit in UNITS:
        assert ("PartOf", "zlh.target") in lines(unit)
        assert ("WantedBy", "zlh.target") in lines(unit)


@each_unit
def test_a_unit_is_the_part_that_it_is_named_for(unit):
    found = dict(lines(unit))
    assert found["ExecStart"].split()[1:] == ["serve", unit[4:-8]]
    assert found["User"] == found["Group"] == found["StateDirectory"] == "zlh"
    assert found["EnvironmentFile"] == "/etc/zlh/zlh.env"
    words = [word for key, value in lines(unit) if key == "Environment" for word in value.split()]
    given = dict(word.split("=", 1) for word in words)
    assert set(given) <= SETTINGS | OF_OTHERS
    assert given["DAGSTER_HOME"] == found["WorkingDirectory"] == "/var/lib/zlh"


@each_unit
def test_a_unit_starts_again_whatever_happens_and_ends_in_time(unit):
    found = dict(lines(unit))
    assert found["Restart"] == "always"
    assert found["StartLimitIntervalSec"] == "0", "a database may be away for hours"
    assert found["KillSignal"] == "SIGTERM"
    # The processes that execute runs get the signal as well, as below `zlh up`.
    assert found.get("KillMode", "control-group") == "control-group"
    assert int(found["TimeoutStopSec"]) > 2 * TERMINATE_SECONDS


@each_unit
def test_a_unit_is_shut_in(unit):
    found = dict(lines(unit))
    assert {key: found.get(key) for key in SHUT_IN} == SHUT_IN
    filters = [value for key, value in lines(unit) if key == "SystemCallFilter"]
    assert filters == ["@system-service", "~@privileged @resources"]


def test_the_units_differ_only_in_what_they_are():
    differing = {"Description", "ExecStart", "MemoryMax", "Wants", "WatchdogSec"}
    same = {tuple(line for line in lines(unit) if line[0] not in differing) for unit in UNITS}
    assert len(same) == 1


@pytest.mark.parametrize("unit", ["zlh-web.service", "zlh-worker.service"])
def test_a_part_that_hangs_is_started_again(unit):
    found = dict(lines(unit))
    assert int(found["WatchdogSec"].removesuffix("min")) * 60 > 5 * INTERVAL
    assert found["Restart"] == "always"


def test_a_daemon_that_does_nothing_is_started_again():
    """Asked as the same user with the same settings, by a timer that begins with the daemon."""
    assert ("Wants", "zlh-health.timer") in lines("zlh-daemon.service")
    timer = dict(lines("zlh-health.timer"))
    assert timer["PartOf"] == "zlh-daemon.service"
    first = int(timer["OnActiveSec"].removesuffix("min")) * 60
    assert first > GOOD_SECONDS, "it has had time for a good tick"
    asks, daemon = lines("zlh-health.service"), lines("zlh-daemon.service")
    assert dict(asks)["ExecStart"].split()[1:] == ["health", "--tell"]
    assert dict(asks)["OnFailure"] == "zlh-restart.service"
    same = ("User", "EnvironmentFile", "Environment", "WorkingDirectory", *SHUT_IN)
    for key in same:
        assert [v for k, v in asks if k == key] == [v for k, v in daemon if k == key]
    restarts = dict(lines("zlh-restart.service"))["ExecStart"].split()[1:]
    assert restarts == ["try-restart", "zlh-worker.service", "zlh-daemon.service"]
    assert "zlh-*.{service,timer}" in (ROOT / "docs/deployment.md").read_text()


def test_systemd_reads_every_line(analyze, tmp_path):
    folder = with_a_program_that_exists(tmp_path)
    units = sorted(path for path in folder.iterdir() if path.name != "sysusers.conf")
    assert len(units) == len(UNITS) + 4
    done = subprocess.run([analyze, "verify", *units], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    ours = [line for line in done.stderr.splitlines() if "zlh" in line]
    assert not ours


@pytest.mark.parametrize("unit", [*UNITS, "zlh-health.service", "zlh-restart.service"])
def test_systemd_finds_it_hardly_exposed(analyze, tmp_path, unit):
    path = with_a_program_that_exists(tmp_path) / unit
    command = [analyze, "security", "--offline=true", f"--threshold={MOST_EXPOSED}", path]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout[-300:] + done.stderr


def test_the_user_has_no_shell_and_the_directory_of_the_units():
    kind, name, _, rest = (FOLDER / "sysusers.conf").read_text().splitlines()[-1].split(maxsplit=3)
    assert (kind, name) == ("u", "zlh")
    assert rest.endswith(" /var/lib/zlh"), "and no shell behind it"
    assert "sysusers.conf" in (ROOT / "docs/deployment.md").read_text()
