"""The values for Dagster's chart say what dagster.yaml says, and Dagster takes them."""

import json
import os
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml
from dagster._config import process_config, resolve_to_config_type
from dagster._core.instance.config import dagster_instance_config
from dagster_k8s import K8sRunLauncher
from dagster_k8s.container_context import K8sContainerContext
from dagster_k8s.models import k8s_model_from_dict
from kubernetes import client

from tests.deploy.chart import in_words_of_the_client, snake, unknown
from tests.deploy.files import DEPLOY, ROOT, SETTINGS, read_yaml
from zlh_dagster.cli.home import LOCATION, MODULE

FOLDER = DEPLOY / "kubernetes"
VALUES = read_yaml(FOLDER / "values.yaml")
SHIPPED = read_yaml(ROOT / "dagster.yaml")
[CODE] = VALUES["dagster-user-deployments"]["deployments"]
ANY_KEYS = {
    "requests",
    "limits",
    "additionalInstanceConfig",
    "customRunCoordinator",
    "runK8sConfig",
}
"""Where any key may stand, or where what it says is handed to Dagster itself below."""

LAUNCHER = VALUES["runLauncher"]["config"]["k8sRunLauncher"]
DAEMON = VALUES["dagsterDaemon"]
WEB = VALUES["dagsterWebserver"]
TABLES = read_yaml(FOLDER / "tables.yaml")
SNAPSHOTS = read_yaml(FOLDER / "snapshots.yaml")


def launcher_config() -> dict[str, Any]:
    """As the chart's template writes it into dagster.yaml."""
    config = {snake(key): value for key, value in LAUNCHER.items()}
    config["run_k8s_config"] = {snake(k): v for k, v in LAUNCHER["runK8sConfig"].items()}
    return {
        **config,
        "load_incluster_config": True,
        "job_namespace": "zlh",
        "service_account_name": "zlh",
        "dagster_home": VALUES["global"]["dagsterHome"],
        "instance_config_map": "zlh-instance",
        "postgres_password_secret": VALUES["global"]["postgresqlSecretName"],
    }


def container_context() -> dict[str, Any]:
    """As the chart hands what the code has on to the runs."""
    same = ("env", "resources", "volumes")
    return {
        **{key: CODE[key] for key in same},
        "volume_mounts": CODE["volumeMounts"],
        "env_secrets": [secret["name"] for secret in CODE["envSecrets"]],
        "image_pull_policy": CODE["image"]["pullPolicy"],
    }


def ticks(retention: dict[str, Any]) -> dict[str, Any]:
    kinds = ("schedule", "sensor")
    return {kind: {"purge_after_days": retention[kind]["purgeAfterDays"]} for kind in kinds}


def test_every_key_is_one_that_the_chart_or_kubernetes_knows():
    assert list(unknown(VALUES)) == []


def test_a_misspelt_key_is_found_wherever_it_stands():
    everywhere = [p for p in places(VALUES) if isinstance(p[-1], str) and not ANY_KEYS & {*p[:-1]}]
    assert len(everywhere) > 150
    for *above, key in everywhere:
        # As text, so that no two places share an object as the file's aliases do.
        misspelt = holder = json.loads(json.dumps(VALUES))
        for step in above:
            holder = holder[step]
        holder[f"{key}z"] = holder.pop(key)
        assert len(list(unknown(misspelt))) == 1, (*above, key)


def places(value: Any, place: tuple[Any, ...] = ()) -> Iterator[tuple[Any, ...]]:
    """Where each key of the values stands."""
    if isinstance(value, dict):
        for key, item in value.items():
            yield (*place, key)
            yield from places(item, (*place, key))
    if isinstance(value, list):
        for n, item in enumerate(value):
            yield from places(item, (*place, n))


def test_limits_retention_and_queue_are_those_of_dagster_yaml():
    extra = VALUES["additionalInstanceConfig"]
    assert extra == {key: SHIPPED[key] for key in ("concurrency", "nux")}
    assert ticks(VALUES["retention"]) == SHIPPED["retention"]
    custom = DAEMON["runCoordinator"]["config"]["customRunCoordinator"]
    # A pod takes longer to start than the queue to look.
    assert custom["class"] == "QueuedRunCoordinator"
    assert custom["config"] == SHIPPED["run_coordinator"]["config"]
    assert VALUES["telemetry"] == SHIPPED["telemetry"]
    assert VALUES["pythonLogs"]["pythonLogLevel"] == SHIPPED["python_logs"]["python_log_level"]
    assert VALUES["computeLogManager"]["type"] == SHIPPED["compute_logs"]["class"]


