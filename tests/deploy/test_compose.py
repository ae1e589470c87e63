"""The compose file: real commands, real settings, nothing open, nothing privileged."""

import os
import re
import shutil
import signal
import subprocess
import time

import pytest
import sqlalchemy as sa
from typer.main import get_command

from tests.deploy.files import DEPLOY, ROOT, SETTINGS, read_yaml
from zlh_dagster.cli.main import app
from zlh_dagster.cli.parts import Part
from zlh_dagster.resources.settings import load_settings

TOLERANCE = "DAGSTER_DAEMON_HEARTBEAT_TOLERANCE"
OURS = ("web", "daemon", "worker", "tables")
OF_THE_IMAGES = {
    "postgres": {"POSTGRES_USER", "POSTGRES_DB", "POSTGRES_PASSWORD"},
    **{name: {"TINI_KILL_PROCESS_GROUP", TOLERANCE} for name in OURS},
}
COMPOSE = read_yaml(DEPLOY / "compose.yaml")
SERVICES = COMPOSE["services"]
each_service = pytest.mark.parametrize("name", SERVICES)


def names_in(path):
    return set(re.findall(r"^#?([A-Z][A-Z0-9_]+)=", path.read_text(), re.M))


def test_docker_compose_takes_it(tmp_path):
    if shutil.which("docker") is None:
        pytest.skip("docker is not installed")
    if subprocess.run(["docker", "compose", "version"], capture_output=True).returncode:
        pytest.skip("docker has no compose here")
    for source, name in (
        ("compose.yaml", "compose.yaml"),
        ("zlh.env.example", "zlh.env"),
        ("postgres.env.example", "postgres.env"),
    ):
        shutil.copy(DEPLOY / source, tmp_path / name)
    command = ["docker", "compose", "-f", tmp_path / "compose.yaml", "config", "--quiet"]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr


@pytest.mark.parametrize("name", OURS)
def test_every_command_is_one_of_zlh(name):
    service = SERVICES[name]
    assert "entrypoint" not in service
    *words, last = service["command"]
    command = get_command(app)
    for word in words:
        command = command.commands[word]
    if words == ["serve"]:
        assert last == name == Part(last).value
    else:
        assert last in command.commands


def test_every_part_is_a_service_and_only_the_worker_may_be_many():
    served = [s["command"][1] for s in SERVICES.values() if s.get("command", [""])[0] == "serve"]
    assert sorted(served) == sorted(part.value for part in Part)
    worker = SERVICES["worker"]
    assert not {"ports", "container_name", "hostname"} & set(worker), "or it cannot be scaled"
    home = [mount for mount in worker["tmpfs"] if mount.startswith("/var/lib/zlh:")]
    assert home, "each worker has a state directory of its own"
    assert not any("/var/lib/zlh" in volume for volume in worker["volumes"])


@each_service
def test_every_variable_is_a_setting_or_one_that_the_image_knows(name):
    service = SERVICES[name]
    known = OF_THE_IMAGES.get(name, set()) | (SETTINGS if name in OURS else set())
    assert set(service.get("environment", {})) <= known
    file = service.get("env_file")
    if file is not None:
        assert names_in(DEPLOY / f"{file}.example") <= known


def chosen(way, tmp_path):
    """The example's settings after the # was taken from the lines of one way to run it."""
    text = (DEPLOY / "zlh.env.example").read_text()
    head, *blocks = text.split("\n\n")
    chosen = [
        b.replace("\n#ZLH_", "\nZLH_") if b.startswith(f"# With {way}") else b for b in blocks
    ]
    assert chosen != blocks
    (tmp_path / "zlh.env").write_text("\n\n".join((head, *chosen)))
    return load_settings(tmp_path / "zlh.env")


def test_the_example_settings_for_systemd_lead_to_no_service_of_the_compose_file(tmp_path):
    settings = chosen("systemd", tmp_path)
    assert settings.zlh_dagster_database_url is None
    assert sa.make_url(settings.redis_url).host not in SERVICES


