"""What every tick shows of a snapshot: the same numbers each time, and the first rows."""

from typing import Any

import dagster as dg
import pandas as pd

from zlh_dagster.core.model import rows_of
from zlh_dagster.core.snapshot import Snapshot

FIRST_ROWS = 5


def snapshot_metadata(snapshot: Snapshot, *, columns: tuple[str, ...]) -> dict[str, Any]:
    """Metadata of one snapshot.

    Args:
        snapshot: What was read.
        columns: The columns worth showing in the table.
    """
    return {
        "rows": len(snapshot.rows),
        "observed": int(snapshot.observed),
        "requests": snapshot.requests,
        "seconds": round(snapshot.seconds, 4),
        "outcome": snapshot.outcome.value,
        "reason": snapshot.reason or "-",
        "first_rows": first_rows(snapshot.rows, columns),
    }


def first_rows(frame: pd.DataFrame, columns: tuple[str, ...]) -> dg.TableMetadataValue:
    """The first rows of a frame as a table, every value as text."""
    rows = rows_of(frame[list(columns)].head(FIRST_ROWS))
    return dg.MetadataValue.table(
        records=[dg.TableRecord({name: _text(row[name]) for name in columns}) for row in rows],
        schema=dg.TableSchema([dg.TableColumn(name, "string") for name in columns]),
    )


def _text(value: Any) -> str:
    return "" if value is None or pd.isna(value) else str(value)