def test_monitoring_differs_only_in_the_time_that_a_pod_takes_to_start():
    given = {snake(key): value for key, value in DAEMON["runMonitoring"].items()}
    start = given.pop("start_timeout_seconds")
    # Nothing is resumed: our own launcher cannot, and Dagster's does so unless it is told.
    assert given.pop("max_resume_run_attempts") == 0
    shipped = dict(SHIPPED["run_monitoring"])
    assert start > shipped.pop("start_timeout_seconds")
    # The chart hands no such key on; every job of the project has a limit of its own.
    del shipped["max_runtime_seconds"]
    assert given == shipped


def test_dagster_takes_what_the_chart_makes_of_it(tmp_path: Path):
    made = {
        **VALUES["additionalInstanceConfig"],
        "run_launcher": {
            "module": "dagster_k8s",
            "class": VALUES["runLauncher"]["type"],
            "config": launcher_config(),
        },
        "run_coordinator": DAEMON["runCoordinator"]["config"]["customRunCoordinator"],
        "run_monitoring": {snake(k): v for k, v in DAEMON["runMonitoring"].items()},
        "retention": ticks(VALUES["retention"]),
        "telemetry": VALUES["telemetry"],
    }
    (tmp_path / "dagster.yaml").write_text(yaml.safe_dump(made))
    config, _ = dagster_instance_config(str(tmp_path))
    assert config["run_launcher"]["class"] == "K8sRunLauncher"


def test_the_launcher_takes_its_config():
    kind = resolve_to_config_type(K8sRunLauncher.config_type())
    result = process_config(kind, launcher_config())
    assert result.success, result.errors
    broken = process_config(kind, {**launcher_config(), "run_k8s_config": {"podSpec": {}}})
    assert not broken.success


def test_a_run_gets_what_the_code_has():
    assert CODE["includeConfigInLaunchedRuns"] == {"enabled": True}
    context = K8sContainerContext.create_from_config({"k8s": container_context()})
    container = context.run_k8s_config.container_config
    assert container is not None
    given = {variable["name"]: variable["value"] for variable in container["env"]}
    assert set(given) <= SETTINGS
    assert given["ZLH_DEPLOYMENT"]
    paths = [mount["mount_path"] for mount in container["volume_mounts"]]
    assert given["ZLH_SNAPSHOT_URL"] in paths
    assert VALUES["global"]["dagsterHome"] in paths
    [secret] = CODE["envSecrets"]
    assert {"secret_ref": secret} in container["env_from"]


def test_a_daemon_that_does_nothing_is_started_again():
    for probe in (CODE["livenessProbe"], VALUES["dagsterWebserver"]["livenessProbe"]):
        timing = {snake(k): v for k, v in probe.items() if k not in ("exec", "httpGet")}
        assert k8s_model_from_dict(client.V1Probe, timing).period_seconds == 60
    script = CODE["livenessProbe"]["exec"]["command"][-1]
    assert script.startswith("zlh health --tell; exec dagster api grpc-health-check")
    assert script.endswith(f"--port {CODE['port']}")
    probe = DAEMON["livenessProbe"]
    assert probe["exec"]["command"] == ["dagster-daemon", "liveness-check"]
    # Every key is one that Kubernetes knows.
    timing = {snake(key): value for key, value in probe.items() if key != "exec"}
    assert k8s_model_from_dict(client.V1Probe, timing).period_seconds == 60
    assert probe["failureThreshold"] * probe["periodSeconds"] < DAEMON["heartbeatTolerance"]


def test_the_chart_finds_the_guarded_web_server(tmp_path: Path):
    """It starts `dagster-webserver` by that name, and nothing in the values says another."""
    source = FOLDER / "dagster-webserver"
    lines = (DEPLOY / "Dockerfile").read_text().splitlines()
    copies = f"COPY deploy/kubernetes/{source.name} .venv/bin/"
    installed = lines.index("COPY requirements-kubernetes.lock ./")
    assert installed < lines.index(copies) < lines.index("FROM python:3.11-slim AS base")
    assert os.access(source, os.X_OK)
    program = tmp_path / source.name
    program.write_text(source.read_text().replace("/opt/zlh/.venv/bin/python", sys.executable))
    command = ["sh", str(program), "-h", "0.0.0.0", "-p", "3000", "--help"]
    done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=120)
    assert done.returncode == 0, done.stderr
    assert "zlh_dagster.web.dagster_webserver" in done.stdout
    assert "--path-prefix" in done.stdout


