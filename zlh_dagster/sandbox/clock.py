"""Time as the pretend providers print it."""

from datetime import datetime, timezone


def utc_text() -> str:
    """The present in UTC, to the microsecond, as Cloudflare and Discord write it."""
    return datetime.now(timezone.utc).isoformat().replace("+00:00", "Z")
