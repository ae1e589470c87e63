"""The gate before every repair: pauses, breakers and approvals, kept in Redis.

State that cannot be read is no permission: every method raises ``RedisUnavailable`` when Redis does
not answer, and whoever repairs stops then.
"""

import time
from collections.abc import Iterable, Mapping
from typing import Any

import redis

from zlh_dagster.core.breaker import (
    CLOSED,
    SERVER_OPEN_SECONDS,
    Breaker,
    State,
    is_server_breaker,
    server_breaker,
    surface_breaker,
)
from zlh_dagster.core.holds import Holds, Pause, clock
from zlh_dagster.core.model import Surface
from zlh_dagster.resources.pauses import Pauses, end_of
from zlh_dagster.resources.table import RedisTable

BREAKERS, APPROVALS, RESETS, LIMITS = (
    "zlh:breakers",
    "zlh:approvals",
    "zlh:budget_resets",
    "zlh:rate_limits",
)
APPROVAL_SECONDS = 900
"""For how long an approval waits for a tick that shows its incident."""

LIMIT_SECONDS = 300.0
"""Wait where a provider limits and does not say for how long: Cloudflare blocks for 5 minutes."""

LONGEST_OPEN_SECONDS = 3600.0


class Gate:
    """Pauses, breakers and approvals of one deployment.

    Args:
        client: Redis.
        pauses: The operator's pauses.
        failures_to_open: Failures in a row that open a surface's breaker.
        open_seconds: How long it stays open before one repair is tried.
    """

    def __init__(
        self,
        client: "redis.Redis",
        *,
        pauses: Pauses,
        failures_to_open: int,
        open_seconds: float,
    ) -> None:
        self._breakers = RedisTable(client, BREAKERS, "breakers")
        self._pauses = pauses
        self._approvals = RedisTable(client, APPROVALS, "approvals")
        self._resets = RedisTable(client, RESETS, "breakers")
        self._limits = RedisTable(client, LIMITS, "rate limits")
        self._failures_to_open = failures_to_open
        self._open_seconds = open_seconds

    def holds(self) -> Holds:
        """Everything that keeps repairs back, now."""
        now = time.time()
        return Holds(
            now=now,
            pauses=self.pauses(),
            breakers=self.breakers(),
            approved=frozenset(
                name
                for name, value in self._approvals.all().items()
                if 0 <= now - _moment(value, "at") <= APPROVAL_SECONDS
            ),
        )

    def breakers(self) -> dict[str, Breaker]:
        """All breakers that have seen a failure of late; one that cannot be read is closed."""
        read = {}
        for name, value in self._breakers.all().items():
            try:
                read[name] = Breaker.from_json(value)
            except (TypeError, ValueError, OverflowError):
                read[name] = CLOSED
        now = time.time()
        # Once the time of a server's breaker is over, its budget alone decides.
        ended = [
            n
            for n, b in read.items()
            if b.quiet(now) or (is_server_breaker(n) and b.state(now) is not State.OPEN)
        ]
        self._breakers.remove(*ended)
        return {name: breaker for name, breaker in read.items() if name not in ended}

    def failed(
        self, surface: Surface, reason: str, *, at_once: bool = False, seconds: float | None = None
    ) -> Breaker:
        """Counts a failure of a surface and returns its breaker.

        Args:
            surface: Where it failed.
            reason: What went wrong.
            at_once: Open whatever the count.
            seconds: Stay open for at least this long.
        """
        name, now = surface_breaker(surface.value), time.time()
        length = max(self._open_seconds, min(seconds or 0.0, LONGEST_OPEN_SECONDS))
        after = (
            self.breakers()
            .get(name, CLOSED)
            .failed(
                now=now,
                reason=reason,
                threshold=self._failures_to_open,
                seconds=length,
                at_once=at_once,
            )
        )
        self._breakers.put(name, after.to_json())
        return after

    def limit(self, surface: Surface, reason: str, *, seconds: float | None) -> None:
        """Opens a surface's breaker because its provider limits calls, for reads too.

        Args:
            surface: Which.
            reason: What the provider said.
            seconds: How long it asked to wait, where it did.
        """
        wait = min(max(seconds or LIMIT_SECONDS, 1.0), LONGEST_OPEN_SECONDS)
        self.failed(surface, reason, at_once=True, seconds=wait)
        self._limits.put(surface.value, {"until": time.time() + wait, "reason": reason})

    def limited(self, surface: Surface) -> str | None:
        """Why a surface may not even be read now, or ``None``."""
        value = self._limits.get(surface.value)
        if value is None:
            return None
        until = _moment(value, "until")
        if not 0 < until - time.time() <= LONGEST_OPEN_SECONDS:
            self._limits.remove(surface.value)
            return None
        return f"{value.get('reason')}; not asked again before {clock(until)}"

    def succeeded(self, surfaces: Iterable[Surface]) -> None:
        """Resets the breakers of surfaces on which a repair was proved."""
        self._breakers.remove(*(surface_breaker(surface.value) for surface in set(surfaces)))

    def open_server(self, vmid: int, reason: str) -> Breaker:
        """Opens a server's breaker for an hour, unless it is open."""
        name, now = server_breaker(vmid), time.time()
        known = self.breakers().get(name, CLOSED)
        if known.state(now) is State.OPEN:
            return known
        breaker = Breaker(opened_at=now, until=now + SERVER_OPEN_SECONDS, reason=reason)
        self._breakers.put(name, breaker.to_json())
        return breaker

    def reset(self, name: str) -> bool:
        """Closes a breaker; a server's repairs until now no longer count against its budget."""
        was_there = bool(self._breakers.remove(name) + self._limits.remove(name))
        if is_server_breaker(name):
            self._resets.put(name, {"at": time.time()})
        return was_there

    def counted_since(self, vmids: Iterable[int]) -> dict[int, float]:
        """When the operator last reset each server's breaker, where that was."""
        resets = self._resets.all()
        return {
            vmid: _moment(resets[server_breaker(vmid)], "at")
            for vmid in vmids
            if server_breaker(vmid) in resets
        }

    def pauses(self) -> dict[str, Pause]:
        """All pauses that are on."""
        now = time.time()
        return {scope: pause for scope, pause in self._pauses.all().items() if pause.on(now)}

    def known_pauses(self) -> dict[str, Pause]:
        """All pauses that are on, and those that the next tick brings back from the database.

        Raises:
            DatabaseError: If the database cannot be read.
        """
        known = self.pauses()
        for scope, kept in self.kept_pauses().items():
            # As they are given back: of two of one scope the one that lasts longer holds.
            known[scope] = max(known.get(scope, kept), kept, key=end_of)
        return known

    def kept_pauses(self) -> dict[str, Pause]:
        """The pauses that are on according to the database, for when Redis does not answer.

        Raises:
            DatabaseError: If the database cannot be read.
        """
        now = time.time()
        return {pause.scope: pause for pause in self._pauses.kept() if pause.on(now)}

    def pause(self, pause: Pause) -> None:
        """Begins a pause, or replaces the one of that scope.

        Raises:
            DatabaseError: If the database could not keep it; it holds all the same.
        """
        self._pauses.begin(pause)

    def keep(self, pause: Pause) -> None:
        """Begins a pause while Redis does not answer: it holds from the moment it does.

        Raises:
            DatabaseError: If the database could not keep it.
        """
        self._pauses.keep(pause)

    def resume(self, scope: str) -> bool:
        """Ends a pause; returns whether there was one.

        Raises:
            DatabaseError: If the database could not forget it; it goes on then.
        """
        was_on = scope in self.pauses()
        now = time.time()
        return any([was_on, *(kept.on(now) for kept in self._pauses.end(scope))])

    def forget(self, scope: str) -> bool:
        """Ends what the database keeps of a pause; returns whether it kept one.

        Raises:
            DatabaseError: If the database could not forget it.
        """
        return self._pauses.forget(scope)

    def recall(self) -> list[str]:
        """Gives a Redis that lost its data the pauses back; returns what it paused again.

        Raises:
            DatabaseError: If the database cannot be read.
        """
        return self._pauses.restore()

    def approve(self, incident: str) -> None:
        """Lets one batch through, at the next tick that shows the incident."""
        self._approvals.put(incident, {"at": time.time()})

    def spend(self, incidents: Iterable[str]) -> None:
        """Uses up approvals."""
        self._approvals.remove(*incidents)


def _moment(value: Mapping[str, Any], name: str) -> float:
    """Seconds since the epoch; long ago where that cannot be read, which permits nothing."""
    try:
        return float(value.get(name) or 0.0)
    except (TypeError, ValueError, OverflowError):
        return 0.0
