"""The job `digest`: what the last day was like, every morning."""

import time
from datetime import datetime, timezone

import dagster as dg

from zlh_dagster.core.launch import DIGEST_RUN_FAILED
from zlh_dagster.resources.digest import compose
from zlh_dagster.resources.services import Services

DIGEST = "digest"
MAX_RUNTIME_SECONDS = 120


@dg.op(description="Sends the digest to the info channel, unless another deployment leads.")
def send_digest(context: dg.OpExecutionContext, services: dg.ResourceParam[Services]) -> None:
    """One message for one day; a standby leaves it to the leader."""
    leader = services.leadership.take()
    if leader is not None:
        context.log.info(f"standby, the leader is {leader.name}: it sends the digest")
        return
    message = compose(services, end=datetime.now(timezone.utc))
    context.log.info(message.text())
    services.discord.send(message)
    services.incidents.absent([DIGEST_RUN_FAILED], now=time.time())


@dg.job(
    name=DIGEST,
    tags={"dagster/max_runtime": str(MAX_RUNTIME_SECONDS)},
    description="Tells on Discord what the last day was like.",
)
def digest() -> None:
    """The daily digest."""
    send_digest()


digest_every_morning = dg.ScheduleDefinition(
    name="digest_every_morning",
    job=digest,
    cron_schedule="0 9 * * *",
    execution_timezone="UTC",
    default_status=dg.DefaultScheduleStatus.RUNNING,
    description="The digest at 09:00 UTC.",
)
