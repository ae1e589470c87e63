"""Tells Discord what a run did, and brings the messages of incidents that are over up to date."""

import logging
import time

from zlh_dagster.core.messages import Sent, batch_message, over_text
from zlh_dagster.core.result import BatchResult
from zlh_dagster.core.rules import Severity
from zlh_dagster.resources.redis import RedisUnavailable
from zlh_dagster.resources.services import Services

_EDITS = 5
"""Messages edited after one run; what is over stands in the new message, too."""

_log = logging.getLogger(__name__)


def tell(services: Services, result: BatchResult, *, run_id: str, requested_by: str) -> bool:
    """Sends at most one message for a run; returns whether there was anything to tell.

    Discord or Redis failing costs a message its edit, never the run.
    """
    now = time.time()
    channels = [severity for severity in Severity if services.discord.takes(severity)]
    # Before long reasons are cut: half of a secret is not recognised.
    clean = BatchResult.from_json(services.redactor.json(result.to_json()))
    message = batch_message(
        clean, run_id=run_id, requested_by=requested_by, now=now, channels=channels
    )
    message_id = services.discord.post(message) if message is not None else None
    try:
        if message is not None and message_id:
            names = result.opened
            if names:
                services.messages.keep(message_id, Sent(message, dict.fromkeys(names, "")))
        if message is not None and message_id is None and message.severity in channels:
            # What is over stays open until that is told: the next tick finds it over again.
            names = (*result.opened, *(incident.name for incident in result.due))
            services.incidents.untold(names, now=now)
            return True
        services.incidents.told(result.opened, message_id)
        services.incidents.reminded(result.due, now=now)
        _edit(services, result, now=now)
        services.incidents.close([incident.name for incident in result.over])
    except RedisUnavailable as error:
        _log.warning("%s", error)
    return message is not None


def _edit(services: Services, result: BatchResult, *, now: float) -> None:
    """Marks what is over in the messages that told it."""
    ids = dict.fromkeys(message_id for i in result.over for message_id in i.messages)
    for message_id in list(ids)[:_EDITS]:
        sent = services.messages.get(message_id)
        if sent is None:
            continue
        marks = {i.name: over_text(i, now) for i in result.over if message_id in i.messages}
        sent = sent.with_over(marks)
        services.discord.edit(message_id, sent.current())
        if sent.all_over:
            services.messages.forget(message_id)
        else:
            services.messages.keep(message_id, sent)
