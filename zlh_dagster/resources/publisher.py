"""The edge publisher: looks, opens ledger rows, has the writer write, looks again, closes the rows.

Each server's ledger row is open before its first write, and a fresh listing proves what was done
before the row is closed.
"""

import logging
import time
from collections.abc import Iterable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

import pandas as pd

from zlh_dagster.core import changes as core_changes
from zlh_dagster.core.changes import Plan
from zlh_dagster.core.holds import PAUSED, Holds
from zlh_dagster.core.model import Surface, records_frame
from zlh_dagster.core.repair import Refusal, RepairOutcome, RepairRequest, Status
from zlh_dagster.resources.batch import Recorder
from zlh_dagster.resources.database import DatabaseError
from zlh_dagster.resources.edge import EdgeSurface
from zlh_dagster.resources.gate import Gate
from zlh_dagster.resources.http import EdgeError, RateLimited
from zlh_dagster.resources.lease import Lease
from zlh_dagster.resources.ledger import Closing, Entry, Fenced, Ledger
from zlh_dagster.resources.redis import RedisUnavailable
from zlh_dagster.resources.writer import NOT_TRIED, EdgeWriter, OpenRepair, Stopped

VERIFY_PAUSES = (0.0, 0.5, 1.5)
"""Seconds before each look after a write: a provider may show its own change a moment later."""

_NOT_SHOWN = "the write was accepted, but a fresh read does not show it"
_log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Sight:
    """Fresh listings, and why a surface could not be listed."""

    observed: Mapping[Surface, pd.DataFrame]
    unread: Mapping[Surface, str]

    def rows(self) -> pd.DataFrame:
        """All listings as one frame."""
        frames = [frame for frame in self.observed.values() if len(frame)]
        return pd.concat(frames, ignore_index=True) if frames else records_frame([])


@dataclass(frozen=True, slots=True)
class Ready:
    """A repair that only has to be written.

    Attributes:
        entry: Its ledger row.
        blind: Why surfaces that it covers could not be read.
    """

    request: RepairRequest
    plan: Plan
    entry: Entry
    blind: tuple[str, ...] = ()


