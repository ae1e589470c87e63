"""The queue of the warm worker: where it is, and what is said about it."""

import pytest
import redis
from dagster_celery.make_app import make_app
from kombu import Connection

from zlh_dagster.runs.broker import (
    KEY_PREFIX,
    TASK_EXECUTE_RUN,
    broker_url,
    celery_config,
)


@pytest.mark.parametrize(
    ("url", "broker"),
    [
        ("unix:///run/zlh/redis.sock", "redis+socket:///run/zlh/redis.sock?virtual_host=0"),
        ("unix:///a%20b/r;x.sock?db=3", "redis+socket:///a%20b/r%3Bx.sock?virtual_host=3"),
        ("unix://:p%40ss@/r.sock", "redis+socket://:p%40ss@/r.sock?virtual_host=0"),
        ("redis://127.0.0.1", "redis://127.0.0.1:6379/0"),
        ("redis://localhost:6380/2", "redis://localhost:6380/2"),
        ("redis://localhost?db=4&socket_timeout=9", "redis://localhost:6379/4"),
        ("redis://me:p%2Fw%3B@h:1/0", "redis://me:p%2Fw%3B@h:1/0"),
        ("redis://[::1]:6380/1", "redis://[::1]:6380/1"),
        ("rediss://:s@h:6390/1?ssl_cert_reqs=none", "rediss://:s@h:6390/1"),
    ],
)
def test_a_redis_url_becomes_the_brokers(url, broker):
    assert broker_url(url) == broker


@pytest.mark.parametrize(
    ("url", "expected"),
    [
        ("unix://me:p%40s@/a%20b/r;x.sock?db=3", {"path": "/a b/r;x.sock", "db": 3}),
        ("redis://me:p%40s@h:1/2", {"host": "h", "port": 1, "db": 2}),
    ],
)
def test_kombu_reads_it_as_redis_py_does(monkeypatch, url, expected):
    monkeypatch.setattr(redis.Redis, "ping", lambda self: True)
    parameters = Connection(broker_url(url)).channel()._connparams()
    assert expected.items() <= parameters.items()
    assert (parameters["username"], parameters["password"]) == ("me", "p@s")


def test_certificates_are_verified_against_whom_the_url_says(platform):
    def ssl(url):
        return celery_config(platform.settings(ZLH_REDIS_URL=url))["broker_use_ssl"]

    assert ssl("redis://h") is None
    assert ssl("rediss://h") == {"ssl_cert_reqs": "required", "ssl_check_hostname": True}
    assert ssl("rediss://h?ssl_ca_certs=/ca.pem") == {
        "ssl_cert_reqs": "required",
        "ssl_check_hostname": True,
        "ssl_ca_certs": "/ca.pem",
    }


def test_what_celery_makes_of_it(platform):
    """Processes are renewed, nothing is taken ahead, and nothing that began comes back."""
    settings = platform.settings()
    given = {"broker": broker_url(settings.redis_url), "config_source": celery_config(settings)}
    conf = make_app(given).conf
    assert 50 <= conf.worker_max_tasks_per_child <= 1000
    assert 256 * 1024 <= conf.worker_max_memory_per_child <= 1024 * 1024
    assert conf.worker_prefetch_multiplier == 1
    assert (conf.task_acks_late, conf.task_ignore_result) == (False, True)
    assert (conf.worker_enable_remote_control, conf.worker_redirect_stdouts) == (False, False)
    assert conf.broker_transport_options["visibility_timeout"] <= 45


def test_each_deployment_has_keys_of_its_own(platform, tmp_path):
    prefixes = {
        celery_config(platform.settings(DAGSTER_HOME=str(tmp_path / name)))[
            "broker_transport_options"
        ]["global_keyprefix"]
        for name in ("a", "b", "a")
    }
    assert len(prefixes) == 2
    assert all(prefix.startswith(f"{KEY_PREFIX}:") for prefix in prefixes)


def test_every_key_is_below_the_deployments_own_prefix(platform):
    """What a message in the queue and one in a worker's hands leave in Redis."""
    settings = platform.settings()
    config = celery_config(settings)
    prefix = config["broker_transport_options"]["global_keyprefix"]
    app = make_app({"broker": broker_url(settings.redis_url), "config_source": config})
    queue = app.conf.task_queues[0]
    with app.connection_for_write() as connection:
        for run_id in ("x", "y"):
            task = app.signature(TASK_EXECUTE_RUN, kwargs={"run_id": run_id})
            task.apply_async(connection=connection, queue=queue.name)
        message = connection.SimpleQueue(queue).get(timeout=5)
        keys = platform.services().redis.keys()
        assert message.payload[1] == {"run_id": "x"}
        message.ack()
    assert any("unacked" in key for key in keys)
    assert {key for key in keys if not key.startswith(prefix)} == set()
