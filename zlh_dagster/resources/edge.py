"""What every published surface can do: list all of it, and put one record back."""

import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, ClassVar, Protocol

import pandas as pd

from zlh_dagster.core.changes import Change
from zlh_dagster.core.model import Record, Surface
from zlh_dagster.core.names import split_srv
from zlh_dagster.resources.http import Incomplete, Rejected

READ_TIMEOUT = 5.0
"""Seconds for each step of a read; Proxmox alone delays a 401 by 3 s."""

WRITE_TIMEOUT = 3.0
WRITE_SECONDS = 4 * WRITE_TIMEOUT
"""Seconds that one write may take at the most: a call ends after three time-outs, and the fourth
is for the system's resolver, which has its own."""

_HUGE = 2**63
# JSON can spell half of a surrogate pair, which no file and no database takes.
_LONE_SURROGATE = re.compile("[\ud800-\udfff]")


@dataclass(frozen=True, slots=True)
class Rights:
    """What a token may do, as far as reading tells.

    Attributes:
        missing: Names of rights that it lacks, as the provider calls them.
        unknown: Why nothing is known of them, or empty.
    """

    missing: tuple[str, ...] = ()
    unknown: str = ""


class EdgeSurface(Protocol):
    """A surface over its provider's API."""

    surface: Surface
    at_once: ClassVar[int]
    """Writes that may be under way at the same time."""
    per_call: ClassVar[int]
    """Changes that one call can make; more than one only on a :class:`BatchSurface`."""

    @property
    def requests(self) -> int:
        """Calls made so far."""
        ...

    def list_records(self) -> pd.DataFrame:
        """The complete listing as a frame of records.

        Raises:
            EdgeError: If it cannot be had whole. Never returns a part.
        """
        ...

    def apply(self, change: Change) -> None:
        """Makes one write, once.

        Raises:
            EdgeError: If it failed or its answer was lost; a fresh read tells which.
        """
        ...

    def close(self) -> None:
        """Closes the connections."""
        ...


class BatchSurface(EdgeSurface, Protocol):
    """A surface that can make several changes in one call."""

    def apply_all(self, changes: Sequence[Change]) -> None:
        """Makes all of the changes in one write, or none; at most ``per_call`` of them.

        Raises:
            AlreadyThere, Rejected: One of them was refused, so none was made.
            EdgeError: It failed or its answer was lost; a fresh read tells which.
        """
        ...


def srv_data(record: Record) -> dict[str, Any]:
    """The parts of an SRV record by the names that both DNS providers give them.

    Raises:
        Rejected: If its content cannot be read: there is nothing to write then.
    """
    try:
        priority, weight, port, target = split_srv(str(record.content))
    except ValueError:
        raise Rejected(
            f"{record.surface.value}: SRV {record.name}: its content is not 'priority weight port"
            " target'"
        ) from None
    return {"priority": priority, "weight": weight, "port": port, "target": target}


def expect(value: Any, kind: type, what: str) -> Any:
    """``value`` when it has the promised type and can be kept in a frame and a file.

    Raises:
        Incomplete: Naming what has the wrong type.
    """
    if not isinstance(value, kind) or (kind is int and isinstance(value, bool)):
        raise Incomplete(f"{what} is {type(value).__name__}, not {kind.__name__}")
    if isinstance(value, int) and not -_HUGE < value < _HUGE:
        raise Incomplete(f"{what} is a number of more than 64 bits")
    if isinstance(value, str) and not value.isascii() and _LONE_SURROGATE.search(value):
        raise Incomplete(f"{what} is not text")
    return value


def field(row: Any, name: str, kind: type, where: str) -> Any:
    """A field of a listed row with the promised type.

    Raises:
        Incomplete: If it is absent or of another type.
    """
    expect(row, dict, f"{where}: a row")
    if name not in row:
        raise Incomplete(f"{where}: a row has no {name!r}")
    return expect(row[name], kind, f"{where}: {name!r}")
