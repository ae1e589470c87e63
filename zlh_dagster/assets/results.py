"""What every asset of a tick yields: its snapshot, its numbers, and its check.

Checks are evaluated in the step that reads the source. A step of its own for each would read the
file again and write four more events, every minute.
"""

import json
from collections.abc import Iterator
from typing import Any

import dagster as dg

from zlh_dagster.assets.metadata import snapshot_metadata
from zlh_dagster.core.judge import INVALID
from zlh_dagster.core.snapshot import Outcome, Snapshot

OBSERVED, ROWS_USABLE = "observed", "rows_usable"


def observed_check(source: str) -> dg.AssetCheckSpec:
    """The check that a source was seen at this tick, or is off on purpose.

    Args:
        source: Name of the asset.
    """
    return dg.AssetCheckSpec(
        OBSERVED,
        asset=source,
        description="The source was read whole at this tick, or is switched off.",
    )


def rows_check(asset: str) -> dg.AssetCheckSpec:
    """The check that every game server's row could be used.

    Args:
        asset: Name of the asset that has the desired records.
    """
    return dg.AssetCheckSpec(
        ROWS_USABLE, asset=asset, description="Every game server's row could be used."
    )


def observed(
    context: dg.AssetExecutionContext, snapshot: Snapshot, columns: tuple[str, ...]
) -> Iterator[Any]:
    """Yields the snapshot of a source, and warns when the source was not seen."""
    if snapshot.outcome is Outcome.UNOBSERVED:
        context.log.warning(f"unobserved: {snapshot.reason}")
    yield from _output(context, snapshot, columns)
    yield dg.AssetCheckResult(
        check_name=OBSERVED,
        passed=snapshot.outcome is not Outcome.UNOBSERVED,
        severity=dg.AssetCheckSeverity.WARN,
        metadata={"outcome": snapshot.outcome.value, "reason": snapshot.reason or "-"},
    )


def derived(
    context: dg.AssetExecutionContext, snapshot: Snapshot, columns: tuple[str, ...]
) -> Iterator[Any]:
    """Yields the desired records, and warns with the servers whose rows cannot be used."""
    yield from _output(context, snapshot, columns)
    invalid = json.loads(snapshot.extra.get(INVALID, "[]"))
    yield dg.AssetCheckResult(
        check_name=ROWS_USABLE,
        passed=not invalid,
        severity=dg.AssetCheckSeverity.WARN,
        metadata={
            "invalid": len(invalid),
            "servers": "; ".join(f"{row['vmid']}: {row['reason']}" for row in invalid[:10]) or "-",
        },
    )


def _output(
    context: dg.AssetExecutionContext, snapshot: Snapshot, columns: tuple[str, ...]
) -> Iterator[dg.Output[Snapshot]]:
    # Metadata of an output would be kept twice, with the output and with the materialization.
    context.add_asset_metadata(snapshot_metadata(snapshot, columns=columns))
    yield dg.Output(snapshot)
