"""What a revert would write: the records that a repair overwrote, put back as values."""

from collections.abc import Mapping
from typing import Any

import pandas as pd

from zlh_dagster.core.changes import Change, Plan
from zlh_dagster.core.model import DriftKind, Record, rows_of
from zlh_dagster.core.repair import Refusal, Status

_WROTE = (Status.SUCCEEDED.value, Status.FAILED.value, Status.INTERRUPTED.value)
_EDGE = ("dns_republish", "edge_republish", "revert")


def event_refusal(event: Mapping[str, Any] | None, event_id: str) -> Refusal | None:
    """Why a ledger row cannot be reverted, or ``None``."""
    if event is None:
        return Refusal("no_such_event", f"the ledger has no row {event_id}; zlh events lists them")
    if event["action"] not in _EDGE:
        return Refusal("not_revertible", f"{event['action']} overwrites no record")
    if event["status"] not in _WROTE:
        return Refusal("not_revertible", f"row {event_id} is {event['status']}: it wrote nothing")
    return None


def plan_revert(event: Mapping[str, Any], *, desired: pd.DataFrame, observed: pd.DataFrame) -> Plan:
    """What to put back, and what is left alone and why.

    Only a record that still is what the repair made of it, and whose name the server's payload
    still asks for, is written to. What the repair created is not deleted.

    Args:
        event: The ledger row.
        desired: The desired records of its server, from rows read just now.
        observed: Fresh complete listings.
    """
    own = {record.key: record for record in map(Record.from_row, rows_of(desired))}
    made = {_key(entry): entry["records"] for entry in event["after"] or []}
    changes, left_alone = [], []
    for entry in event["before"] or []:
        key, what = _key(entry), f"{entry['surface']} {entry['type']} {entry['name']}"
        there = _records(observed, key)
        if not entry["records"]:
            left_alone.append(f"{what}: the repair created it; nothing is deleted")
        elif key not in own:
            left_alone.append(f"{what}: the server's payload does not ask for that name any more")
        elif len(there) != 1:
            left_alone.append(f"{what}: {len(there)} records are there where one is expected")
        else:
            old, now = Record.from_row(entry["records"][0]), there[0]
            # A repair that was cut off never read what it made: it wrote what the payload asks for.
            written = [Record.from_row(record) for record in made.get(key, [])] or [own[key]]
            if _same(now, old):
                continue
            if old.disabled:
                left_alone.append(f"{what}: it was disabled before; disable it by hand")
            elif not _same(now, written[0]):
                left_alone.append(f"{what}: somebody has changed it since to {now.content}")
            else:
                changes.append(Change(DriftKind.WRONG, old, now))
    return Plan(tuple(changes), tuple(left_alone))


def _key(entry: Mapping[str, Any]) -> tuple[str, str, str]:
    return (entry["surface"], entry["name"], entry["type"])


def _records(observed: pd.DataFrame, key: tuple[str, str, str]) -> list[Record]:
    surface, name, type_ = key
    rows = observed[
        (observed["surface"] == surface) & (observed["name"] == name) & (observed["type"] == type_)
    ]
    return [Record.from_row(row) for row in rows_of(rows)]


def _same(one: Record, other: Record) -> bool:
    return (one.content, one.ttl, one.proxied, one.disabled) == (
        other.content,
        other.ttl,
        other.proxied,
        other.disabled,
    )
