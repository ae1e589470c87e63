"""Messages that told incidents and can still be edited. Kept in Redis."""

import redis

from zlh_dagster.core.messages import Sent
from zlh_dagster.resources.table import RedisTable

KEY = "zlh:messages"
KEPT = 500
"""Messages kept; beyond that the oldest are not brought up to date any more."""


class Messages:
    """Sent messages by Discord's identifier; raises ``RedisUnavailable`` as the table does."""

    def __init__(self, client: "redis.Redis") -> None:
        self._table = RedisTable(client, KEY, "sent messages")

    def keep(self, message_id: str, sent: Sent) -> None:
        """Keeps a message, and forgets the oldest beyond the limit."""
        self._table.put(message_id, sent.to_json())
        # Discord's identifiers grow with time.
        known = sorted((name for name in self._table.all() if name.isdigit()), key=int)
        self._table.remove(*known[:-KEPT])

    def get(self, message_id: str) -> Sent | None:
        """A message, or ``None`` when it is not known or cannot be read."""
        value = self._table.get(message_id)
        return None if value is None else Sent.from_json(value)

    def forget(self, message_id: str) -> None:
        """Forgets a message of which everything is over."""
        self._table.remove(message_id)
