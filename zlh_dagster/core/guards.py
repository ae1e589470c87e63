"""Guards at the last moment: why a repair that was asked for is refused."""

from collections.abc import Iterable, Mapping

import pandas as pd

from zlh_dagster.core.repair import RepairRequest

LEVEL_ON = 1
"""Highest repair level that is carried out."""


def refusals(
    requests: Iterable[RepairRequest],
    *,
    desired: pd.DataFrame,
    invalid: pd.DataFrame,
    spent: Mapping[int, int],
    budget: int,
) -> dict[int, str]:
    """Why each refused server is refused, by VMID; servers that may be repaired are absent.

    Args:
        requests: What was asked for.
        desired: Desired records, from rows that were read just now.
        invalid: Servers whose rows could not be used: ``vmid, reason``.
        spent: Repairs of each server within the last hour.
        budget: Repairs that one server may have within an hour.
    """
    unusable = dict(zip(invalid["vmid"], invalid["reason"], strict=True))
    guards = dict(zip(desired["vmid"], desired["guard"], strict=True))
    why = {}
    for request in requests:
        vmid = request.vmid
        if request.action.level > LEVEL_ON:
            why[vmid] = f"{request.action.value} is level {request.action.level}, which is off"
        elif vmid in unusable:
            why[vmid] = str(unusable[vmid])
        elif vmid not in guards:
            why[vmid] = "no game server with that VMID is published"
        elif guards[vmid] is not None and not pd.isna(guards[vmid]):
            why[vmid] = str(guards[vmid])
        elif spent.get(vmid, 0) >= budget:
            why[vmid] = (
                f"{spent[vmid]} repairs within an hour reach the limit of {budget}"
                " (ZLH_MAX_REPAIRS_PER_SERVER_HOUR): something undoes them"
            )
    return why
