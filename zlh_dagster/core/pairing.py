"""Which desired and observed records stand under the same surface, type and name.

Rows are matched by factorised keys, so the cost grows linearly with the number of records and does
not depend on the number of servers.
"""

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import pandas as pd

_ODD = np.int64(-7046029254386353131)
"""2**64 over the golden ratio, as a signed number, which keeps neighbours apart (Knuth, 6.4)."""

_BLOCK = 32_768
"""Keys that are numbered at once: so few that their table stays in a processor's cache."""

Bools = npt.NDArray[np.bool_]
Ints = npt.NDArray[np.int64]


@dataclass(frozen=True, slots=True)
class Pairing:
    """Which records of two frames stand under the same surface, type and name.

    Attributes:
        wanted: Code of the key of each desired record.
        found: Code of the key of each observed record.
        size: All codes are below it.
    """

    wanted: Ints
    found: Ints
    size: int

    @property
    def asked_for(self) -> Bools:
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


def pair_by_name(desired: pd.DataFrame, observed: pd.DataFrame) -> Pairing:
    """As :func:`pair`, by the names themselves; several times slower for millions."""
    kinds = _kinds(desired, observed)
    numbers, uniques = pd.factorize(_both(desired, observed, "name"))
    return _pairing(kinds * len(uniques) + numbers, len(desired))


def _kinds(desired: pd.DataFrame, observed: pd.DataFrame) -> Ints:
    """A small number for the type and surface of each record."""
    kinds = np.zeros(len(desired) + len(observed), dtype=np.int64)
    for column in ("type", "surface"):
        part, uniques = pd.factorize(_both(desired, observed, column))
        if (part < 0).any():
            raise ValueError(f"a record has no {column}")
        kinds = kinds * len(uniques) + part
    return kinds


def _pairing(keys: Ints, desired: int) -> Pairing:
    codes, size = _numbered(keys)
    return Pairing(codes[:desired], codes[desired:], size)


def same_names(desired: pd.DataFrame, observed: pd.DataFrame, keys: Pairing, codes: Ints) -> bool:
    """Whether all records that have one of these numbers have the same name, type and surface."""
    asked = np.zeros(keys.size, dtype=bool)
    asked[codes] = True
    columns = ["name", "type", "surface"]
    rows = [
        frame.loc[asked[numbers], columns].assign(number=numbers[asked[numbers]])
        for frame, numbers in ((desired, keys.wanted), (observed, keys.found))
    ]
    return bool(pd.concat(rows).drop_duplicates()["number"].is_unique)


def _both(desired: pd.DataFrame, observed: pd.DataFrame, column: str) -> npt.NDArray[np.object_]:
    return np.concatenate([desired[column].to_numpy(object), observed[column].to_numpy(object)])


def _hashes(names: npt.NDArray[np.object_]) -> Ints:
    try:
        return np.fromiter(map(str.__hash__, names), dtype=np.int64, count=len(names))
    except TypeError:
        raise ValueError("a record has no name") from None


def _numbered(keys: Ints) -> tuple[Ints, int]:
    """A number for each key, and how many there are.

    Keys are dealt out by their upper bits first, so that the table of those of one block stays in
    the processor's cache: a radix partition, as in the hash joins of databases.
    """
    bits = min((len(keys) // _BLOCK).bit_length(), 16)
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
