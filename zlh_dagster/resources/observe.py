"""Taking one snapshot: a failure becomes an outcome, never an empty list."""

import time
from collections.abc import Callable
from datetime import datetime, timezone

import pandas as pd

from zlh_dagster.core.desired import desired_edge
from zlh_dagster.core.judge import INVALID
from zlh_dagster.core.model import Surface, records_frame
from zlh_dagster.core.snapshot import Outcome, Snapshot
from zlh_dagster.resources.database import PAYLOAD_COLUMNS, DatabaseError
from zlh_dagster.resources.edge import EdgeSurface
from zlh_dagster.resources.http import EdgeError
from zlh_dagster.resources.services import Services

PERSISTED_PAYLOADS = "persisted_payloads"
DESIRED_EDGE = "desired_edge"
SOURCE_OF = {
    Surface.CLOUDFLARE: "cloudflare_records",
    Surface.TECHNITIUM: "technitium_records",
    Surface.VELOCITY: "velocity_backends",
}
"""The observed asset of each surface."""


def observe_payloads(services: Services, tick: str) -> Snapshot:
    """The platform's rows, or why they could not be read."""
    return _timed(
        PERSISTED_PAYLOADS,
        tick,
        services.read_payloads,
        pd.DataFrame(columns=list(PAYLOAD_COLUMNS)),
    )


def derive_desired(services: Services, payloads: Snapshot) -> Snapshot:
    """The records that should exist according to a snapshot of the platform's rows."""
    started = time.monotonic()
    desired = desired_edge(payloads.rows, services.settings.edge)
    return Snapshot(
        source=DESIRED_EDGE,
        tick=payloads.tick,
        taken_at=payloads.taken_at,
        outcome=payloads.outcome,
        reason=payloads.reason,
        rows=desired.records,
        seconds=time.monotonic() - started,
        extra={INVALID: desired.invalid.to_json(orient="records")},
    )


def observe_surface(services: Services, surface: Surface, tick: str) -> Snapshot:
    """One complete listing of a surface, or why there is none."""
    source = SOURCE_OF[surface]
    client = services.surfaces.get(surface)
    if client is None:
        reason = f"{surface.value} is not configured"
        return Snapshot(source, tick, _now(), Outcome.OFF, records_frame([]), reason)
    return _timed(source, tick, client.list_records, records_frame([]), client)


def _timed(
    source: str,
    tick: str,
    read: Callable[[], pd.DataFrame],
    nothing: pd.DataFrame,
    client: EdgeSurface | None = None,
) -> Snapshot:
    taken_at, started = _now(), time.monotonic()
    before = client.requests if client else 0
    reason, rows = "", nothing
    try:
        rows = read()
    except (EdgeError, DatabaseError) as error:
        reason = str(error) or type(error).__name__
    return Snapshot(
        source=source,
        tick=tick,
        taken_at=taken_at,
        outcome=Outcome.UNOBSERVED if reason else Outcome.OBSERVED,
        rows=rows,
        reason=reason,
        requests=(client.requests - before) if client else 1,
        seconds=time.monotonic() - started,
    )


def _now() -> datetime:
    return datetime.now(timezone.utc)
