"""The one place that writes to the edge: each call under the lease, and several at the same time.

Before every single call the lease is confirmed and the operator's pauses are read. A surface that
limits, refuses the token or opens its breaker gets no further call in this run.
"""

import logging
import threading
import time
from collections.abc import Iterable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from typing import cast

from zlh_dagster.core.breaker import State
from zlh_dagster.core.changes import Change, Plan
from zlh_dagster.core.holds import Holds
from zlh_dagster.core.model import Surface
from zlh_dagster.core.repair import Refusal, RepairRequest
from zlh_dagster.resources.edge import WRITE_SECONDS, BatchSurface, EdgeSurface
from zlh_dagster.resources.gate import Gate
from zlh_dagster.resources.http import (
    AlreadyThere,
    EdgeError,
    RateLimited,
    Rejected,
    Unauthorized,
)
from zlh_dagster.resources.lease import Lease, LeaseLost
from zlh_dagster.resources.redis import RedisUnavailable

NOT_TRIED = "not_tried"
FEW = 3
"""Up to so many records of a surface are written one by one; more go into one call, if it can."""

PARTS = 10
"""A refused call is made again in so many parts, and a refused part of it record by record."""

_log = logging.getLogger(__name__)


class Stopped(Exception):
    """Nothing is written; the message says why, the code whether for one server or for all."""

    def __init__(self, message: str, code: str = NOT_TRIED) -> None:
        super().__init__(message)
        self.code = code


@dataclass(slots=True)
class OpenRepair:
    """A repair between its ledger row and its proof.

    Attributes:
        blind: Why surfaces that it covers could not be read.
        errors: What went wrong, in words.
        attempted: Changes that were sent.
        held: What kept it back after its row was opened.
    """

    request: RepairRequest
    plan: Plan
    event_id: str
    blind: tuple[str, ...]
    errors: list[str] = field(default_factory=list)
    attempted: int = 0
    held: Refusal | None = None


Call = list[tuple[OpenRepair, Change]]
"""The changes of one call, each with the repair that it belongs to."""


