"""The dead man's switch: counts the calls it gets."""

import threading
from dataclasses import dataclass

from zlh_dagster.sandbox.clock import utc_text
from zlh_dagster.sandbox.exchange import Answer, Call


@dataclass(frozen=True, slots=True)
class Beats:
    """How many calls came, and when the last one did."""

    count: int = 0
    last_at: str | None = None


class HeartbeatSink:
    """Answers every call with OK."""

    def __init__(self, lock: threading.RLock) -> None:
        self._lock = lock
        self._beats = Beats()

    @property
    def beats(self) -> Beats:
        """The calls so far."""
        return self._beats

    def beat(self, call: Call) -> Answer:
        """Take a call."""
        with self._lock:
            self._beats = Beats(self._beats.count + 1, utc_text())
        return Answer(raw=b"OK", media_type="text/plain")

    def clear(self) -> None:
        """Count from nothing again."""
        with self._lock:
            self._beats = Beats()
