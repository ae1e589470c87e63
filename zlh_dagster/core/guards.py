"""Guards at the last moment: why a repair that was asked for is refused."""

from collections.abc import Collection, Iterable, Mapping
from typing import Any

import pandas as pd

from zlh_dagster.core.breaker import reset_command
from zlh_dagster.core.desired import (
    MAINTENANCE,
    ROW_UNUSABLE,
    guard_reason,
    is_locked,
    unreadable_reason,
)
from zlh_dagster.core.model import Action, rows_of
from zlh_dagster.core.names import canonical_address
from zlh_dagster.core.repair import BREAKER_OPEN, Refusal, RepairRequest

LEVEL_ON = 1
"""Highest repair level that is carried out without being switched on by name."""

GAME_VMIDS = range(5000, 6000)
"""VMIDs that are game servers even without a row: dev containers follow, then infrastructure."""

NAMED_BY_OPERATOR = 2
"""The level whose actions are carried out when the operator has named them."""


def level_refusal(action: Action, level2: Collection[str]) -> Refusal | None:
    """Why an action's level forbids it, or ``None``.

    Args:
        action: What is asked for.
        level2: Level-2 actions that the operator has switched on.
    """
    if not action.built:
        return Refusal("not_built", f"{action.value} is a name only: no code carries it out")
    if action.level <= LEVEL_ON:
        return None
    if action.level == NAMED_BY_OPERATOR and action.value in level2:
        return None
    return Refusal(
        "level_off",
        f"{action.value} is level {action.level}, which is off"
        f" (ZLH_LEVEL2_ACTIONS={action.value} switches it on)",
    )


def edge_refusals(
    requests: Iterable[RepairRequest],
    *,
    payloads: pd.DataFrame,
    desired: pd.DataFrame,
    invalid: pd.DataFrame,
) -> dict[int, Refusal]:
    """Why each refused server's edge is left alone, by VMID.

    Args:
        requests: What was asked for.
        payloads: The platform's rows, read just now.
        desired: Desired records of those rows.
        invalid: Servers whose rows could not be used: ``vmid, reason``.
    """
    unusable = dict(zip(invalid["vmid"], invalid["reason"], strict=True))
    guards = dict(zip(desired["vmid"], desired["guard"], strict=True))
    types = dict(zip(payloads["vmid"], payloads["ctype"], strict=True))
    why = {}
    for request in requests:
        vmid = request.vmid
        if vmid is None:
            continue
        if vmid in unusable:
            why[vmid] = Refusal(ROW_UNUSABLE, str(unusable[vmid]))
        elif types.get(vmid, "game") != "game":
            why[vmid] = Refusal("server_type", f"{vmid} is of type {types[vmid]}, not game")
        elif vmid not in guards:
            why[vmid] = Refusal("not_published", "no game server with that VMID is published")
        elif guards[vmid] is not None and not pd.isna(guards[vmid]):
            reason = str(guards[vmid])
            why[vmid] = Refusal(reason.split()[0].rstrip(":"), reason)
    return why


def changed_refusal(
    before: Mapping[str, Any] | None, now: Mapping[str, Any] | None
) -> Refusal | None:
    """Why a server is left alone whose row is not what it was a moment ago, or ``None``.

    Args:
        before: The platform's row when its records were compared.
        now: The row directly before the write.
    """
    if now == before:
        return None
    if now is None:
        return Refusal("not_published", "its row is gone")
    reason = guard_reason(now)
    if reason is not None:
        return Refusal(reason.split()[0].rstrip(":"), reason)
    return Refusal("changed_meanwhile", "its row changed just now; the next tick decides")