class EdgeWriter:
    """Writes to the edge under one lease.

    Args:
        surfaces: The surfaces that are on.
        lease: The held lease.
        gate: Pauses and breakers.
    """

    def __init__(
        self, surfaces: Mapping[Surface, EdgeSurface], *, lease: Lease, gate: Gate
    ) -> None:
        self._surfaces = surfaces
        self._lease = lease
        self._gate = gate
        self._lock = threading.Lock()
        self.closed: dict[Surface, str] = {}
        """Surfaces that get no further call in this run, and why."""
        self.accepted: set[Surface] = set()
        """Surfaces that have taken a write in this run."""
        self.stop: str | None = None
        """Why nothing more is written in this run."""
        self.writes = 0

    def require_lease(self) -> None:
        """Passes only while the lease holds for one more call.

        Raises:
            Stopped: If it does not; nothing more is written in this run.
        """
        if self.stop is None:
            try:
                self._lease.require(WRITE_SECONDS)
            except LeaseLost as error:
                self.stop = str(error)
        if self.stop is not None:
            raise Stopped(self.stop)

    def holds(self) -> Holds:
        """Pauses and breakers, now.

        Raises:
            Stopped: If they cannot be read.
        """
        try:
            return self._gate.holds()
        except RedisUnavailable as error:
            raise Stopped(str(error)) from error

    def write(self, repairs: Sequence[OpenRepair]) -> None:
        """Makes the changes of some repairs; what came of each stands in the repair."""
        per_surface = [
            self._calls(surface, [(r, c) for r in repairs for c in r.plan.changes])
            for surface in self._surfaces
        ]
        calls = [calls for calls in per_surface if calls]
        if len(calls) == 1 and len(calls[0]) == 1:
            self._call(calls[0][0])
            return
        pools = [
            ThreadPoolExecutor(self._at_once(_surface_of(one[0])), "edge-write") for one in calls
        ]
        under_way = [
            pool.submit(self._call, call)
            for pool, one in zip(pools, calls, strict=True)
            for call in one
        ]
        for pool in pools:
            pool.shutdown()
        for done in under_way:
            done.result()

    def count_failure(self, surface: Surface, why: EdgeError | str) -> bool:
        """Counts a failure of a surface; returns whether its breaker is open now."""
        try:
            if isinstance(why, RateLimited):
                self._gate.limit(surface, str(why), seconds=why.retry_after)
                return True
            with self._lock:
                breaker = self._gate.failed(surface, str(why))
        except RedisUnavailable as error:
            _log.warning("%s", error)
            return False
        return breaker.state(time.time()) is State.OPEN

    def _calls(self, surface: Surface, pairs: Iterable[tuple[OpenRepair, Change]]) -> list[Call]:
        mine = [pair for pair in pairs if pair[1].surface is surface]
        size = self._surfaces[surface].per_call if len(mine) > FEW else 1
        return [mine[start : start + size] for start in range(0, len(mine), size)]

    def _at_once(self, surface: Surface) -> int:
        """One after the other until the surface has taken a write: a limit is met by one call."""
        return self._surfaces[surface].at_once if surface in self.accepted else 1

    def _call(self, call: Call) -> None:
        """One call, whatever becomes of it: rows are open, so they must come to their proof."""
        try:
            self._guarded(call)
        except Exception as error:  # noqa: BLE001 - a bug in one write costs that write only
            _log.exception("%s", _described(call))
            for repair, change in call:
                repair.errors.append(f"{change.describe()}: {type(error).__name__}")

    def _guarded(self, call: Call) -> None:
        surface = _surface_of(call)
        try:
            if surface in self.closed:
                raise Stopped(self.closed[surface])
            self.require_lease()
            call = self._free(call, self.holds())
        except Stopped as stop:
            for repair, _ in call:
                repair.errors.append(str(stop))
            return
        if not call:
            return
        with self._lock:
            self.writes += 1
            for repair, _ in call:
                repair.attempted += 1
        try:
            self._send(surface, [change for _, change in call])
        except (AlreadyThere, Rejected) as error:
            if len(call) > 1:
                # All or nothing: one record that is refused must not hold up the others.
                self._in_parts(call)
                return
            self._failed(surface, call, error)
        except EdgeError as error:
            self._failed(surface, call, error)
        else:
            self.accepted.add(surface)

    def _free(self, call: Call, holds: Holds) -> Call:
        """What of a call no pause and no breaker keeps back; the kill switch works at once."""
        free = []
        for repair, change in call:
            refusal = holds.server(repair.request.vmid) or holds.surface(change.surface)
            if refusal is None:
                free.append((repair, change))
            else:
                repair.held = refusal
        return free

    def _in_parts(self, call: Call) -> None:
        """A part of the call at a time, so that one bad record does not cost a call for each."""
        size = max(len(call) // PARTS, 1)
        for start in range(0, len(call), size):
            part = call[start : start + size]
            with self._lock:
                for repair, _ in part:
                    repair.attempted -= 1
            self._call(part)

    def _send(self, surface: Surface, changes: list[Change]) -> None:
        client = self._surfaces[surface]
        if len(changes) > 1:
            cast(BatchSurface, client).apply_all(changes)
        else:
            client.apply(changes[0])

    def _failed(self, surface: Surface, call: Call, error: EdgeError) -> None:
        if isinstance(error, AlreadyThere):
            _log.info("%s: it is there already", _described(call))
            self.accepted.add(surface)
            return
        # The write may have worked although its answer was lost: the next look decides.
        _log.warning("%s: %s", _described(call), error)
        for repair, _ in call:
            repair.errors.append(str(error))
        if isinstance(error, Rejected):
            # The surface works and refuses this record; how often, the server's budget bounds.
            return
        opened = self.count_failure(surface, error)
        if opened or isinstance(error, RateLimited | Unauthorized):
            # Every further call there would fail as well, and make a limit last longer.
            self.closed[surface] = str(error)


def _surface_of(call: Call) -> Surface:
    return call[0][1].surface


def _described(call: Call) -> str:
    first = call[0][1].describe()
    return first if len(call) == 1 else f"{first} and {len(call) - 1} more"
