"""One tick: every source is read in one step, side by side, and kept as a snapshot.

A step for each asset would read one source after the other, hand snapshots on through files, and
write a dozen more events every minute.
"""

import json
from collections.abc import Iterator

import dagster as dg

from zlh_dagster.assets.metadata import snapshot_metadata
from zlh_dagster.assets.specs import (
    OBSERVED,
    ROWS_USABLE,
    TICK_ASSETS,
    TICK_CHECKS,
    columns_of,
)
from zlh_dagster.core.judge import INVALID
from zlh_dagster.core.snapshot import Outcome, Snapshot
from zlh_dagster.resources.observe import DESIRED_EDGE
from zlh_dagster.resources.services import Services
from zlh_dagster.resources.ticks import take_tick


@dg.multi_asset(
    name="tick",
    specs=TICK_ASSETS,
    check_specs=TICK_CHECKS,
    description="Reads every source once and keeps what it saw; changes nothing.",
)
def tick(
    context: dg.AssetExecutionContext, services: dg.ResourceParam[Services]
) -> Iterator[dg.MaterializeResult[None]]:
    """All snapshots of a tick; its identifier is the run's."""
    for snapshot, path in take_tick(services, context.run.run_id, warn=context.log.warning):
        yield dg.MaterializeResult(
            asset_key=snapshot.source,
            metadata={
                **snapshot_metadata(snapshot, columns=columns_of(snapshot.source)),
                "path": dg.MetadataValue.path(path),
            },
            check_results=[_check(snapshot)],
        )


def _check(snapshot: Snapshot) -> dg.AssetCheckResult:
    if snapshot.source == DESIRED_EDGE:
        return _rows_usable(snapshot)
    return dg.AssetCheckResult(
        asset_key=snapshot.source,
        check_name=OBSERVED,
        passed=snapshot.outcome is not Outcome.UNOBSERVED,
        severity=dg.AssetCheckSeverity.WARN,
        metadata={"outcome": snapshot.outcome.value, "reason": snapshot.reason or "-"},
    )


def _rows_usable(desired: Snapshot) -> dg.AssetCheckResult:
    """Warns with the servers whose rows cannot be used."""
    invalid = json.loads(desired.extra.get(INVALID, "[]"))
    return dg.AssetCheckResult(
        asset_key=desired.source,
        check_name=ROWS_USABLE,
        passed=not invalid,
        severity=dg.AssetCheckSeverity.WARN,
        metadata={
            "invalid": len(invalid),
            "servers": "; ".join(f"{row['vmid']}: {row['reason']}" for row in invalid[:10]) or "-",
        },
    )
