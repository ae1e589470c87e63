"""The edge publisher: the one place that writes to the edge.

Each server's ledger row is opened before its first write, each write is preceded by a check of the
lease, and a fresh listing proves what was done before the row is closed.
"""

import logging
import time
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field

import pandas as pd

from zlh_dagster.core import changes as core_changes
from zlh_dagster.core.breaker import State
from zlh_dagster.core.changes import Change, Plan
from zlh_dagster.core.holds import PAUSED
from zlh_dagster.core.model import Surface, records_frame
from zlh_dagster.core.repair import RepairOutcome, RepairRequest, Status
from zlh_dagster.resources.batch import Recorder
from zlh_dagster.resources.database import DatabaseError
from zlh_dagster.resources.edge import WRITE_SECONDS, EdgeSurface
from zlh_dagster.resources.gate import Gate
from zlh_dagster.resources.http import AlreadyThere, EdgeError, RateLimited, Unauthorized
from zlh_dagster.resources.lease import Lease, LeaseLost
from zlh_dagster.resources.ledger import Entry, Fenced, Ledger
from zlh_dagster.resources.redis import RedisUnavailable

VERIFY_PAUSES = (0.0, 0.5, 1.5)
"""Seconds before each look after a write: a provider may show its own change a moment later."""

_NOT_SHOWN = "the write was accepted, but a fresh read does not show it"
_log = logging.getLogger(__name__)


NOT_TRIED = "not_tried"


class Stopped(Exception):
    """Nothing more is written in this run; the message says why."""

    def __init__(self, message: str, code: str = NOT_TRIED) -> None:
        super().__init__(message)
        self.code = code


@dataclass(frozen=True, slots=True)
class Sight:
    """Fresh listings, and why a surface could not be listed."""

    observed: Mapping[Surface, pd.DataFrame]
    unread: Mapping[Surface, str]

    def rows(self) -> pd.DataFrame:
        """All listings as one frame."""
        frames = [frame for frame in self.observed.values() if len(frame)]
        return pd.concat(frames, ignore_index=True) if frames else records_frame([])


@dataclass(slots=True)
class OpenRepair:
    """A repair between its ledger row and its proof."""

    request: RepairRequest
    plan: Plan
    event_id: str
    blind: tuple[str, ...]
    """Why surfaces that it covers could not be read."""

    errors: list[str] = field(default_factory=list)