class EdgePublisher:
    """Publishes records under one lease.

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
        self._gate = gate
        self._writer = EdgeWriter(surfaces, lease=lease, gate=gate)
        self._limited: dict[Surface, str] = {}
        self._unread: set[Surface] = set()
        self._opened: set[Surface] = set()

    def has(self, surfaces: Iterable[Surface]) -> bool:
        """Whether at least one of the surfaces is on."""
        return any(surface in self._surfaces for surface in surfaces)

    def tried(self, plan: Plan) -> bool:
        """Whether each surface of a plan has taken a write in this run already."""
        return set(plan.surfaces) <= self._writer.accepted

    @property
    def stopped(self) -> str | None:
        """Why nothing more is written in this run, or ``None``."""
        return self._writer.stop

    @property
    def writes(self) -> int:
        """Calls made to write."""
        return self._writer.writes

    def look(self, surfaces: Iterable[Surface]) -> Sight:
        """Lists the given surfaces afresh, all at once; those that are off are left out."""
        wanted = sorted(set(surfaces) & set(self._surfaces), key=lambda s: s.value)
        if not wanted:
            return Sight({}, {})
        with ThreadPoolExecutor(len(wanted), "edge-look") as pool:
            seen = dict(zip(wanted, pool.map(self._listing, wanted), strict=True))
        return Sight(
            observed={s: rows for s, rows in seen.items() if isinstance(rows, pd.DataFrame)},
            unread={s: why for s, why in seen.items() if isinstance(why, str)},
        )

    def write(
        self, group: Sequence[Ready]
    ) -> tuple[list[OpenRepair], list[tuple[RepairRequest, Stopped]]]:
        """Opens the ledger rows of some servers and makes their writes.

        Returns:
            What was opened, and what was stopped before a row of its was opened.
        """
        free: list[Ready] = []
        stopped: list[tuple[RepairRequest, Stopped]] = []
        try:
            self._writer.require_lease()
            holds = self._writer.holds()
            for ready in group:
                stop = self._held(holds, ready)
                if stop is None:
                    free.append(ready)
                else:
                    stopped.append((ready.request, stop))
            ids = self._ledger.open_all([ready.entry for ready in free]) if free else []
        except Stopped as stop:
            return [], [(ready.request, stop) for ready in group]
        except (DatabaseError, Fenced) as error:
            self._writer.stop = str(error)
            return [], [(ready.request, Stopped(str(error))) for ready in group]
        opened = [
            OpenRepair(ready.request, ready.plan, event_id, ready.blind)
            for ready, event_id in zip(free, ids, strict=True)
        ]
        try:
            self._writer.write(opened)
        except Exception as error:  # noqa: BLE001 - what is open must come to its proof
            _log.exception("not all of a group was written")
            for repair in opened:
                repair.errors.append(type(error).__name__)
        return opened, stopped

    def prove(self, repairs: Sequence[OpenRepair], recorder: Recorder) -> list[RepairOutcome]:
        """Looks until every change shows or patience ends, and closes the ledger rows."""
        pending = [repair for repair in repairs if repair.attempted]
        done = [_unsent(repair) for repair in repairs if not repair.attempted]
        sight, unproved = Sight({}, {}), set[tuple[str, str, str]]()
        rows = sight.rows()
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
                    done.append(_ended(repair, sight, rows, repair.blind))
            pending = still
        for repair in pending:
            held = (repair.held.message,) if repair.held is not None else ()
            problems = (*repair.blind, *repair.errors, *held, *sight.unread.values())
            if not problems:
                changes = repair.plan.changes
                for surface in {c.surface for c in changes if c.wanted.key in unproved}:
                    if self._writer.count_failure(surface, _NOT_SHOWN):
                        self._opened.add(surface)
            done.append(_ended(repair, sight, rows, problems or (_NOT_SHOWN,)))
        unclosed = recorder.close_all([end.closing for end in done])
        outcomes = [_outcome(end, unclosed.get(end.repair.event_id), recorder) for end in done]
        self._reset(outcomes, done)
        return outcomes

    def _listing(self, surface: Surface) -> pd.DataFrame | str:
        """All of a surface, or why it could not be read; one that limits is not asked again."""
        if surface in self._limited:
            return self._limited[surface]
        try:
            return self._surfaces[surface].list_records()
        except EdgeError as error:
            why = str(error) or type(error).__name__
            limits = isinstance(error, RateLimited)
            if limits:
                self._limited[surface] = why
            # One outage counts once in a run, however often it was looked for the end of it.
            if limits or surface not in self._unread:
                self._unread.add(surface)
                if self._writer.count_failure(surface, error):
                    self._opened.add(surface)
            return why
        except Exception as error:  # noqa: BLE001 - open rows must come to their proof
            _log.exception("%s could not be read", surface.value)
            return f"{surface.value} could not be read: {type(error).__name__}"

    def _held(self, holds: Holds, ready: Ready) -> Stopped | None:
        """Why a server gets no row: nothing would be written, so nothing may count against it."""
        refusal = holds.server(ready.request.vmid)
        if refusal is not None:
            return Stopped(refusal.message, refusal.code)
        closed, surfaces = self._writer.closed, ready.plan.surfaces
        held = {s: why for s in surfaces if (why := holds.surface(s)) is not None}
        for surface, why in held.items():
            closed.setdefault(surface, why.message)
        if not all(surface in closed for surface in surfaces):
            return None
        paused = [why.code for why in held.values() if why.code == PAUSED]
        return Stopped("; ".join(closed[s] for s in surfaces), paused[0] if paused else NOT_TRIED)

    def _reset(self, outcomes: list[RepairOutcome], done: "list[_End]") -> None:
        """A proved repair closes the breakers of its surfaces, but those that this run opened."""
        pairs = zip(outcomes, done, strict=True)
        proved = {
            s for o, end in pairs if o.status is Status.SUCCEEDED for s in end.repair.plan.surfaces
        }
        try:
            self._gate.succeeded(proved - set(self._writer.closed) - self._opened)
        except RedisUnavailable as lost:
            _log.warning("%s", lost)


@dataclass(frozen=True, slots=True)
class _End:
    """How a repair ends, once its row is closed."""

    repair: OpenRepair
    closing: Closing
    reason: str


def _ended(repair: OpenRepair, sight: Sight, rows: pd.DataFrame, problems: tuple[str, ...]) -> _End:
    status = Status.FAILED if problems else Status.SUCCEEDED
    reason = "; ".join(dict.fromkeys(problems or repair.plan.left_alone))
    error = {"code": "repair_failed", "message": reason} if problems else None
    # Of a surface that could not be read nothing is known: it is left out, not called empty.
    seen = tuple(c for c in repair.plan.changes if c.surface in sight.observed)
    after = core_changes.read_back(seen, rows)
    return _End(repair, Closing(repair.event_id, status, after, error), reason)


def _unsent(repair: OpenRepair) -> _End:
    """Nothing was sent after the row was opened: it counts against nobody."""
    why = repair.held or Refusal(NOT_TRIED, "; ".join(dict.fromkeys(repair.errors)))
    return _End(repair, Closing(repair.event_id, Status.REFUSED, error=why.to_json()), why.message)


def _outcome(end: _End, unclosed: str | None, recorder: Recorder) -> RepairOutcome:
    repair, status = end.repair, end.closing.status
    changes = tuple(change.describe() for change in repair.plan.changes)
    if unclosed is not None:
        return recorder.failed(repair.request, unclosed, changes=changes, event_id=repair.event_id)
    if status is Status.REFUSED and repair.held is not None:
        return recorder.refuse(repair.request, repair.held, event_id=repair.event_id)
    if status is Status.REFUSED:
        return recorder.failed(
            repair.request,
            f"not tried: {end.reason}",
            code=NOT_TRIED,
            changes=changes,
            event_id=repair.event_id,
        )
    if status is Status.FAILED:
        return recorder.failed(
            repair.request, end.reason, changes=changes, event_id=repair.event_id
        )
    return RepairOutcome(repair.request, status, end.reason, changes, repair.event_id)
