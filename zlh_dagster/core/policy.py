"""From drift to decision: what is repaired, what is told, what is left alone."""

from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np
import pandas as pd

from zlh_dagster.core.changes import fixable, why_left_alone
from zlh_dagster.core.model import DNS_SURFACES, Action, DriftKind, Surface, rows_of
from zlh_dagster.core.repair import Decisions, Finding, RepairRequest, Severity

NAMED_IN_A_MESSAGE = 10
"""How many names a finding lists before it only counts."""


@dataclass(frozen=True, slots=True)
class PolicyConfig:
    """Limits above which a DNS surface is not repaired without the operator."""

    mass_drift_fraction: float = 0.2
    mass_drift_min: int = 5


def decide(
    drift: pd.DataFrame,
    *,
    orphans: pd.DataFrame,
    invalid: pd.DataFrame,
    desired: pd.DataFrame,
    config: PolicyConfig,
) -> Decisions:
    """Applies the policy to one tick.

    Args:
        drift: Frame with ``DRIFT_COLUMNS`` without orphans.
        orphans: The orphans, in the same columns.
        invalid: Servers whose rows could not be used: ``vmid, reason``.
        desired: What was compared, for the size of the fleet on each surface.
        config: Limits.

    Returns:
        At most one repair for each server, and the findings that are told instead.
    """
    free = drift[drift["guard"].isna()]
    can = np.array(
        [
            fixable(Surface(surface), DriftKind(kind))
            for surface, kind in zip(free["surface"], free["kind"], strict=True)
        ],
        dtype=bool,
    )
    mendable, other = free[can], free[~can]
    findings = [*_escalations(other), *_orphan_reports(orphans), *_invalid_reports(invalid)]
    for surface in DNS_SURFACES:
        mass = _mass_drift(surface, mendable, desired, config)
        if mass is not None:
            findings.append(mass)
            mendable = mendable[mendable["surface"] != surface.value]
    requests, reasons = _repairs(mendable)
    return Decisions(
        repairs=tuple(requests),
        findings=tuple(findings),
        held=len(drift) - len(free),
        reasons=reasons,
    )


def _repairs(mendable: pd.DataFrame) -> tuple[list[RepairRequest], dict[int, str]]:
    requests, reasons = [], {}
    for vmid, rows in mendable.groupby("vmid", sort=True):
        surfaces = tuple(sorted({Surface(s) for s in rows["surface"]}, key=lambda s: s.value))
        number = int(str(vmid))
        requests.append(RepairRequest(number, action_for(surfaces), surfaces))
        what = rows["surface"] + " " + rows["type"] + " " + rows["kind"]
        reasons[number] = ", ".join(what)
    return requests, reasons


def action_for(surfaces: Iterable[Surface]) -> Action:
    """The narrowest action that covers the surfaces that drift."""
    drifting = set(surfaces)
    if drifting <= set(DNS_SURFACES):
        return Action.DNS_REPUBLISH
    if drifting == {Surface.VELOCITY}:
        return Action.VELOCITY_REREGISTER
    return Action.EDGE_REPUBLISH


def _escalations(rows: pd.DataFrame) -> Iterable[Finding]:
    for row in rows_of(rows):
        surface, kind = Surface(row["surface"]), DriftKind(row["kind"])
        vmid = int(row["vmid"])
        repoint = surface is Surface.VELOCITY and kind is DriftKind.WRONG
        yield Finding(
            incident=f"{kind.value}:{surface.value}:{vmid}:{row['type']}",
            severity=Severity.WARNING,
            title=f"Server {vmid}: {surface.value} {kind.value}",
            text=why_left_alone(surface, kind, row["name"], row["type"])
            + f". Wanted {row['wanted']}, found {_or_nothing(row['found'])}.",
            action=Action.VELOCITY_REPOINT if repoint else Action.DNS_REPUBLISH,
            vmid=vmid,
            surface=surface,
        )


def _orphan_reports(orphans: pd.DataFrame) -> Iterable[Finding]:
    for surface, rows in orphans.groupby("surface", sort=True):
        names = (rows["type"] + " " + rows["name"]).tolist()
        yield Finding(
            incident=f"orphan:{surface}",
            severity=Severity.INFO,
            title=f"{surface}: {len(names)} without a server",
            text=f"{_listed(names)}. Reported only: this controller deletes nothing.",
            surface=Surface(str(surface)),
        )


def _invalid_reports(invalid: pd.DataFrame) -> Iterable[Finding]:
    for row in rows_of(invalid):
        yield Finding(
            incident=f"invalid:{row['vmid']}",
            severity=Severity.WARNING,
            title=f"Server {row['vmid']}: its row cannot be used",
            text=f"{row['reason']}. It is not watched until the platform's row is mended.",
            vmid=int(row["vmid"]),
        )


def _mass_drift(
    surface: Surface, mendable: pd.DataFrame, desired: pd.DataFrame, config: PolicyConfig
) -> Finding | None:
    drifting = mendable.loc[mendable["surface"] == surface.value, "vmid"].nunique()
    on_surface = (desired["surface"] == surface.value) & desired["guard"].isna()
    fleet = desired.loc[on_surface, "vmid"].nunique()
    if drifting <= config.mass_drift_min or drifting <= config.mass_drift_fraction * fleet:
        return None
    return Finding(
        incident=f"mass_drift:{surface.value}",
        severity=Severity.CRITICAL,
        title=f"{surface.value}: {drifting} of {fleet} servers drift, nothing was repaired",
        text=(
            f"That is {100 * drifting / fleet:.0f} %, above the limits of"
            f" {100 * config.mass_drift_fraction:.0f} % and {config.mass_drift_min} servers"
            " (ZLH_MASS_DRIFT_FRACTION, ZLH_MASS_DRIFT_MIN). Look whether the zone itself is"
            f" right. If it is, repair one server first: zlh repair"
            f" {Action.DNS_REPUBLISH.value} --vmid N --live"
        ),
        action=Action.DNS_REPUBLISH,
        surface=surface,
    )


def _listed(names: list[str]) -> str:
    shown = ", ".join(names[:NAMED_IN_A_MESSAGE])
    more = len(names) - NAMED_IN_A_MESSAGE
    return f"{shown} and {more} more" if more > 0 else shown


def _or_nothing(value: object) -> str:
    return "nothing" if value is None or pd.isna(value) else str(value)  # type: ignore[call-overload]
