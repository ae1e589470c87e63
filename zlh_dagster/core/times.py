"""Times of the platform's rows: ISO 8601 text in UTC, so that every store keeps them whole."""

import re
from datetime import datetime, timezone

import pandas as pd

_STORED = re.compile(
    r"(\d{4}-\d\d-\d\d)(?:[ T](\d\d:\d\d(?::\d\d)?)(?:\.(\d{1,9}))?"
    r"(?:Z|([+-]\d\d)(?::?(\d\d))?)?)?",
    re.ASCII,
)


def iso(time: datetime | None) -> str | None:
    """A time as frames and files keep it: ISO 8601, UTC, always with microseconds.

    Raises:
        ValueError: If the time has no zone.
    """
    if time is None:
        return None
    if time.tzinfo is None:
        raise ValueError(f"{time!r} has no time zone")
    return time.astimezone(timezone.utc).isoformat(timespec="microseconds")


def instant(text: object) -> datetime | None:
    """The time that :func:`iso` spelled, from any kind of null ``None``.

    Raises:
        ValueError: If it is no such text.
    """
    if text is None or pd.isna(text):  # type: ignore[call-overload]
        return None
    time = datetime.fromisoformat(str(text))
    if time.tzinfo is None:
        raise ValueError(f"{text!r} has no time zone")
    return time


def stored(text: str) -> datetime:
    """The time that a database spells, in UTC where it names no zone.

    Any number of digits of a second, and zones such as ``+00``: PostgreSQL leaves zeros out, which
    Python before 3.11 does not read.

    Raises:
        ValueError: If it is no such text.
    """
    match = _STORED.fullmatch(text)
    if match is None:
        raise ValueError(f"{text!r} is not a time")
    day, clock, digits, hours, minutes = match.groups()
    zone = f"{hours or '+00'}:{minutes or '00'}"
    time = datetime.fromisoformat(f"{day}T{clock or '00:00'}{zone}")
    return time.replace(microsecond=int((digits or "").ljust(6, "0")[:6]))


def age_seconds(text: object, now: datetime) -> float | None:
    """Seconds since a time given as text, or ``None`` where there is none."""
    try:
        moment = instant(text)
    except ValueError:
        moment = None
    return None if moment is None else (now - moment).total_seconds()


def ages(column: "pd.Series[str]", now: datetime) -> "pd.Series[float]":
    """Seconds since each time of a column of texts; null where there is none."""
    moments = pd.to_datetime(column, utc=True, errors="coerce", format="ISO8601")
    seconds: pd.Series[float] = (pd.Timestamp(now) - moments).dt.total_seconds()
    return seconds


def words(seconds: float) -> str:
    """A duration for people: ``40 s``, ``12 min``, ``3 h 20 min``, ``2 days 3 h``."""
    minutes = round(seconds / 60)
    if seconds < 90:
        return f"{round(seconds)} s"
    if minutes < 60:
        return f"{minutes} min"
    hours, minutes = divmod(minutes, 60)
    if hours < 48:
        return f"{hours} h {minutes} min" if minutes else f"{hours} h"
    days, hours = divmod(hours, 24)
    return f"{days} days {hours} h" if hours else f"{days} days"
