"""Circuit breakers as values: closed, open, half-open.

A surface's breaker opens after several failures in a row. When its time is over it is half-open:
one repair is tried; success closes it, failure opens it again. A closing breaker releases nothing
that waited: only fresh ticks ask for repairs.
"""

from dataclasses import asdict, dataclass, replace
from enum import Enum
from typing import Any

_SERVER = "server:"

QUIET_SECONDS = 3600
"""After so long without a failure (and, once it was open, without a trial) counting begins anew."""

SERVER_OPEN_SECONDS = 3600
"""How long a server's breaker stays open: the length of the budget's window."""


class State(str, Enum):
    """What a breaker lets through: everything, nothing, or one trial."""

    CLOSED = "closed"
    OPEN = "open"
    HALF_OPEN = "half_open"


@dataclass(frozen=True, slots=True)
class Breaker:
    """A breaker; times are seconds since the epoch.

    Attributes:
        failures: Failures in a row.
        opened_at: When it opened, null while closed.
        until: When it becomes half-open.
        reason: The last failure.
        failed_at: When that was.
    """

    failures: int = 0
    opened_at: float | None = None
    until: float | None = None
    reason: str = ""
    failed_at: float | None = None

    def state(self, now: float) -> State:
        if self.opened_at is None or self.until is None:
            return State.CLOSED
        if now < self.until:
            return State.OPEN
        return State.HALF_OPEN if now < self.until + QUIET_SECONDS else State.CLOSED

    def quiet(self, now: float) -> bool:
        """Whether its last failure was so long ago that it says nothing any more."""
        last = max(self.failed_at or 0.0, self.until or 0.0)
        return now >= last + QUIET_SECONDS

    def failed(
        self, *, now: float, reason: str, threshold: int, seconds: float, at_once: bool = False
    ) -> "Breaker":
        """After one more failure.

        Args:
            now: The time.
            reason: What went wrong.
            threshold: Failures in a row that open it.
            seconds: How long it then stays open.
            at_once: Open whatever the count, as a rate limit does.
        """
        known = CLOSED if self.quiet(now) else self
        failures = known.failures + 1
        after = replace(known, failures=failures, reason=reason, failed_at=now)
        if at_once or failures >= threshold or self.state(now) is State.HALF_OPEN:
            return replace(after, opened_at=now, until=now + seconds)
        return after

    def to_json(self) -> dict[str, Any]:
        return asdict(self)

    @staticmethod
    def from_json(value: dict[str, Any]) -> "Breaker":
        """Reads a breaker.

        Raises:
            ValueError, TypeError: If it cannot be read.
        """
        opened_at, until, failed_at = (value.get(k) for k in ("opened_at", "until", "failed_at"))
        return Breaker(
            failures=int(value.get("failures", 0)),
            opened_at=None if opened_at is None else float(opened_at),
            until=None if until is None else float(until),
            reason=str(value.get("reason", "")),
            failed_at=None if failed_at is None else float(failed_at),
        )


CLOSED = Breaker()


def surface_breaker(surface: str) -> str:
    """Name of a surface's breaker."""
    return surface


def server_breaker(vmid: int) -> str:
    """Name of a server's breaker."""
    return f"{_SERVER}{vmid}"


def is_server_breaker(name: str) -> bool:
    """Whether a name is that of a server's breaker."""
    return name.startswith(_SERVER)


def reset_command(vmid: int | None = None) -> str:
    """What closes a server's breaker, or those of all servers."""
    return f"zlh breakers reset {'--servers' if vmid is None else server_breaker(vmid)}"