def test_the_example_settings_load_and_lead_to_the_services(monkeypatch, tmp_path):
    for name, value in SERVICES["daemon"]["environment"].items():
        monkeypatch.setenv(name, value)
    settings = chosen("compose.yaml", tmp_path)
    assert sa.make_url(settings.dagster_database_url).host in SERVICES
    assert sa.make_url(settings.redis_url).host in SERVICES
    assert settings.zlh_repair_mode == "dry-run"
    mounts = [volume.partition(":")[2] for volume in SERVICES["worker"]["volumes"]]
    folder, _, deployment = settings.snapshot_url.rpartition("/")
    assert folder in mounts
    assert deployment == settings.zlh_deployment
    published = SERVICES["web"]["ports"][0]
    assert published.endswith(f":{settings.zlh_web_port}")


@each_service
def test_ports_are_open_on_loopback_only(name):
    for port in SERVICES[name].get("ports", []):
        assert str(port).startswith("127.0.0.1:"), port
    assert "network_mode" not in SERVICES[name]


def test_the_storage_network_leads_nowhere():
    assert COMPOSE["networks"]["storage"]["internal"] is True
    for name in ("postgres", "redis"):
        assert SERVICES[name]["networks"] == ["storage"]


@each_service
def test_nothing_is_privileged(name):
    service = SERVICES[name]
    assert service["cap_drop"] == ["ALL"]
    assert service["security_opt"] == ["no-new-privileges:true"]
    assert service["read_only"] is True
    assert any(mount.startswith("/tmp") for mount in service["tmpfs"])
    assert service["mem_limit"]
    assert service["pids_limit"]
    assert not {"privileged", "cap_add", "devices", "pid", "ipc"} & set(service)
    # Our own image has a user; the others' begin as root, unless they are told.
    assert name in OURS or service["user"] not in ("root", "0")


@each_service
def test_what_ends_is_started_again_and_what_is_waited_for_can_be_seen(name):
    service = SERVICES[name]
    lasting = name != "tables"
    assert service["restart"] == ("unless-stopped" if lasting else "no")
    assert ("healthcheck" in service) == lasting
    for other, how in service.get("depends_on", {}).items():
        expected = "service_healthy" if "healthcheck" in SERVICES[other] else None
        assert how["condition"] == (expected or "service_completed_successfully")
    assert (
        name not in OURS
        or not lasting
        or set(service["depends_on"])
        == {
            "tables",
            "postgres",
            "redis",
        }
    )


def test_no_secret_is_in_a_file_that_is_kept():
    for line in (DEPLOY / "compose.yaml").read_text().splitlines():
        assert not re.search(r"(password|secret|token)[\"\']?\s*[:=]", line, re.I), line
    assert "deploy/*.env" in (ROOT / ".gitignore").read_text().splitlines()


@pytest.mark.parametrize("forked", [True, False])
def test_the_worker_is_healthy_once_it_has_forked(forked):
    """The check itself, with another process as the container's first."""
    worker = "sleep 60 & wait" if forked else "read nothing"
    first = subprocess.Popen(
        ["sh", "-c", f"sh -c '{worker}; :'; :"],
        stdin=subprocess.PIPE,
        start_new_session=True,
    )
    kind, check = SERVICES["worker"]["healthcheck"]["test"]
    assert kind == "CMD-SHELL"
    command = check.replace("$$", "$").replace(
        "/proc/1/task/1/", f"/proc/{first.pid}/task/{first.pid}/"
    )
    try:
        statuses = []
        for _ in range(20):
            statuses.append(subprocess.run(["sh", "-c", command], capture_output=True).returncode)
            if forked and not statuses[-1]:
                break
            time.sleep(0.1)
        assert (statuses[-1] == 0) == forked
    finally:
        os.killpg(first.pid, signal.SIGKILL)
        first.wait()
        first.stdin.close()
