"""Desired against observed, for any number of records at once.

The comparison is vectorised: rows are matched by factorised keys, so its cost grows linearly with
the number of records and does not depend on the number of servers.
"""

from collections.abc import Iterable

import numpy as np
import numpy.typing as npt
import pandas as pd

from zlh_dagster.core.desired import EdgeConfig
from zlh_dagster.core.model import DriftKind, Surface
from zlh_dagster.core.names import SRV_PREFIXES

DRIFT_COLUMNS: dict[str, str] = {
    "surface": "object",
    "kind": "object",
    "name": "object",
    "type": "object",
    "vmid": "Int64",
    "guard": "object",
    "wanted": "object",
    "found": "object",
    "wanted_ttl": "Int64",
    "found_ttl": "Int64",
    "found_proxied": "boolean",
    "record_id": "object",
}
"""Columns of a frame of drifts; ``vmid`` is null for an orphan, ``found`` for a missing record."""

_Bools = npt.NDArray[np.bool_]
_Ints = npt.NDArray[np.int64]


def compare(desired: pd.DataFrame, observed: pd.DataFrame) -> pd.DataFrame:
    """Every desired record that is not there exactly once and as wanted.

    Args:
        desired: Frame with ``DESIRED_COLUMNS``; only surfaces that were observed, for a record on
            any other one would look missing.
        observed: Frame with ``RECORD_COLUMNS``, complete listings.

    Returns:
        Frame with :data:`DRIFT_COLUMNS`, in the order of ``desired``.
    """
    wanted_codes, found_codes, size = _shared_codes(desired, observed)
    active: _Bools = ~observed["disabled"].to_numpy(dtype=bool)
    total = np.bincount(found_codes, minlength=size)[wanted_codes]
    served = np.bincount(found_codes[active], minlength=size)[wanted_codes]

    # Position of the record that stands for each key: the served one where there is one.
    position = np.full(size, -1, dtype=np.int64)
    rows = np.arange(len(observed), dtype=np.int64)
    position[found_codes[~active]] = rows[~active]
    position[found_codes[active]] = rows[active]
    at = position[wanted_codes]

    differs = _differs(desired, observed, at)
    missing = total == 0
    disabled = (served == 0) & (total == 1)
    wrong = (served == 1) & (total == 1) & differs
    duplicate = (total > 1) & ~((served == 1) & ~differs)
    conflict = missing & _behind_cname(desired, observed)

    kind = np.full(len(desired), None, dtype=object)
    for mask, value in (
        (missing, DriftKind.MISSING),
        (disabled, DriftKind.DISABLED),
        (wrong, DriftKind.WRONG),
        (duplicate, DriftKind.DUPLICATE),
        (conflict, DriftKind.CONFLICT),
    ):
        kind[mask] = value.value
    drifted = np.flatnonzero(missing | disabled | wrong | duplicate)
    return _drift_frame(desired.iloc[drifted], observed, at[drifted], kind[drifted])


def orphans(observed: pd.DataFrame, *, claimed: Iterable[str], config: EdgeConfig) -> pd.DataFrame:
    """What is live in the platform's own shape though no server has that name.

    A record counts when it is a backend registration, an SRV record of a service that the platform
    publishes, or an A record that points at one of its edge addresses. Anything else in the zone
    is somebody else's, the zone's own name included. Nothing here is ever deleted.

    Returns:
        Frame with :data:`DRIFT_COLUMNS`, kind ``orphan``.
    """
    names = observed["name"].astype(str)
    is_backend = observed["surface"] == Surface.VELOCITY.value
    zone_suffix = f".{config.zone}" if config.zone else ""
    prefix = "^(?:" + "|".join(SRV_PREFIXES) + r")\."
    is_srv = (observed["type"] == "SRV") & names.str.match(prefix)
    edge = [ip for ip in (config.cloudflare_ip, config.velocity_ip, config.traefik_ip) if ip]
    is_edge = (observed["type"] == "A") & observed["content"].isin(edge)
    host = names.where(~is_srv, names.str.replace(prefix, "", regex=True))
    label = host.str.removesuffix(zone_suffix) if zone_suffix else host
    alone = (is_backend | is_srv | is_edge) & (host != config.zone) & ~label.isin(list(claimed))
    rows = observed[alone]
    nobody = pd.DataFrame(index=rows.index, columns=["vmid", "guard", "content", "ttl"])
    wanted = rows[["surface", "name", "type"]].join(nobody)
    kind = np.full(len(rows), DriftKind.ORPHAN.value, dtype=object)
    return _drift_frame(wanted, observed, np.flatnonzero(alone.to_numpy(dtype=bool)), kind)


