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

UNREADABLE = "unreadable"
"""Column of the platform's rows and operations: what of the row cannot be read and why, or null.

Such a row is there, but nothing may be concluded from what it seems to say.
"""

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
    CLEAR_STALE_OPERATION_LOCK = "clear_stale_operation_lock"
    FAIL_STUCK_PROVISIONING = "fail_stuck_provisioning"
    REVERT = "revert"
    VELOCITY_REPOINT = "velocity_repoint"
    RESTART_AGENT = "restart_agent"
    STOP_SUSPENDED_WORKLOAD = "stop_suspended_workload"
    DELETE_CONTAINER = "delete_container"
    RECREATE_CONTAINER = "recreate_container"
    RESTORE_BACKUP = "restore_backup"

    @property
    def words(self) -> str:
        """Its name for titles, where Discord's notifications would show escapes."""
        return self.value.replace("_", " ")

    @property
    def level(self) -> int:
        """0 observes, 1 is idempotent, 2 touches a running workload, 3 destroys or replaces."""
        return _LEVELS[self]

    @property
    def built(self) -> bool:
        """Whether any code carries it out; the others are names for what is escalated."""
        return self in _BUILT

    @property
    def surfaces(self) -> tuple[Surface, ...]:
        """The surfaces that the action may write to."""
        return _SURFACES.get(self, ())


EDGE_ACTIONS = frozenset({Action.DNS_REPUBLISH, Action.EDGE_REPUBLISH, Action.VELOCITY_REREGISTER})
"""Actions that publish what the payloads ask for."""

OPERATION_ACTIONS = frozenset({Action.CLEAR_STALE_OPERATION_LOCK, Action.FAIL_STUCK_PROVISIONING})
"""Actions that close rows of work that is provably dead."""

_BUILT = EDGE_ACTIONS | OPERATION_ACTIONS | {Action.REVERT, Action.STOP_SUSPENDED_WORKLOAD}
_LEVELS = {
    Action.DNS_REPUBLISH: 1,
    Action.EDGE_REPUBLISH: 1,
    Action.VELOCITY_REREGISTER: 1,
    Action.CLEAR_STALE_OPERATION_LOCK: 1,
    Action.FAIL_STUCK_PROVISIONING: 1,
    Action.REVERT: 1,
    Action.VELOCITY_REPOINT: 2,
    Action.RESTART_AGENT: 2,
    Action.STOP_SUSPENDED_WORKLOAD: 2,
    Action.DELETE_CONTAINER: 3,
    Action.RECREATE_CONTAINER: 3,
    Action.RESTORE_BACKUP: 3,
}
_SURFACES = {
    Action.DNS_REPUBLISH: DNS_SURFACES,
    Action.EDGE_REPUBLISH: (*DNS_SURFACES, Surface.VELOCITY),
    Action.VELOCITY_REREGISTER: (Surface.VELOCITY,),
    Action.VELOCITY_REPOINT: (Surface.VELOCITY,),
    Action.REVERT: DNS_SURFACES,
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
