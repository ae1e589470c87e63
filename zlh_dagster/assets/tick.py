"""One tick: every source is read in one step, side by side, and kept as a snapshot.

A step for each asset would read one source after the other, hand snapshots on through files, and
write a dozen more events every minute.
"""

import json
import threading
import time
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
from zlh_dagster.core.pulse import GOOD_SECONDS
from zlh_dagster.core.snapshot import Outcome, Snapshot
from zlh_dagster.resources.database import DatabaseError
from zlh_dagster.resources.observe import DESIRED_EDGE, observe_all
from zlh_dagster.resources.pulse import TIMEOUT, call_heartbeat
from zlh_dagster.resources.redis import RedisUnavailable
from zlh_dagster.resources.services import Services


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
    _recall_pauses(context, services)
    beating = threading.Thread(target=_beat, args=(services,), name="heartbeat", daemon=True)
    beating.start()
    for snapshot in observe_all(services, context.run.run_id).snapshots:
        if snapshot.outcome is Outcome.UNOBSERVED:
            context.log.warning(f"{snapshot.source} is unobserved: {snapshot.reason}")
        path = services.snapshots.write(snapshot)
        yield dg.MaterializeResult(
            asset_key=snapshot.source,
            metadata={
                **snapshot_metadata(snapshot, columns=columns_of(snapshot.source)),
                "path": dg.MetadataValue.path(path),
            },
            check_results=[_check(snapshot)],
        )
    beating.join(TIMEOUT)


def _beat(services: Services) -> None:
    """Calls the dead man's switch while the last good tick is recent: this one is judged later."""
    url = services.settings.zlh_heartbeat_url
    if url is None:
        return
    try:
        last = services.pulse.last()
    except RedisUnavailable:
        return
    if last is not None and time.time() - last < GOOD_SECONDS:
        call_heartbeat(url.get_secret_value())


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


def _recall_pauses(context: dg.AssetExecutionContext, services: Services) -> None:
    """Shows the pauses again after Redis lost its data, before a repair has to ask for them."""
    try:
        recalled = services.gate.recall()
    except (RedisUnavailable, DatabaseError) as error:
        context.log.warning(str(error))
        return
    if recalled:
        context.log.warning(f"Redis had lost pauses; paused again: {', '.join(recalled)}")
