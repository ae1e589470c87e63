"""From drift of the edge to decision: what is repaired, what is told, what is left alone."""

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd

from zlh_dagster.core.changes import fixable, why_left_alone
from zlh_dagster.core.holds import NOTHING_HELD, Holds
from zlh_dagster.core.model import (
    DNS_SURFACES,
    OPERATION_ACTIONS,
    Action,
    DriftKind,
    Surface,
    rows_of,
)
from zlh_dagster.core.names import srv_host
from zlh_dagster.core.repair import Decisions, Finding, Refusal, RepairRequest
from zlh_dagster.core.rules import RULES, Kind

NAMED_IN_A_MESSAGE = 10
"""How many names a finding lists before it only counts."""

PAYLOADS = "persisted_payloads"
CONTAINERS, AGENTS, OPERATIONS = "containers", "agents", "operations"
SOURCE_OF = {
    Surface.CLOUDFLARE: "cloudflare_records",
    Surface.TECHNITIUM: "technitium_records",
    Surface.VELOCITY: "velocity_backends",
}
"""The observed asset of each surface."""

SOURCES = (PAYLOADS, *SOURCE_OF.values(), CONTAINERS, AGENTS, OPERATIONS)
"""Every source that a tick reads."""

_NOT_YET = "it may belong to a server whose row cannot be used just now: mend that row first"
_DRIFTS = {Kind.DNS_DRIFT: DNS_SURFACES, Kind.BACKEND_MISSING: (Surface.VELOCITY,)}
"""What drift that can be put back is called, by surface."""

_KINDS = {
    DriftKind.DUPLICATE: Kind.DUPLICATE,
    DriftKind.CONFLICT: Kind.CONFLICT,
    DriftKind.WRONG: Kind.BACKEND_ELSEWHERE,
}


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
    holds: Holds = NOTHING_HELD,
) -> Decisions:
    """Applies the policy to the edge at one tick.

    Args:
        drift: Frame with ``DRIFT_COLUMNS`` without orphans.
        orphans: The orphans, in the same columns.
        invalid: Servers whose rows could not be used: ``vmid, reason``.
        desired: What was compared, for the size of the fleet on each surface.
        config: Limits.
        holds: Pauses, breakers, and what the operator has approved.

    Returns:
        At most one repair for each server, and the findings that are told instead.
    """
    free = drift["guard"].isna()
    can = np.array(
        [
            fixable(Surface(surface), DriftKind(kind))
            for surface, kind in zip(drift["surface"], drift["kind"], strict=True)
        ],
        dtype=bool,
    )
    mendable, other = drift[free & can], drift[free & ~can]
    findings = [
        *_escalations(other),
        *_orphan_reports(orphans, sure=invalid.empty),
        *_invalid_reports(invalid),
    ]
    for kind, surfaces in _DRIFTS.items():
        if RULES[kind].asks_for() is None:
            of_kind = mendable["surface"].isin([surface.value for surface in surfaces])
            findings += [_drift_report(kind, found) for found in _repairs(mendable[of_kind])]
            mendable = mendable[~of_kind]
    for surface in DNS_SURFACES:
        mass = _mass_drift(surface, mendable, desired, config)
        if mass is not None and mass.incident not in holds.approved:
            findings.append(mass)
            mendable = mendable[mendable["surface"] != surface.value]
    closed = {s: why for s in Surface if (why := holds.surface(s)) is not None}
    on_closed = mendable["surface"].isin([surface.value for surface in closed])
    on_hold = [
        (request, closed[surface])
        for surface in closed
        for request in _repairs(mendable[mendable["surface"] == surface.value])
    ]
    asked_for = mendable[~on_closed]
    repairs, of_servers = kept_back(_repairs(asked_for), holds)
    return Decisions(
        repairs=tuple(repairs),
        findings=tuple(findings),
        kept_back=(*on_hold, *of_servers),
        held=len(drift) - int(free.sum()),
        lasting=tuple(_lasting(drift[can], asked_for)),
    )


def _lasting(mendable: pd.DataFrame, asked_for: pd.DataFrame) -> Iterable[RepairRequest]:
    """Repairs of the servers some of whose drift is not asked for; without reasons, for speed."""
    held = mendable.loc[~mendable.index.isin(asked_for.index), "vmid"].unique().tolist()
    of_server: dict[int, tuple[Surface, ...]] = dict.fromkeys(map(int, held), ())
    rows = mendable[mendable["vmid"].isin(held)]
    for surface in Surface:
        for vmid in rows.loc[rows["surface"] == surface.value, "vmid"].unique().tolist():
            of_server[int(vmid)] += (surface,)
    actions = {surfaces: action_for(surfaces) for surfaces in set(of_server.values())}
    for vmid, surfaces in of_server.items():
        yield RepairRequest(vmid, actions[surfaces], surfaces)


def sources_of(request: RepairRequest) -> tuple[str, ...]:
    """Sources that must be seen before what was told of a request can be over."""
    if request.action in OPERATION_ACTIONS:
        return (OPERATIONS,)
    if request.action is Action.STOP_SUSPENDED_WORKLOAD:
        return (CONTAINERS, OPERATIONS, PAYLOADS)
    return (*(SOURCE_OF[surface] for surface in request.covers), PAYLOADS)


def kept_back(
    requests: Iterable[RepairRequest], holds: Holds
) -> tuple[list[RepairRequest], list[tuple[RepairRequest, Refusal]]]:
    """Splits requests into those to ask for and those that a pause or breaker keeps back."""
    free, kept = [], []
    for request in requests:
        refusal = holds.server(request.vmid)
        if refusal is None:
            free.append(request)
        else:
            kept.append((request, refusal))
    return free, kept