def operation_refusal(request: RepairRequest, payloads: pd.DataFrame) -> Refusal | None:
    """Why the rows of a server's operation are left alone.

    A server that is still being made has no row yet, or one that says so.
    """
    row = row_of(payloads, request.vmid)
    if row is None:
        if request.vmid is not None and request.vmid not in GAME_VMIDS:
            return Refusal("server_type", f"{request.vmid} is not the VMID of a game server")
        if request.vmid is not None and payloads["vmid"].isna().any():
            return Refusal(ROW_UNUSABLE, "a row whose vmid cannot be read may be that server's")
        return None
    unreadable = unreadable_reason(row)
    if unreadable is not None:
        return Refusal(ROW_UNUSABLE, unreadable)
    if row["ctype"] != "game":
        return Refusal("server_type", f"{request.vmid} is of type {row['ctype']}, not game")
    allowed: tuple[str, ...] = ("provisioning",)
    if request.action is Action.CLEAR_STALE_OPERATION_LOCK:
        allowed = ("active", "provisioning")
    if row["lifecycle"] not in allowed:
        return Refusal("lifecycle", f"lifecycle is {row['lifecycle']}, not {' or '.join(allowed)}")
    if row["billingStatus"] not in ("active", "past_due"):
        return Refusal("billing", f"billing is {row['billingStatus']}")
    return _locked(row)


def suspended_refusal(request: RepairRequest, payloads: pd.DataFrame) -> Refusal | None:
    """Why the workload of a server is not stopped: it must be suspended now, and nothing else."""
    row = row_of(payloads, request.vmid)
    if row is None:
        return Refusal("not_published", "no server with that VMID is in the platform database")
    unreadable = unreadable_reason(row)
    if unreadable is not None:
        return Refusal(ROW_UNUSABLE, unreadable)
    if row["ctype"] != "game":
        return Refusal("server_type", f"{request.vmid} is of type {row['ctype']}, not game")
    if row["billingStatus"] != "suspended":
        return Refusal("billing", f"billing is {row['billingStatus']}, not suspended")
    if row["lifecycle"] not in ("active", "suspended"):
        return Refusal("lifecycle", f"lifecycle is {row['lifecycle']}")
    return _locked(row)


def address_refusal(request: RepairRequest, payloads: pd.DataFrame) -> Refusal | None:
    """Why the agent at a server's address is not asked to stop it: it may be another server's."""
    ip = (row_of(payloads, request.vmid) or {}).get("ip")
    if not isinstance(ip, str) or not ip:
        return None
    address = canonical_address(ip)
    others = payloads.loc[payloads["vmid"] != request.vmid, "ip"]
    if any(isinstance(other, str) and canonical_address(other) == address for other in others):
        return Refusal("address_shared", f"another server has the address {address}, too")
    return None


def budget_refusal(vmid: int, spent: Mapping[int, int], budget: int) -> Refusal | None:
    """Why a server gets no further repair within the hour.

    Args:
        vmid: The server.
        spent: Repairs of each server within the last hour.
        budget: Repairs that one server may have within an hour.
    """
    if spent.get(vmid, 0) < budget:
        return None
    return Refusal(
        BREAKER_OPEN,
        f"{spent[vmid]} repairs within an hour reach the limit of {budget}"
        " (ZLH_MAX_REPAIRS_PER_SERVER_HOUR): something may undo them. Nothing more is written for"
        f" this server for an hour, or until: {reset_command(vmid)}",
    )


def row_of(payloads: pd.DataFrame, vmid: int | None) -> dict[str, Any] | None:
    """The platform's row of a server, or ``None``."""
    rows = rows_of(payloads[payloads["vmid"] == vmid]) if vmid is not None else []
    return rows[0] if rows else None


def rows_by_vmid(payloads: pd.DataFrame) -> dict[int, dict[str, Any]]:
    """The platform's rows by VMID, where that can be read."""
    return {int(row["vmid"]): row for row in rows_of(payloads[payloads["vmid"].notna()])}


def _locked(row: Mapping[str, Any]) -> Refusal | None:
    return Refusal("maintenance", MAINTENANCE) if is_locked(row) else None
