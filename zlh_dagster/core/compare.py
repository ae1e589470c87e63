"""Desired against observed, for any number of records at once.

The comparison is vectorised: rows are matched by factorised keys, so its cost grows linearly with
the number of records and does not depend on the number of servers.
"""

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

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
"""Columns of a frame of drifts; ``vmid`` is null for a record that no server has, ``found`` for one
that is missing."""

_ODD = np.int64(-7046029254386353131)
"""2**64 over the golden ratio, as a signed number, which keeps neighbours apart (Knuth, 6.4)."""

_Bools = npt.NDArray[np.bool_]
_Ints = npt.NDArray[np.int64]


@dataclass(frozen=True, slots=True)
class Pairing:
    """Which records of two frames stand under the same surface, type and name.

    Attributes:
        wanted: Code of the key of each desired record.
        found: Code of the key of each observed record.
        size: All codes are below it.
    """

    wanted: _Ints
    found: _Ints
    size: int

    @property
    def asked_for(self) -> _Bools:
        """The observed records whose key some desired record has."""
        return np.bincount(self.wanted, minlength=self.size)[self.found] > 0


def pair(desired: pd.DataFrame, observed: pd.DataFrame) -> Pairing:
    """Gives every key a number, in the order in which they first stand there.

    Names are numbered by their hashes: a table of millions of texts is looked up where memory is
    slow. That two names have one hash is found, and then they are numbered as what they are.

    Raises:
        ValueError: If a record has no name, type or surface.
    """
    names = _both(desired, observed, "name")
    kinds = np.zeros(len(names), dtype=np.int64)
    for column in ("type", "surface"):
        part, uniques = pd.factorize(_both(desired, observed, column))
        if (part < 0).any():
            raise ValueError(f"a record has no {column}")
        kinds = kinds * len(uniques) + part
    try:
        hashes = np.fromiter(map(str.__hash__, names), dtype=np.int64, count=len(names))
    except TypeError:
        raise ValueError("a record has no name") from None
    codes, size = _numbered(hashes * _ODD + kinds)  # wraps around, as hashes do
    if not _same_everywhere(codes, size, names, kinds):
        codes, size = _numbered(pd.factorize(names)[0] * (kinds.max() + 1) + kinds)
    return Pairing(codes[: len(desired)], codes[len(desired) :], size)


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
        Frame with :data:`DRIFT_COLUMNS`, in the order of ``desired``.
    """
    keys = pairing or pair(desired, observed)
    active: _Bools = ~observed["disabled"].to_numpy(dtype=bool)
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
    return _drift_frame(desired.iloc[drifted], observed, at[drifted], kind[drifted])


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


def _both(desired: pd.DataFrame, observed: pd.DataFrame, column: str) -> npt.NDArray[np.object_]:
    return np.concatenate([desired[column].to_numpy(object), observed[column].to_numpy(object)])


def _numbered(keys: _Ints) -> tuple[_Ints, int]:
    """A number for each key, and how many there are."""
    codes, uniques = pd.factorize(keys)
    return codes.astype(np.int64, copy=False), len(uniques)


def _same_everywhere(codes: _Ints, size: int, names: npt.NDArray[np.object_], kinds: _Ints) -> bool:
    """Whether all that have one number have one name and kind: those of its first row."""
    rows = np.arange(len(codes), dtype=np.int64)
    first = np.empty(size, dtype=np.int64)
    first[codes[::-1]] = rows[::-1]
    others = np.flatnonzero(first[codes] != rows)
    one = first[codes[others]]
    return bool((kinds[others] == kinds[one]).all() and (names[others] == names[one]).all())


def empty_drift() -> pd.DataFrame:
    """A frame of drifts without rows."""
    return pd.DataFrame(columns=list(DRIFT_COLUMNS)).astype(DRIFT_COLUMNS)


def _differs(desired: pd.DataFrame, observed: pd.DataFrame, at: _Ints) -> _Bools:
    """Whether the record at each position differs; what the provider does not tell never does."""
    differs = np.zeros(len(desired), dtype=bool)
    there = np.flatnonzero(at >= 0)
    for column in ("content", "ttl", "proxied"):
        want = desired[column].take(there).reset_index(drop=True)
        found = observed[column].take(at[there]).reset_index(drop=True)
        # A null differs from everything or is null again: only these few are looked at for nulls.
        unequal = np.flatnonzero(_unequal(want, found))
        known = (want.take(unequal).notna() & found.take(unequal).notna()).to_numpy()
        differs[there[unequal[known]]] = True
    return differs


def _unequal(want: "pd.Series[Any]", found: "pd.Series[Any]") -> _Bools:
    if want.dtype == object:  # plain numpy compares Python values several times quicker
        return np.asarray(want.to_numpy() != found.to_numpy(), dtype=bool)
    return (want != found).to_numpy(dtype=bool, na_value=False)


def _behind_cname(missing: pd.DataFrame, observed: pd.DataFrame) -> _Bools:
    """Whether a CNAME stands at the name, where no other record may stand (RFC 1034, 3.6.2)."""
    cnames = observed[observed["type"].to_numpy(object) == "CNAME"]
    cnames = cnames[~cnames["disabled"].astype(bool)]
    held = cnames["surface"] + "|" + cnames["name"]
    mask: _Bools = (missing["surface"] + "|" + missing["name"]).isin(held).to_numpy(dtype=bool)
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