def _repairs(mendable: pd.DataFrame) -> list[RepairRequest]:
    of_server: dict[int, list[dict[str, Any]]] = {}
    for row in rows_of(mendable[["vmid", "surface", "type", "kind"]]):
        of_server.setdefault(int(row["vmid"]), []).append(row)
    requests = []
    for vmid, rows in sorted(of_server.items()):
        surfaces = tuple(sorted({Surface(r["surface"]) for r in rows}, key=lambda s: s.value))
        what = ", ".join(f"{r['surface']} {r['type']} {r['kind']}" for r in rows)
        requests.append(RepairRequest(vmid, action_for(surfaces), surfaces, reason=what))
    return requests


def action_for(surfaces: Iterable[Surface]) -> Action:
    """The narrowest action that covers the surfaces that drift."""
    drifting = set(surfaces)
    for kind, of_kind in _DRIFTS.items():
        action = RULES[kind].action
        if action is not None and drifting <= set(of_kind):
            return action
    return Action.EDGE_REPUBLISH


def _drift_report(kind: Kind, found: RepairRequest) -> Finding:
    """What the policy says is told and not repaired."""
    rule = RULES[kind]
    return Finding(
        incident=f"{kind.value}:{found.vmid}",
        severity=rule.message,
        title=f"Server {found.vmid}: {kind.value.replace('_', ' ')}",
        text=f"{found.reason}. Nothing is repaired: the policy only tells.",
        action=rule.action,
        vmid=found.vmid,
        sources=sources_of(found),
    )


def _escalations(rows: pd.DataFrame) -> Iterable[Finding]:
    for row in rows_of(rows):
        surface, kind = Surface(row["surface"]), DriftKind(row["kind"])
        rule = RULES[_KINDS[kind]]
        vmid = int(row["vmid"])
        yield Finding(
            incident=f"{rule.kind.value}:{surface.value}:{vmid}:{row['type']}",
            severity=rule.message,
            title=f"Server {vmid}: {surface.value} {kind.value}",
            text=why_left_alone(surface, kind, row["name"], row["type"])
            + f". Wanted {row['wanted']}, found {_or_nothing(row['found'])}.",
            action=rule.action,
            vmid=vmid,
            surface=surface,
            sources=(SOURCE_OF[surface], PAYLOADS),
        )


def _orphan_reports(orphans: pd.DataFrame, *, sure: bool) -> Iterable[Finding]:
    """What no server asks for; of that nobody is sure while the row of one cannot be used."""
    todo = "remove it by hand if nobody needs it" if sure else _NOT_YET
    keys = orphans[["surface", "type", "name", "vmid"]].drop_duplicates()
    for surface, kind, name, vmid in sorted(keys.itertuples(index=False, name=None)):
        host = f"of {srv_host(name)}" if kind == "SRV" else name
        what, why = "has no server", ""
        if not pd.isna(vmid):
            what = "is left over"
            why = f"Server {vmid} has that name and does not ask for it: was it another game? "
        yield Finding(
            incident=f"{Kind.ORPHAN.value}:{surface}:{kind} {name}",
            severity=RULES[Kind.ORPHAN].message,
            title=f"{surface}: {kind} {host} {what}",
            text=f"{why}{kind} {name} is reported only, nothing is deleted here: {todo}.",
            surface=Surface(surface),
            sources=(SOURCE_OF[Surface(surface)], PAYLOADS),
        )


def _invalid_reports(invalid: pd.DataFrame) -> Iterable[Finding]:
    for row in rows_of(invalid):
        vmid = None if pd.isna(row["vmid"]) else int(row["vmid"])
        yield Finding(
            incident=f"{Kind.INVALID.value}:{row['reason'] if vmid is None else vmid}",
            severity=RULES[Kind.INVALID].message,
            title=f"Server {'?' if vmid is None else vmid}: its row cannot be used",
            text=f"{row['reason']}. It is not watched until the platform's row is mended.",
            vmid=vmid,
            sources=(PAYLOADS,),
        )


def _mass_drift(
    surface: Surface, mendable: pd.DataFrame, desired: pd.DataFrame, config: PolicyConfig
) -> Finding | None:
    servers = sorted(mendable.loc[mendable["surface"] == surface.value, "vmid"].unique())
    drifting = len(servers)
    on_surface = (desired["surface"] == surface.value) & desired["guard"].isna()
    fleet = desired.loc[on_surface, "vmid"].nunique()
    if drifting <= config.mass_drift_min or drifting <= config.mass_drift_fraction * fleet:
        return None
    rule = RULES[Kind.MASS_DRIFT]
    incident = f"{rule.kind.value}:{surface.value}"
    return Finding(
        incident=incident,
        severity=rule.message,
        title=f"{surface.value}: {drifting} of {fleet} servers drift, nothing was repaired",
        text=(
            f"Servers {_listed([str(vmid) for vmid in servers])}. That is"
            f" {100 * drifting / fleet:.0f} %, above the limits of"
            f" {100 * config.mass_drift_fraction:.0f} % and {config.mass_drift_min} servers"
            " (ZLH_MASS_DRIFT_FRACTION, ZLH_MASS_DRIFT_MIN). Look whether the zone itself is"
            f" right. If it is, let the loop put everything back once: zlh approve {incident}"
        ),
        action=rule.action,
        surface=surface,
        sources=(SOURCE_OF[surface], PAYLOADS),
    )


def _listed(names: list[str]) -> str:
    shown = ", ".join(names[:NAMED_IN_A_MESSAGE])
    more = len(names) - NAMED_IN_A_MESSAGE
    return f"{shown} and {more} more" if more > 0 else shown


def _or_nothing(value: object) -> str:
    return "nothing" if value is None or pd.isna(value) else str(value)  # type: ignore[call-overload]
