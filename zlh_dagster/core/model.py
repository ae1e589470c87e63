"""The words of the domain: surfaces, records, drifts, repairs.

Everything here is a value. Tables of many records are pandas frames with the columns of
:data:`RECORD_COLUMNS`; one record, where a single one is handled, is a :class:`Record`.
"""

from dataclasses import asdict, dataclass
from enum import Enum
from typing import Any, cast

import pandas as pd


class Surface(str, Enum):
    """A place where a server is published."""

    CLOUDFLARE = "cloudflare"
    TECHNITIUM = "technitium"
    VELOCITY = "velocity"


DNS_SURFACES = (Surface.CLOUDFLARE, Surface.TECHNITIUM)

BACKEND = "BACKEND"
"""Record type of a Velocity registration; its content is ``address:port``."""

DNS_TTL = 60
"""TTL in seconds of every DNS record that the platform publishes."""

RECORD_COLUMNS: dict[str, str] = {
    "surface": "object",
    "name": "object",
    "type": "object",
    "content": "object",
    "ttl": "Int64",
    "proxied": "boolean",
    "disabled": "boolean",
    "record_id": "object",
}
"""Columns of a frame of records, desired or observed, with their pandas types.

``name`` is lower case and without a trailing dot. ``content`` is an address for A, ``priority
weight port target`` for SRV, ``address:port`` or null (an older bridge tells no address) for a
backend. ``ttl`` is null where the provider chooses it, ``proxied`` is null outside Cloudflare.
"""


@dataclass(frozen=True, slots=True)
class Record:
    """One DNS record or backend registration on one surface."""

    surface: Surface
    name: str
    type: str
    content: str | None
    ttl: int | None = None
    proxied: bool | None = None
    disabled: bool = False
    record_id: str | None = None

    @property
    def key(self) -> tuple[str, str, str]:
        """Surface, name and type: what there must be exactly one of."""
        return (self.surface.value, self.name, self.type)

    def to_json(self) -> dict[str, Any]:
        """The record as plain JSON, for the ledger."""
        return {**asdict(self), "surface": self.surface.value}

    @staticmethod
    def from_row(row: dict[str, Any]) -> "Record":
        """Reads one row of a frame of records, nulls of any kind becoming ``None``."""
        value = {
            column: None if row.get(column) is None or pd.isna(row[column]) else row[column]
            for column in RECORD_COLUMNS
        }
        return Record(
            surface=Surface(value["surface"]),
            name=str(value["name"]),
            type=str(value["type"]),
            content=None if value["content"] is None else str(value["content"]),
            ttl=None if value["ttl"] is None else int(value["ttl"]),
            proxied=None if value["proxied"] is None else bool(value["proxied"]),
            disabled=bool(value["disabled"]),
            record_id=None if value["record_id"] is None else str(value["record_id"]),
        )


class DriftKind(str, Enum):
    """How a surface differs from what the payloads ask for."""

    MISSING = "missing"
    WRONG = "wrong"
    DUPLICATE = "duplicate"
    DISABLED = "disabled"
    CONFLICT = "conflict"
    ORPHAN = "orphan"


class Action(str, Enum):
    """A repair by name, with the level it belongs to (see docs/safety.md)."""

    DNS_REPUBLISH = "dns_republish"
    EDGE_REPUBLISH = "edge_republish"
    VELOCITY_REREGISTER = "velocity_reregister"
    VELOCITY_REPOINT = "velocity_repoint"

    @property
    def level(self) -> int:
        return _LEVELS[self]

    @property
    def surfaces(self) -> tuple[Surface, ...]:
        """The surfaces that the action may write to."""
        return _SURFACES[self]


_LEVELS = {
    Action.DNS_REPUBLISH: 1,
    Action.EDGE_REPUBLISH: 1,
    Action.VELOCITY_REREGISTER: 1,
    Action.VELOCITY_REPOINT: 2,
}
_SURFACES = {
    Action.DNS_REPUBLISH: DNS_SURFACES,
    Action.EDGE_REPUBLISH: (*DNS_SURFACES, Surface.VELOCITY),
    Action.VELOCITY_REREGISTER: (Surface.VELOCITY,),
    Action.VELOCITY_REPOINT: (Surface.VELOCITY,),
}


def rows_of(frame: pd.DataFrame) -> list[dict[str, Any]]:
    """The rows of a frame as dictionaries by column name."""
    return cast(list[dict[str, Any]], frame.to_dict("records"))


def records_frame(rows: list[dict[str, Any]]) -> pd.DataFrame:
    """A frame of records with the columns and types of :data:`RECORD_COLUMNS`.

    Args:
        rows: Dictionaries with any of the columns; what is absent becomes null, ``disabled``
            false.
    """
    frame = pd.DataFrame(rows, columns=list(RECORD_COLUMNS))
    frame["disabled"] = frame["disabled"].astype("boolean").fillna(False)
    return frame.astype(RECORD_COLUMNS)
