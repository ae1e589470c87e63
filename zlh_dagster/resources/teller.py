"""Tells Discord what runs did, and brings the messages of incidents that are over up to date."""

import logging
import time
from collections.abc import Collection
from dataclasses import replace

from zlh_dagster.core.incidents import Incident
from zlh_dagster.core.messages import Message, Sent, batch_message, over_text, reminder
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
    if message is None:
        return False
    if not _post(services, message, opened=result.opened, due=result.due, now=now):
        # What is over stays open until that is told: the next tick finds it over again.
        return True
    try:
        _edit(services, result, now=now)
        services.incidents.close([incident.name for incident in result.over])
    except RedisUnavailable as error:
        _log.warning("%s", error)
    return True


def tell_failing(services: Services, name: str, message: Message) -> None:
    """Tells what may fail every minute: as an incident, once and when a reminder is due.

    While Redis does not answer nothing is known of what was told, and it is told each time.

    Args:
        services: Of this deployment.
        name: Of the incident.
        message: What failed, its first line why.
    """
    now = time.time()
    message = replace(message, lines=tuple(services.redactor.text(line) for line in message.lines))
    # Untold until the message is sent: a process that dies before is made up for.
    new = Incident(
        name, message.severity, message.title, message.lines[0], opened_at=now, untold_at=now
    )
    try:
        known = services.incidents.found(new)
    except RedisUnavailable:
        services.discord.send(message)
        return
    if known is None:
        _post(services, message, opened=(name,), now=now)
    elif known.reminder_due(now):
        _post(services, reminder(message, known, now), due=(known,), now=now)


def _post(
    services: Services,
    message: Message,
    *,
    opened: Collection[str] = (),
    due: Collection[Incident] = (),
    now: float,
) -> bool:
    """Sends a message and keeps what it told; returns whether that is done, if only in the log."""
    message_id = services.discord.post(message)
    try:
        if message_id is None and services.discord.takes(message.severity):
            services.incidents.untold((*opened, *(incident.name for incident in due)), now=now)
            return False
        if message_id and opened:
            services.messages.keep(message_id, Sent(message, dict.fromkeys(opened, "")))
        services.incidents.told(opened, message_id)
        services.incidents.reminded(due, now=now)
    except RedisUnavailable as error:
        _log.warning("%s", error)
        return False
    return True


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
