"""Desired against observed, for any number of records at once, column by column."""

from collections.abc import Iterable
from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd

from zlh_dagster.core.desired import EdgeConfig
from zlh_dagster.core.model import DriftKind, Surface
from zlh_dagster.core.names import SRV_PREFIXES
from zlh_dagster.core.pairing import Bools, Ints, Pairing, pair, pair_by_name, same_names

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
"""Columns of a frame of drifts; ``vmid`` is null for a record that no server has, ``found`` for one
that is missing."""

_UNTOLD = np.iinfo(np.int64).min
"""Stands for a number that the provider does not tell."""

_TEXTS = 1_024
"""Pairs of texts that are compared at once: so few that they are still in the cache."""


def compare(
    desired: pd.DataFrame, observed: pd.DataFrame, pairing: Pairing | None = None
) -> pd.DataFrame:
    """Every desired record that is not there exactly once and as wanted.

    Args:
        desired: Frame with ``DESIRED_COLUMNS``; only surfaces that were observed, for a record on
            any other one would look missing.
        observed: Frame with ``RECORD_COLUMNS``, complete listings.
        pairing: That of the two frames, where it is known already.

    Returns:
        Frame with :data:`DRIFT_COLUMNS`, in the order of ``desired``. Whatever is in it was paired
        by name.
    """
    keys = pairing or pair(desired, observed)
    drift, proved = _compare(desired, observed, keys)
    return drift if proved else _compare(desired, observed, pair_by_name(desired, observed))[0]


def _compare(
    desired: pd.DataFrame, observed: pd.DataFrame, keys: Pairing
) -> tuple[pd.DataFrame, bool]:
    """The drifts, and whether what was paired for them is the same by name."""
    active: Bools = ~observed["disabled"].to_numpy(dtype=bool)
    total = np.bincount(keys.found, minlength=keys.size)[keys.wanted]
    served = np.bincount(keys.found[active], minlength=keys.size)[keys.wanted]

    # Position of the record that stands for each key: the served one where there is one.
    position = np.full(keys.size, -1, dtype=np.int64)
    rows = np.arange(len(observed), dtype=np.int64)
    position[keys.found[~active]] = rows[~active]
    position[keys.found[active]] = rows[active]
    at = position[keys.wanted]

    differs = _differs(desired, observed, at)
    missing = total == 0
    disabled = (served == 0) & (total == 1)
    wrong = (served == 1) & (total == 1) & differs
    duplicate = (total > 1) & ~((served == 1) & ~differs)

    drifted = np.flatnonzero(missing | disabled | wrong | duplicate)
    kind = np.full(len(desired), None, dtype=object)
    absent = np.flatnonzero(missing)
    conflict = absent[_behind_cname(desired.iloc[absent], observed)]
    for chosen, value in (
        (absent, DriftKind.MISSING),
        (disabled, DriftKind.DISABLED),
        (wrong, DriftKind.WRONG),
        (duplicate, DriftKind.DUPLICATE),
        (conflict, DriftKind.CONFLICT),
    ):
        kind[chosen] = value.value
    drift = _drift_frame(desired.iloc[drifted], observed, at[drifted], kind[drifted])
    return drift, same_names(desired, observed, keys, keys.wanted[drifted])


