"""What the values of Dagster's chart may say, as its own schema has it.

The chart lies in Dagster's repository below `helm/dagster`, its schema in
`schema/schema/charts` there (version 1.13). Helm takes a key that the chart does not know, and
nothing happens: a slip shows in no error.
"""

import re
from collections.abc import Iterator
from typing import Any

from dagster_k8s.models import k8s_model_from_dict
from kubernetes import client

_POD = frozenset(
    {
        *("image", "env", "envConfigMaps", "envSecrets", "labels", "annotations"),
        *("nodeSelector", "affinity", "tolerations", "schedulerName"),
        *("podSecurityContext", "securityContext", "resources", "volumes", "volumeMounts"),
        *("livenessProbe", "readinessProbe", "startupProbe"),
    }
)
_IMAGE = frozenset({"repository", "tag", "pullPolicy"})
_CODE = ("dagster-user-deployments", "deployments", "*")
_LAUNCHER = ("runLauncher", "config", "k8sRunLauncher")
_COORDINATOR = ("dagsterDaemon", "runCoordinator")

KEYS: dict[tuple[str, ...], frozenset[str]] = {
    (): frozenset(
        {
            *("global", "dagsterWebserver", "dagsterDaemon", "dagster-user-deployments"),
            *("postgresql", "generatePostgresqlPasswordSecret", "generateCeleryConfigSecret"),
            *("rabbitmq", "redis", "flower", "ingress", "imagePullSecrets", "computeLogManager"),
            *("scheduler", "runLauncher", "pythonLogs", "busybox", "migrate", "telemetry"),
            *("serviceAccount", "retention", "additionalInstanceConfig"),
        }
    ),
    ("global",): frozenset(
        {
            *("postgresqlSecretName", "dagsterHome", "serviceAccountName"),
            *("celeryConfigSecretName", "dagsterInstanceConfigMap"),
        }
    ),
    ("postgresql",): frozenset(
        {
            *("postgresqlScheme", "image", "enabled", "postgresqlHost", "postgresqlUsername"),
            *("postgresqlPassword", "postgresqlDatabase", "postgresqlParams", "service"),
        }
    ),
    ("postgresql", "service"): frozenset({"port"}),
    **{(name,): frozenset({"enabled"}) for name in ("rabbitmq", "redis", "flower", "telemetry")},
    ("dagster-user-deployments",): frozenset(
        {"enabled", "enableSubchart", "imagePullSecrets", "deployments"}
    ),
    _CODE: _POD
    | {"name", "dagsterApiGrpcArgs", "codeServerArgs", "port", "includeConfigInLaunchedRuns"},
    (*_CODE, "includeConfigInLaunchedRuns"): frozenset({"enabled"}),
    (*_CODE, "image"): _IMAGE,
    ("runLauncher",): frozenset({"type", "config"}),
    ("runLauncher", "config"): frozenset(
        {"celeryK8sRunLauncher", "k8sRunLauncher", "customRunLauncher"}
    ),
    _LAUNCHER: frozenset(
        {
            *("image", "imagePullPolicy", "jobNamespace", "loadInclusterConfig", "kubeconfigFile"),
            *("envConfigMaps", "envSecrets", "envVars", "volumeMounts", "volumes", "labels"),
            *("failPodOnRunFailure", "resources", "schedulerName", "securityContext"),
            "runK8sConfig",
        }
    ),
    (*_LAUNCHER, "runK8sConfig"): frozenset(
        {
            *("containerConfig", "podSpecConfig", "podTemplateSpecMetadata"),
            *("jobSpecConfig", "jobMetadata"),
        }
    ),
    ("dagsterDaemon",): _POD
    | {"enabled", "runCoordinator", "heartbeatTolerance", "deploymentLabels"}
    | {"runMonitoring", "runRetries", "sensors", "schedules"},
    ("dagsterDaemon", "image"): _IMAGE,
    _COORDINATOR: frozenset({"enabled", "type", "config"}),
    (*_COORDINATOR, "config"): frozenset({"queuedRunCoordinator", "customRunCoordinator"}),
    (*_COORDINATOR, "config", "customRunCoordinator"): frozenset({"module", "class", "config"}),
    # As the template `configmap-instance.yaml` reads them; the schema takes any.
    ("dagsterDaemon", "runMonitoring"): frozenset(
        {
            *("enabled", "startTimeoutSeconds", "cancelTimeoutSeconds", "maxResumeRunAttempts"),
            *("pollIntervalSeconds", "freeSlotsAfterRunEndSeconds"),
        }
    ),
    ("dagsterDaemon", "runRetries"): frozenset({"enabled", "maxRetries"}),
    ("dagsterWebserver",): _POD
    | {"replicaCount", "nameOverride", "service", "workspace", "deploymentLabels", "pathPrefix"}
    | {"dbStatementTimeout", "dbPoolRecycle", "logLevel", "enableReadOnly"},
    ("dagsterWebserver", "image"): _IMAGE,
    ("dagsterWebserver", "service"): frozenset({"annotations", "type", "port"}),
    ("computeLogManager",): frozenset({"type", "config"}),
    ("pythonLogs",): frozenset({"pythonLogLevel", "managedPythonLoggers", "dagsterHandlerConfig"}),
    ("retention",): frozenset({"enabled", "sensor", "schedule", "autoMaterialize"}),
    ("retention", "schedule"): frozenset({"purgeAfterDays"}),
    ("retention", "sensor"): frozenset({"purgeAfterDays"}),
    ("retention", "sensor", "purgeAfterDays"): frozenset(
        {"skipped", "success", "failure", "started"}
    ),
}
"""Keys that may stand at a place; `*` is any item of a list."""

_OF_KUBERNETES = {
    "volumes": client.V1Volume,
    "volumeMounts": client.V1VolumeMount,
    "env": client.V1EnvVar,
    "envSecrets": client.V1SecretEnvSource,
    "podSecurityContext": client.V1PodSecurityContext,
    "securityContext": client.V1SecurityContext,
    "resources": client.V1ResourceRequirements,
    "livenessProbe": client.V1Probe,
    "readinessProbe": client.V1Probe,
}
"""What the chart hands on to Kubernetes as it is."""


def unknown(values: Any, place: tuple[str, ...] = ()) -> Iterator[str]:
    """Places in the values that neither the chart nor Kubernetes knows."""
    for key, value in values.items():
        here = (*place, key)
        if key not in KEYS[place]:
            yield ".".join(here)
        elif here in KEYS:
            yield from unknown(value, here)
        elif (*here, "*") in KEYS:
            for item in value:
                yield from unknown(item, (*here, "*"))
        elif key in _OF_KUBERNETES:
            for item in value if isinstance(value, list) else [value]:
                try:
                    k8s_model_from_dict(_OF_KUBERNETES[key], in_words_of_the_client(item))
                except Exception as error:  # noqa: BLE001 - whatever its model objects to
                    yield f"{'.'.join(here)}: {error}"


def snake(word: str) -> str:
    """``startTimeoutSeconds`` as ``start_timeout_seconds``."""
    return re.sub(r"(?<=[a-z0-9])([A-Z])", r"_\1", word).lower()


def in_words_of_the_client(value: Any) -> Any:
    """Kubernetes' own names as those of its client for Python."""
    if isinstance(value, dict):
        # A word that Python had for itself once.
        names = {key: "_exec" if key == "exec" else snake(key) for key in value}
        return {names[key]: in_words_of_the_client(item) for key, item in value.items()}
    if isinstance(value, list):
        return [in_words_of_the_client(item) for item in value]
    return value
