"""The queue between the daemon and the warm worker: Celery on the controller's own Redis.

Everything is built from the settings in memory; no address and no password is written anywhere.
"""

from typing import Any
from urllib.parse import quote

import redis
from dagster_celery.defaults import task_default_queue
from redis.connection import UnixDomainSocketConnection, parse_url

from zlh_dagster.resources.leader import deployment_id
from zlh_dagster.resources.redis import COMMAND_TIMEOUT, connect
from zlh_dagster.resources.settings import Settings

KEY_PREFIX = "zlh:celery"
TASK_EXECUTE_RUN = "execute_run"
PROCESSES = 4
"""Runs at the same time, as many as `max_concurrent_runs` in dagster.yaml lets through: then no
message waits in a worker, where its death would take it along."""

_RUNS_PER_PROCESS = 200
_MEMORY_KIB_PER_PROCESS = 768 * 1024
_REDELIVER_SECONDS = 20
_SOCKET_SECONDS = 2 * COMMAND_TIMEOUT
_HEALTH_CHECK_SECONDS = 10


def broker_url(url: str) -> str:
    """A Redis URL as kombu spells it, its options left out.

    Args:
        url: As redis-py takes it: ``redis://``, ``rediss://`` or ``unix://``.
    """
    parts = _parts(url)
    database = parts.get("db", 0)
    user = ""
    if parts.get("password"):
        name, password = parts.get("username") or "", parts["password"]
        user = f"{quote(name, safe='')}:{quote(password, safe='')}@"
    if parts.get("connection_class") is UnixDomainSocketConnection:
        path = quote(parts.get("path", ""), safe="/")
        return f"redis+socket://{user}{path}?virtual_host={database}"
    host = parts.get("host", "localhost")
    scheme = "rediss" if url.startswith("rediss://") else "redis"
    where = f"[{host}]" if ":" in host else host
    return f"{scheme}://{user}{where}:{parts.get('port', 6379)}/{database}"


def waiting_key(settings: Settings) -> str:
    """The list in Redis of runs that no worker has taken yet.

    A worker takes a run at once, for no more are started at the same time than it has processes
    for: what stays there waits for a worker that hangs.
    """
    return f"{_prefix(settings)}{task_default_queue}"


def takes_runs(settings: Settings) -> bool:
    """Whether no run waits for a worker; while Redis is away that is not the worker's fault."""
    try:
        with connect(settings.redis_url) as client:
            return not client.llen(waiting_key(settings))
    except redis.RedisError:
        return True


def celery_config(settings: Settings) -> dict[str, Any]:
    """What both ends of the queue are configured with."""
    return {
        "broker_use_ssl": _ssl(settings.redis_url),
        "broker_transport_options": {
            "global_keyprefix": _prefix(settings),
            "socket_timeout": _SOCKET_SECONDS,
            "socket_connect_timeout": _SOCKET_SECONDS,
            "socket_keepalive": True,
            "health_check_interval": _HEALTH_CHECK_SECONDS,
            # What a worker took and died with before it began comes back; a run that has begun
            # is acknowledged and never does.
            "visibility_timeout": _REDELIVER_SECONDS,
            "unacked_restore_interval": 5,
            "unacked_restore_throttle": 1,
        },
        "broker_connection_timeout": _SOCKET_SECONDS,
        "broker_connection_retry_on_startup": True,
        "broker_connection_max_retries": None,
        "task_acks_late": False,
        "task_publish_retry": False,
        # How a run ended stands in Dagster's storage; nothing of it is kept in Redis.
        "task_ignore_result": True,
        "worker_prefetch_multiplier": 1,
        "worker_max_tasks_per_child": _RUNS_PER_PROCESS,
        "worker_max_memory_per_child": _MEMORY_KIB_PER_PROCESS,
        "worker_proc_alive_timeout": 60.0,
        "worker_enable_remote_control": False,
        "worker_redirect_stdouts": False,
        # Only for tasks that are acknowledged late, of which there are none; unset it warns.
        "worker_cancel_long_running_tasks_on_connection_loss": True,
    }


def _prefix(settings: Settings) -> str:
    return f"{KEY_PREFIX}:{deployment_id(settings.home, settings.zlh_deployment)}:"


def _ssl(url: str) -> dict[str, Any] | None:
    """The TLS options of a URL; certificates are always verified."""
    if not url.startswith("rediss://"):
        return None
    given = {name: value for name, value in _parts(url).items() if name.startswith("ssl_")}
    return {"ssl_cert_reqs": "required", "ssl_check_hostname": True, **given}


def _parts(url: str) -> dict[str, Any]:
    return dict(parse_url(url))  # type: ignore[no-untyped-call]
