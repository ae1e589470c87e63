"""BullMQ's keys, written as its workers leave them."""

import json
from datetime import datetime, timedelta
from typing import Any

from zlh_dagster.resources.dead_jobs import KEY
from zlh_dagster.resources.services import Services

PROVISIONING, OPERATION = "provisioning", "operation"


def make_queue(redis: Any, name: str) -> None:
    """A queue that has been used: it has its `meta` and its counter."""
    redis.hset(f"bull:{name}:meta", "opts.maxLenEvents", "10000")
    redis.set(f"bull:{name}:id", "7")


def put_job(redis: Any, queue: str, job_id: str, state: str) -> None:
    """A job in one state; ``gone`` takes it away, ``stalled`` is active without a lock."""
    make_queue(redis, queue)
    key = f"bull:{queue}"
    redis.delete(f"{key}:{job_id}", f"{key}:{job_id}:lock")
    for name in ("wait", "active", "paused"):
        redis.lrem(f"{key}:{name}", 0, job_id)
    for name in ("delayed", "completed", "failed", "prioritized"):
        redis.zrem(f"{key}:{name}", job_id)
    if state == "gone":
        return
    redis.hset(f"{key}:{job_id}", mapping={"name": "work", "data": "{}"})
    if state in ("active", "stalled"):
        redis.lpush(f"{key}:active", job_id)
        if state == "active":
            redis.set(f"{key}:{job_id}:lock", "token")
    elif state in ("wait", "paused"):
        redis.lpush(f"{key}:{state}", job_id)
    else:
        redis.zadd(f"{key}:{state}", {job_id: 1.0})


def a_minute_passes(services: Services) -> None:
    """Moves what was counted of dead jobs a minute into the past."""
    redis: Any = services.redis
    for name, text in redis.hgetall(KEY).items():
        value = json.loads(text)
        since = datetime.fromisoformat(value["since"]) - timedelta(seconds=61)
        redis.hset(KEY, name, json.dumps({**value, "since": since.isoformat()}))
