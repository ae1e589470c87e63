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

_KEYS, _TEXTS = 32_768, 1_024
"""Rows that are worked on at once: so few that what belongs to them stays in the cache."""

_UNTOLD = np.iinfo(np.int64).min
"""Stands for a number that the provider does not tell."""

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
    """Gives every key a number, by the hash of its name.

    A name is read once, to be hashed: reading millions of texts that lie scattered in memory is
    what comparing takes its time for. Whoever acts on a pair compares the names of that pair
    (docs/decisions/0019-names-by-hash.md tells what is left to chance).

    Raises:
        ValueError: If a record has no name, type or surface.
    """
    hashes = _hashes(_both(desired, observed, "name"))
    return _pairing(hashes * _ODD + _kinds(desired, observed), len(desired))  # wraps around


def _pair_by_name(desired: pd.DataFrame, observed: pd.DataFrame) -> Pairing:
    """As :func:`pair`, by the names themselves; several times slower for millions."""
    kinds = _kinds(desired, observed)
    numbers, uniques = pd.factorize(_both(desired, observed, "name"))
    return _pairing(kinds * len(uniques) + numbers, len(desired))


def _kinds(desired: pd.DataFrame, observed: pd.DataFrame) -> _Ints:
    """A small number for the type and surface of each record."""
    kinds = np.zeros(len(desired) + len(observed), dtype=np.int64)
    for column in ("type", "surface"):
        part, uniques = pd.factorize(_both(desired, observed, column))
        if (part < 0).any():
            raise ValueError(f"a record has no {column}")
        kinds = kinds * len(uniques) + part
    return kinds


def _pairing(keys: _Ints, desired: int) -> Pairing:
    codes, size = _numbered(keys)
    return Pairing(codes[:desired], codes[desired:], size)


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
    return drift if proved else _compare(desired, observed, _pair_by_name(desired, observed))[0]


def _compare(
    desired: pd.DataFrame, observed: pd.DataFrame, keys: Pairing
) -> tuple[pd.DataFrame, bool]:
    """The drifts, and whether what was paired for them is the same by name."""
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
    drift = _drift_frame(desired.iloc[drifted], observed, at[drifted], kind[drifted])
    return drift, _same_names(desired, observed, keys, keys.wanted[drifted])


def _same_names(desired: pd.DataFrame, observed: pd.DataFrame, keys: Pairing, codes: _Ints) -> bool:
    """Whether all records that have one of these numbers have the same name, type and surface."""
    asked = np.zeros(keys.size, dtype=bool)
    asked[codes] = True
    columns = ["name", "type", "surface"]
    rows = [
        frame.loc[asked[numbers], columns].assign(number=numbers[asked[numbers]])
        for frame, numbers in ((desired, keys.wanted), (observed, keys.found))
    ]
    return bool(pd.concat(rows).drop_duplicates()["number"].is_unique)


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


def _hashes(names: npt.NDArray[np.object_]) -> _Ints:
    try:
        return np.fromiter(map(str.__hash__, names), dtype=np.int64, count=len(names))
    except TypeError:
        raise ValueError("a record has no name") from None


def _numbered(keys: _Ints) -> tuple[_Ints, int]:
    """A number for each key, and how many there are.

    Keys are dealt out by their upper bits first, so that the table of those of one block stays in
    the processor's cache: a radix partition, as in the hash joins of databases.
    """
    bits = min((len(keys) // _KEYS).bit_length(), 16)
    blocks = (keys.view(np.uint64) >> np.uint64(64 - bits)).astype(np.uint16)
    order = np.argsort(blocks, kind="stable")  # a radix sort, of numbers this small
    dealt = keys[order]
    numbers = np.empty(len(keys), dtype=np.int64)
    begin = size = 0
    for end in np.cumsum(np.bincount(blocks)).tolist():
        part, uniques = pd.factorize(dealt[begin:end])
        numbers[begin:end] = part + size
        begin, size = end, size + len(uniques)
    codes = np.empty(len(keys), dtype=np.int64)
    codes[order] = numbers
    return codes, size


def _unlike(
    want: npt.NDArray[np.object_], at: _Ints, found: npt.NDArray[np.object_], there: _Ints
) -> _Bools:
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


def _differs(desired: pd.DataFrame, observed: pd.DataFrame, at: _Ints) -> _Bools:
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


def _numbers(column: "pd.Series[Any]") -> _Ints:
    return column.to_numpy(dtype=np.int64, na_value=_UNTOLD)


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
