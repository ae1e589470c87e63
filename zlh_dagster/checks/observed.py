"""Checks that warn: a surface that was not seen, rows that cannot be used, drift."""

import json

import dagster as dg

from zlh_dagster.assets.drift import DRIFT, IN_STEP
from zlh_dagster.core.judge import INVALID
from zlh_dagster.core.policy import SOURCES
from zlh_dagster.core.snapshot import Outcome, Snapshot
from zlh_dagster.resources.observe import DESIRED_EDGE


def observed_check(source: str) -> dg.AssetChecksDefinition:
    """A check that a source was seen at this tick, or is off on purpose.

    Args:
        source: Name of the asset.
    """

    @dg.asset_check(
        asset=source,
        name="observed",
        description="The source was read whole at this tick, or is switched off.",
    )
    def observed(snapshot: Snapshot) -> dg.AssetCheckResult:
        return dg.AssetCheckResult(
            passed=snapshot.outcome is not Outcome.UNOBSERVED,
            severity=dg.AssetCheckSeverity.WARN,
            metadata={"outcome": snapshot.outcome.value, "reason": snapshot.reason or "-"},
        )

    return observed


@dg.asset_check(
    asset=DESIRED_EDGE,
    description="Every game server's row could be used.",
)
def rows_usable(snapshot: Snapshot) -> dg.AssetCheckResult:
    """Warns with the servers whose rows cannot be used."""
    invalid = json.loads(snapshot.extra.get(INVALID, "[]"))
    return dg.AssetCheckResult(
        passed=not invalid,
        severity=dg.AssetCheckSeverity.WARN,
        metadata={
            "invalid": len(invalid),
            "servers": "; ".join(f"{row['vmid']}: {row['reason']}" for row in invalid[:10]) or "-",
        },
    )


OBSERVED_CHECKS = [observed_check(s) for s in SOURCES]


@dg.asset_check(
    asset=DRIFT,
    name=IN_STEP,
    description="The edge is as the payloads ask. Evaluated by `drift_sensor` at every tick.",
)
def drift_in_step(context: dg.AssetCheckExecutionContext) -> dg.AssetCheckResult:
    """Repeats the verdict of the newest tick, when run by hand."""
    event = context.instance.get_latest_materialization_event(dg.AssetKey(DRIFT))
    materialization = event.asset_materialization if event else None
    drifting = materialization.metadata["drifting"].value if materialization else None
    return dg.AssetCheckResult(
        passed=drifting == 0,
        severity=dg.AssetCheckSeverity.WARN,
        metadata={"drifting": drifting if isinstance(drifting, int) else -1},
    )