def test_the_guard_lets_the_probe_through():
    """Kubernetes asks the pod by its address unless it is told another host."""
    probe = dict(WEB["readinessProbe"]["httpGet"])
    [header] = probe.pop("httpHeaders")
    assert header == {"name": "Host", "value": "localhost"}
    assert probe["path"] == "/server_info"


def test_the_code_is_the_one_that_zlh_serves():
    assert CODE["dagsterApiGrpcArgs"] == ["--module-name", MODULE, "--location-name", LOCATION]


@pytest.mark.parametrize("pod", [CODE, DAEMON, WEB], ids=["code", "daemon", "web"])
def test_every_mount_has_a_volume_and_no_pod_is_privileged(pod):
    volumes = {volume["name"]: volume for volume in pod["volumes"]}
    mounts = {mount["name"]: mount["mountPath"] for mount in pod["volumeMounts"]}
    assert set(mounts) == set(volumes)
    # The image is read-only; whatever is written has a place.
    assert {"/tmp", VALUES["global"]["dagsterHome"]} <= set(mounts.values())
    shut_in(pod["podSecurityContext"], pod["securityContext"])
    assert pod["resources"]["limits"]["memory"]


def test_a_run_is_as_shut_in_as_the_rest():
    spec = LAUNCHER["runK8sConfig"]["podSpecConfig"]
    shut_in(spec["securityContext"], LAUNCHER["securityContext"])
    assert spec["automountServiceAccountToken"] is False


def shut_in(pod: dict[str, Any], container: dict[str, Any]) -> None:
    assert pod["runAsNonRoot"] is True
    assert pod["runAsUser"] == 10001
    assert "USER 10001:10001" in (DEPLOY / "Dockerfile").read_text()
    assert pod["seccompProfile"] == {"type": "RuntimeDefault"}
    assert container["readOnlyRootFilesystem"] is True
    assert container["allowPrivilegeEscalation"] is False
    assert container["capabilities"] == {"drop": ["ALL"]}


def test_the_manifests_have_only_fields_that_kubernetes_knows():
    job = k8s_model_from_dict(client.V1Job, in_words_of_the_client(TABLES))
    assert job.spec.template.spec.containers[0].command == ["zlh", "db", "upgrade"]
    k8s_model_from_dict(client.V1PersistentVolumeClaim, in_words_of_the_client(SNAPSHOTS))
    with pytest.raises(Exception, match="Unexpected keys"):
        k8s_model_from_dict(client.V1Job, {"spec": {"tempalte": {}}})


def test_the_parts_name_each_other():
    [container] = TABLES["spec"]["template"]["spec"]["containers"]
    image = CODE["image"]
    assert container["image"] == f"{image['repository']}:{image['tag']}"
    version = re.search(r'^version = "(.+)"', (ROOT / "pyproject.toml").read_text(), re.M)
    assert version is not None
    assert image["tag"] == version[1]
    for other in (DAEMON, WEB):
        assert other["image"] == image
    [reference] = container["envFrom"]
    assert reference["secretRef"] == CODE["envSecrets"][0]
    shut_in(TABLES["spec"]["template"]["spec"]["securityContext"], container["securityContext"])
    [claim] = [
        v["persistentVolumeClaim"]["claimName"]
        for v in CODE["volumes"]
        if len(v) == 2 and "persistentVolumeClaim" in v
    ]
    assert claim == SNAPSHOTS["metadata"]["name"]
    assert SNAPSHOTS["spec"]["accessModes"] == ["ReadWriteMany"]


def test_no_password_is_in_the_values():
    assert VALUES["generatePostgresqlPasswordSecret"] is False
    assert "postgresqlPassword" not in VALUES["postgresql"]
    public = {"ZLH_DEPLOYMENT", "ZLH_SNAPSHOT_URL"}
    assert {variable["name"] for variable in CODE["env"]} == public