def orphans(
    observed: pd.DataFrame,
    *,
    claimed: Iterable[str],
    desired: pd.DataFrame,
    config: EdgeConfig,
) -> pd.DataFrame:
    """What is live in the platform's own shape though no server asks for it.

    That is what stands under a name that no server has, and what a server left behind that asks
    for other records now, such as those of another game. Of a server whose row cannot be used, or
    that level 1 leaves alone, nothing is left over.

    A record counts when it is a backend registration, an SRV record of a service that the platform
    publishes, or an A record that points at one of its edge addresses. Anything else in the zone
    is somebody else's, the zone's own name included. Nothing here is ever deleted.

    Args:
        observed: Frame with ``RECORD_COLUMNS``: live records whose key no desired record has.
        claimed: The label of every game server, usable or not.
        desired: Frame with ``DESIRED_COLUMNS``, those of surfaces that were not seen included.
        config: Where servers are published.

    Returns:
        Frame with :data:`DRIFT_COLUMNS`, kind ``orphan``; ``vmid`` is the server that left it.
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
    shaped = (is_backend | is_srv | is_edge) & (host != config.zone)
    taken = label.isin(list(claimed) if shaped.any() else [])
    vmid = _servers(label.where(shaped & taken) + zone_suffix, desired)
    alone = shaped & (~taken | vmid.notna())
    rows = observed[alone]
    nobody = pd.DataFrame(index=rows.index, columns=["guard", "content", "ttl"])
    wanted = rows[["surface", "name", "type"]].join([vmid.rename("vmid"), nobody])
    kind = np.full(len(rows), DriftKind.ORPHAN.value, dtype=object)
    return _drift_frame(wanted, observed, np.flatnonzero(alone.to_numpy(dtype=bool)), kind)


def _servers(hosts: "pd.Series[Any]", desired: pd.DataFrame) -> "pd.Series[Any]":
    """The server that asks for each host name and may be repaired; null where none does."""
    asked = hosts.dropna().unique()
    if not len(asked):
        return pd.Series(pd.NA, index=hosts.index, dtype="Int64")
    named = desired[desired["name"].isin(asked)]
    named = named[(named["type"] == "A") & named["guard"].isna()]
    return hosts.map(dict(zip(named["name"], named["vmid"], strict=True))).astype("Int64")


def _unlike(
    want: npt.NDArray[np.object_], at: Ints, found: npt.NDArray[np.object_], there: Ints
) -> Bools:
    """Whether the values at the positions differ, pair by pair.

    Taking a Python value touches it: those of one block are still in the cache when they are
    compared, which of millions none would be.
    """
    unlike = np.empty(len(at), dtype=bool)
    for begin in range(0, len(at), _TEXTS):
        part = slice(begin, begin + _TEXTS)
        unlike[part] = want[at[part]] != found[there[part]]
    return unlike


def empty_drift() -> pd.DataFrame:
    """A frame of drifts without rows."""
    return pd.DataFrame(columns=list(DRIFT_COLUMNS)).astype(DRIFT_COLUMNS)


def _differs(desired: pd.DataFrame, observed: pd.DataFrame, at: Ints) -> Bools:
    """Whether the record at each position differs; what the provider does not tell never does."""
    differs = np.zeros(len(desired), dtype=bool)
    there = np.flatnonzero(at >= 0)
    found_at = at[there]
    for column in ("ttl", "proxied"):
        number, other = _numbers(desired[column])[there], _numbers(observed[column])[found_at]
        differs[there] |= (number != other) & (number != _UNTOLD) & (other != _UNTOLD)
    want, found = desired["content"].to_numpy(object), observed["content"].to_numpy(object)
    unlike = there[_unlike(want, there, found, found_at)]
    # A null is like nothing, itself included.
    differs[unlike] |= ~(pd.isna(want[unlike]) | pd.isna(found[at[unlike]]))
    return differs


def _numbers(column: "pd.Series[Any]") -> Ints:
    return column.to_numpy(dtype=np.int64, na_value=_UNTOLD)


def _behind_cname(missing: pd.DataFrame, observed: pd.DataFrame) -> Bools:
    """Whether a CNAME stands at the name, where no other record may stand (RFC 1034, 3.6.2)."""
    cnames = observed[observed["type"].to_numpy(object) == "CNAME"]
    cnames = cnames[~cnames["disabled"].astype(bool)]
    held = cnames["surface"] + "|" + cnames["name"]
    mask: Bools = (missing["surface"] + "|" + missing["name"]).isin(held).to_numpy(dtype=bool)
    return mask


def _drift_frame(
    wanted: pd.DataFrame, observed: pd.DataFrame, at: Ints, kind: npt.NDArray[np.object_]
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