class EdgePublisher:
    """Writes to the edge under one lease.

    Args:
        surfaces: The surfaces that are on.
        ledger: The repair ledger.
        lease: The held lease.
        gate: Pauses and breakers.
    """

    def __init__(
        self,
        *,
        surfaces: Mapping[Surface, EdgeSurface],
        ledger: Ledger,
        lease: Lease,
        gate: Gate,
    ) -> None:
        self._surfaces = surfaces
        self._ledger = ledger
        self._lease = lease
        self._gate = gate
        self._closed: dict[Surface, str] = {}
        self._stop: str | None = None
        self.writes = 0

    def has(self, surfaces: Iterable[Surface]) -> bool:
        """Whether at least one of the surfaces is on."""
        return any(surface in self._surfaces for surface in surfaces)

    @property
    def stopped(self) -> str | None:
        """Why nothing more is written in this run, or ``None``."""
        return self._stop

    def look(self, surfaces: Iterable[Surface]) -> Sight:
        """Lists the given surfaces afresh; those that are off are left out."""
        observed: dict[Surface, pd.DataFrame] = {}
        unread: dict[Surface, str] = {}
        for surface in sorted(set(surfaces) & set(self._surfaces), key=lambda s: s.value):
            try:
                observed[surface] = self._surfaces[surface].list_records()
            except EdgeError as error:
                unread[surface] = str(error) or type(error).__name__
                self._count_failure(surface, error)
            except Exception as error:  # noqa: BLE001 - open rows must come to their proof
                _log.exception("%s could not be read", surface.value)
                unread[surface] = f"{surface.value} could not be read: {type(error).__name__}"
        return Sight(observed, unread)

    def write(
        self, request: RepairRequest, plan: Plan, entry: Entry, blind: tuple[str, ...]
    ) -> OpenRepair:
        """Opens the ledger row and makes the writes of one server.

        Raises:
            Stopped: If the lease, the ledger or a newer controller forbids to write anything; no
                row was opened then.
        """
        self._require_lease()
        self._require_no_hold(request, plan)
        try:
            event_id = self._ledger.open(entry)
        except (DatabaseError, Fenced) as error:
            self._stop = str(error)
            raise Stopped(self._stop) from error
        repair = OpenRepair(request, plan, event_id, blind)
        for change in plan.changes:
            if change.surface in self._closed:
                repair.errors.append(self._closed[change.surface])
                continue
            try:
                self._require_lease()
            except Stopped as error:
                repair.errors.append(str(error))
                break
            self._apply(change, repair)
        return repair

    def prove(self, repairs: list[OpenRepair], recorder: Recorder) -> list[RepairOutcome]:
        """Looks until every change shows or patience ends, and closes the ledger rows."""
        outcomes: list[RepairOutcome] = []
        pending, sight = list(repairs), Sight({}, {})
        for pause in VERIFY_PAUSES:
            if not pending:
                break
            time.sleep(pause)
            sight = self.look({s for repair in pending for s in repair.plan.surfaces})
            rows = sight.rows()
            unproved = core_changes.unproved((c for r in pending for c in r.plan.changes), rows)
            still = []
            for repair in pending:
                if any(change.wanted.key in unproved for change in repair.plan.changes):
                    still.append(repair)
                else:
                    outcomes.append(self._close(repair, rows, repair.blind, recorder))
            pending = still
        for repair in pending:
            problems = (*repair.blind, *repair.errors, *sight.unread.values())
            if not problems:
                for surface in repair.plan.surfaces:
                    self._count_failure(surface, _NOT_SHOWN)
            outcomes.append(self._close(repair, sight.rows(), problems or (_NOT_SHOWN,), recorder))
        return outcomes

    def _require_no_hold(self, request: RepairRequest, plan: Plan) -> None:
        """The kill switch works in the middle of a batch, too."""
        try:
            holds = self._gate.holds()
        except RedisUnavailable as error:
            raise Stopped(str(error)) from error
        refusal = holds.server(request.vmid)
        if refusal is not None:
            raise Stopped(refusal.message, refusal.code)
        paused = []
        for surface in plan.surfaces:
            held = holds.surface(surface)
            if held is not None:
                self._closed.setdefault(surface, held.message)
                paused += [held] if held.code == PAUSED else []
        closed = [self._closed[s] for s in plan.surfaces if s in self._closed]
        if len(closed) == len(plan.surfaces):
            # Nothing would be written, so nothing may count against the server.
            raise Stopped("; ".join(closed), paused[0].code if paused else NOT_TRIED)

    def _require_lease(self) -> None:
        if self._stop is None:
            try:
                self._lease.require(WRITE_SECONDS)
            except LeaseLost as error:
                self._stop = str(error)
        if self._stop is not None:
            raise Stopped(self._stop)

    def _apply(self, change: Change, repair: OpenRepair) -> None:
        self.writes += 1
        try:
            self._surfaces[change.surface].apply(change)
        except AlreadyThere:
            _log.info("%s: it is there already", change.describe())
        except EdgeError as error:
            # The write may have worked although its answer was lost: the next look decides.
            _log.warning("%s: %s", change.describe(), error)
            repair.errors.append(str(error))
            opened = self._count_failure(change.surface, error)
            if opened or isinstance(error, RateLimited | Unauthorized):
                # Every further call there would fail as well, and make a limit last longer.
                self._closed[change.surface] = str(error)
        except Exception as error:  # noqa: BLE001 - rows are open: they must come to their proof
            _log.exception("%s", change.describe())
            repair.errors.append(f"{change.describe()}: {type(error).__name__}")

    def _count_failure(self, surface: Surface, why: EdgeError | str) -> bool:
        """Counts a failure of a surface; returns whether its breaker is open now."""
        try:
            if isinstance(why, RateLimited):
                self._gate.limit(surface, str(why), seconds=why.retry_after)
                return True
            breaker = self._gate.failed(surface, str(why))
        except RedisUnavailable as error:
            _log.warning("%s", error)
            return False
        return breaker.state(time.time()) is State.OPEN

    def _close(
        self,
        repair: OpenRepair,
        rows: pd.DataFrame,
        problems: tuple[str, ...],
        recorder: Recorder,
    ) -> RepairOutcome:
        status = Status.FAILED if problems else Status.SUCCEEDED
        reason = "; ".join(dict.fromkeys(problems or repair.plan.left_alone))
        error = {"code": "repair_failed", "message": reason} if problems else None
        after = core_changes.read_back(repair.plan.changes, rows)
        unclosed = recorder.close(repair.event_id, status, after=after, error=error)
        if unclosed is not None:
            status, reason = Status.FAILED, unclosed
        changes = tuple(change.describe() for change in repair.plan.changes)
        if status is Status.FAILED:
            return recorder.failed(
                repair.request, reason, changes=changes, event_id=repair.event_id
            )
        try:
            self._gate.succeeded(repair.plan.surfaces)
        except RedisUnavailable as lost:
            _log.warning("%s", lost)
        return RepairOutcome(
            request=repair.request,
            status=status,
            reason=reason,
            changes=changes,
            event_id=repair.event_id,
        )