def empty_drift() -> pd.DataFrame:
    """A frame of drifts without rows."""
    return pd.DataFrame(columns=list(DRIFT_COLUMNS)).astype(DRIFT_COLUMNS)


def _shared_codes(desired: pd.DataFrame, observed: pd.DataFrame) -> tuple[_Ints, _Ints, int]:
    keys = pd.concat([_keys(desired), _keys(observed)], ignore_index=True)
    codes, uniques = pd.factorize(keys)
    codes = codes.astype(np.int64)
    return codes[: len(desired)], codes[len(desired) :], len(uniques)


def _keys(frame: pd.DataFrame) -> "pd.Series[str]":
    return frame["surface"] + "|" + frame["type"] + "|" + frame["name"]


def _differs(desired: pd.DataFrame, observed: pd.DataFrame, at: _Ints) -> _Bools:
    """Whether the record at each position differs; what the provider does not tell never does."""
    differs = np.zeros(len(desired), dtype=bool)
    there = np.flatnonzero(at >= 0)
    want = desired.iloc[there].reset_index(drop=True)
    found = observed.iloc[at[there]].reset_index(drop=True)
    for column in ("content", "ttl", "proxied"):
        known = want[column].notna().to_numpy() & found[column].notna().to_numpy()
        unequal = want.loc[known, column].to_numpy() != found.loc[known, column].to_numpy()
        differs[there[known]] |= unequal.astype(bool)
    return differs


def _behind_cname(desired: pd.DataFrame, observed: pd.DataFrame) -> _Bools:
    """Whether a CNAME stands at the name, where no other record may stand (RFC 1034, 3.6.2)."""
    cnames = observed[(observed["type"] == "CNAME") & ~observed["disabled"].astype(bool)]
    if cnames.empty:
        return np.zeros(len(desired), dtype=bool)
    held = cnames["surface"] + "|" + cnames["name"]
    mask: _Bools = (desired["surface"] + "|" + desired["name"]).isin(held).to_numpy(dtype=bool)
    return mask


def _drift_frame(
    wanted: pd.DataFrame, observed: pd.DataFrame, at: _Ints, kind: npt.NDArray[np.object_]
) -> pd.DataFrame:
    known = pd.Series(at >= 0)
    if len(observed):
        found = observed.iloc[np.maximum(at, 0)].reset_index(drop=True)
        found = found.where(known)
    else:
        found = pd.DataFrame(index=range(len(at)), columns=observed.columns, dtype=object)
    wanted = wanted.reset_index(drop=True)
    frame = pd.DataFrame(
        {
            "surface": wanted["surface"],
            "kind": kind,
            "name": wanted["name"],
            "type": wanted["type"],
            "vmid": wanted["vmid"],
            "guard": wanted["guard"],
            "wanted": wanted["content"],
            "found": found["content"],
            "wanted_ttl": wanted["ttl"],
            "found_ttl": found["ttl"],
            "found_proxied": found["proxied"],
            "record_id": found["record_id"],
        },
        columns=list(DRIFT_COLUMNS),
    )
    return frame.astype(DRIFT_COLUMNS)
