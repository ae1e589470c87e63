"""Gathers what the daily digest tells."""

import time
from datetime import datetime, timedelta

from zlh_dagster.core.digest import Day, digest_message
from zlh_dagster.core.messages import Message
from zlh_dagster.resources.services import Services

SPAN = timedelta(days=1)


def compose(services: Services, *, end: datetime) -> Message:
    """The digest of the day that ends now.

    Raises:
        RedisUnavailable: If Redis does not answer.
        DatabaseError: If the ledger cannot be read.
    """
    start = end - SPAN
    day = Day.of(services.figures.since(start, end), services.ledger.between(start, end))
    return digest_message(
        day,
        start=start,
        end=end,
        incidents=services.incidents.all_open().values(),
        breakers=services.gate.breakers(),
        pauses=services.gate.pauses().values(),
        now=time.time(),
    )
