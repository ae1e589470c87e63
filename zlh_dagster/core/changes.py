"""What to write for one server, as values: the plan of a repair and its proof."""

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

import pandas as pd

from zlh_dagster.core.compare import compare
from zlh_dagster.core.desired import desired_frame
from zlh_dagster.core.model import DriftKind, Record, Surface, rows_of

_FIXABLE_DNS = (DriftKind.MISSING, DriftKind.WRONG, DriftKind.DISABLED)


@dataclass(frozen=True, slots=True)
class Change:
    """One record to put back: what is wanted, and what stands there now (or ``None``)."""

    kind: DriftKind
    wanted: Record
    found: Record | None

    @property
    def surface(self) -> Surface:
        return self.wanted.surface

    def describe(self) -> str:
        """One line for people: ``cloudflare A mc-5000.example.gg (was missing)``."""
        return f"{self.surface.value} {self.wanted.type} {self.wanted.name} (was {self.kind.value})"


@dataclass(frozen=True, slots=True)
class Plan:
    """What a repair of one server would write, and what it leaves alone and why."""

    changes: tuple[Change, ...] = ()
    left_alone: tuple[str, ...] = ()

    @property
    def surfaces(self) -> tuple[Surface, ...]:
        return tuple(sorted({c.surface for c in self.changes}, key=lambda s: s.value))

    @property
    def surface(self) -> str | None:
        """Name of the only surface that it writes to, if it is one."""
        return self.surfaces[0].value if len(self.surfaces) == 1 else None


def fixable(surface: Surface, kind: DriftKind) -> bool:
    """Whether level 1 may mend this kind of drift on this surface."""
    if surface is Surface.VELOCITY:
        return kind is DriftKind.MISSING
    return kind in _FIXABLE_DNS


def why_left_alone(surface: Surface, kind: DriftKind, name: str, type_: str) -> str:
    """Why a drift is escalated and not mended, in words for the operator."""
    what = f"{surface.value} {type_} {name}"
    if kind is DriftKind.DUPLICATE:
        return f"{what}: more than one record where one is wanted; remove the wrong one by hand"
    if kind is DriftKind.CONFLICT:
        return f"{what}: a CNAME holds that name; remove it by hand"
    if surface is Surface.VELOCITY and kind is DriftKind.WRONG:
        return (
            f"{what}: registered with another address; velocity_repoint would move players"
            " (level 2)"
        )
    return f"{what}: {kind.value}, which level 1 does not mend"


def plan_changes(desired: pd.DataFrame, observed: pd.DataFrame) -> dict[int, Plan]:
    """Plans for all servers of a frame of desired records.

    Args:
        desired: Frame with ``DESIRED_COLUMNS``, only surfaces that were freshly read.
        observed: Fresh complete listings of those surfaces.

    Returns:
        A plan for each server that drifts, by VMID; servers without drift are absent.
    """
    drift = compare(desired, observed)
    wanted = {Record.from_row(row).key: row for row in rows_of(desired)}
    there = _served_first(observed, drift)
    plans: dict[int, Plan] = {}
    for row in rows_of(drift):
        vmid = int(row["vmid"])
        surface, kind = Surface(row["surface"]), DriftKind(row["kind"])
        plan = plans.get(vmid, Plan())
        if fixable(surface, kind):
            record = Record.from_row(wanted[(surface.value, row["name"], row["type"])])
            change = Change(kind, record, there.get(record.key))
            plans[vmid] = Plan((*plan.changes, change), plan.left_alone)
        else:
            why = why_left_alone(surface, kind, row["name"], row["type"])
            plans[vmid] = Plan(plan.changes, (*plan.left_alone, why))
    return plans


def unproved(changes: Iterable[Change], observed: pd.DataFrame) -> set[tuple[str, str, str]]:
    """Keys of the changes that a fresh listing does not show exactly once and as wanted."""
    rows = [{**change.wanted.to_json(), "vmid": 0} for change in changes]
    drift = compare(desired_frame(rows), observed)
    return set(zip(drift["surface"], drift["name"], drift["type"], strict=True))


def read_back(changes: tuple[Change, ...], observed: pd.DataFrame) -> list[dict[str, Any]]:
    """What now stands at each changed name, for the ledger: surface, name, type, records."""
    found: dict[tuple[str, str, str], list[dict[str, Any]]] = {}
    names = {change.wanted.name for change in changes}
    for row in rows_of(observed[observed["name"].isin(names)]):
        record = Record.from_row(row)
        found.setdefault(record.key, []).append(record.to_json())
    return [_entry(change, found.get(change.wanted.key, [])) for change in changes]


def before(changes: tuple[Change, ...]) -> list[dict[str, Any]]:
    """What stood at each name before the change, in the shape of :func:`read_back`."""
    return [_entry(c, [c.found.to_json()] if c.found is not None else []) for c in changes]


def wanted(changes: tuple[Change, ...]) -> list[dict[str, Any]]:
    """What should stand at each name, in the shape of :func:`read_back`."""
    return [_entry(c, [c.wanted.to_json()]) for c in changes]


def _entry(change: Change, records: list[dict[str, Any]]) -> dict[str, Any]:
    record = change.wanted
    return {
        "surface": record.surface.value,
        "name": record.name,
        "type": record.type,
        "records": records,
    }


def _served_first(
    observed: pd.DataFrame, drift: pd.DataFrame
) -> dict[tuple[str, str, str], Record]:
    rows = observed[observed["name"].isin(drift["name"])]
    records = [Record.from_row(row) for row in rows_of(rows)]
    records.sort(key=lambda record: not record.disabled)
    return {record.key: record for record in records}
