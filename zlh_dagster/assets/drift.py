"""The asset `drift`: what the drift sensor found at each tick."""

from typing import Any

import dagster as dg

from zlh_dagster.assets.metadata import first_rows
from zlh_dagster.assets.specs import OWNERS
from zlh_dagster.core.judge import Judgement, Tick
from zlh_dagster.core.policy import PAYLOADS, SOURCES
from zlh_dagster.resources.observe import DESIRED_EDGE

DRIFT = "drift"
IN_STEP = "in_step"
_COLUMNS = ("surface", "kind", "vmid", "type", "name", "wanted", "found", "guard")

drift = dg.AssetSpec(
    DRIFT,
    deps=[DESIRED_EDGE, *(source for source in SOURCES if source != PAYLOADS)],
    group_name="drift",
    kinds={"pandas"},
    owners=OWNERS,
    description=(
        "Differences between the desired and the observed edge.\n\nReported by `drift_sensor` for"
        " every complete tick, with the same numbers each time, so that they plot."
    ),
)


def drift_metadata(tick: Tick, judgement: Judgement) -> dict[str, Any]:
    """Metadata of one tick's drift: counts by kind, decisions, first rows."""
    return {
        "tick": tick.desired.tick,
        "compared": judgement.compared,
        "drifting": len(judgement.drift),
        **judgement.counts(),
        "repairs": len(judgement.decisions.repairs),
        "findings": len(judgement.decisions.findings),
        "held": judgement.decisions.held,
        "kept_back": len(judgement.decisions.kept_back),
        "unobserved": len(tick.unobserved),
        "first_rows": first_rows(judgement.drift, _COLUMNS),
    }
