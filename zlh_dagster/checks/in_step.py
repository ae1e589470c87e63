"""The check of the asset that no run materializes: drift."""

import dagster as dg

from zlh_dagster.assets.drift import DRIFT, IN_STEP


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
