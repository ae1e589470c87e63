"""Containers, agents and operations as frames, and what a BullMQ job's place says about it.

A frame is built column by column, so that a null stays a null: no integer becomes a float, no
absent text becomes NaN.
"""

from collections.abc import Collection, Iterable, Mapping
from enum import Enum
from typing import Any

import pandas as pd

from zlh_dagster.core.model import UNREADABLE

CONTAINER_COLUMNS: dict[str, str] = {
    "vmid": "Int64",
    "name": "object",
    "status": "object",
    "lock": "object",
}
"""Columns of a frame of containers; ``status`` is ``running``, ``stopped`` or ``unknown``, ``lock``
what holds the container just now (``backup``, ``migrate``) or null."""

AGENT_COLUMNS: dict[str, str] = {
    "vmid": "Int64",
    "address": "object",
    "answer": "object",
    "state": "object",
    "detail": "object",
}
"""Columns of a frame of agents; ``answer`` is a value of :class:`Answer`, ``state`` what the agent
says of its server or null, ``detail`` why it is not healthy or null."""

OPEN_OPERATION_COLUMNS: dict[str, str] = {
    "id": "object",
    "vmid": "Int64",
    "type": "object",
    "queue": "object",
    "jobId": "object",
    "status": "object",
    "phase": "object",
    "progressAt": "object",
    "heartbeatAt": "object",
    "leaseExpiresAt": "object",
    "createdAt": "object",
    "updatedAt": "object",
    UNREADABLE: "object",
}
"""Columns of a frame of operations as the platform database has them; times are texts, see
:func:`zlh_dagster.core.times.iso`, and ``vmid`` is as :func:`with_reserved` says."""

OPERATION_COLUMNS: dict[str, str] = {
    **OPEN_OPERATION_COLUMNS,
    "job": "object",
    "deadSince": "object",
    "deadReads": "Int64",
}
"""The same with what the queue says: ``job`` is a value of :class:`JobState`; since when, and at
how many reads in a row, the job was dead."""


class ContainerStatus(str, Enum):
    """What Proxmox says of a container; ``unknown`` is neither of the others."""

    RUNNING = "running"
    STOPPED = "stopped"
    UNKNOWN = "unknown"


class Answer(str, Enum):
    """What came of asking an agent."""

    HEALTHY = "healthy"
    UNHEALTHY = "unhealthy"
    """It answers, but not with 200."""
    SILENT = "silent"
    REFUSED = "refused"
    """Its address is none, or outside the allowed networks: it was never called."""
    UNKNOWN = "unknown"
    """It was not asked, or not long enough, for reasons on this side."""


class JobState(str, Enum):
    """Where BullMQ keeps the job of an operation."""

    NONE = "none"
    """The operation names no job, and its queue has none that nobody names."""
    UNKNOWN = "unknown"
    """The operation names no job, but its queue has jobs that no open operation names; or its row,
    its queue or its job cannot be read."""
    GONE = "gone"
    WAITING = "waiting"
    DELAYED = "delayed"
    PRIORITIZED = "prioritized"
    WAITING_CHILDREN = "waiting-children"
    ACTIVE = "active"
    """A worker has it and renews its lock."""
    STALLED = "stalled"
    """It counts as active, but no worker holds its lock."""
    COMPLETED = "completed"
    FAILED = "failed"
    UNLISTED = "unlisted"
    """The job is there, but in no list from which a worker would take it."""

    @property
    def dead(self) -> bool:
        """Whether no worker has the job or will get it; a stalled one BullMQ may yet revive."""
        return self not in _ALIVE


QUEUED = (
    JobState.WAITING,
    JobState.DELAYED,
    JobState.PRIORITIZED,
    JobState.WAITING_CHILDREN,
    JobState.ACTIVE,
    JobState.STALLED,
)
"""States of jobs that are still in their queue, whether or not a worker has them."""

_ALIVE = frozenset({*QUEUED, JobState.UNKNOWN} - {JobState.STALLED})


def containers_frame(rows: Iterable[Mapping[str, Any]]) -> pd.DataFrame:
    """A frame with :data:`CONTAINER_COLUMNS`; what a row lacks becomes null."""
    return _frame(rows, CONTAINER_COLUMNS)


def agents_frame(rows: Iterable[Mapping[str, Any]]) -> pd.DataFrame:
    """A frame with :data:`AGENT_COLUMNS`; what a row lacks becomes null."""
    return _frame(rows, AGENT_COLUMNS)


def open_operations_frame(rows: Iterable[Mapping[str, Any]]) -> pd.DataFrame:
    """A frame with :data:`OPEN_OPERATION_COLUMNS`; what a row lacks becomes null."""
    return _frame(rows, OPEN_OPERATION_COLUMNS)


def operations_frame(rows: Iterable[Mapping[str, Any]]) -> pd.DataFrame:
    """A frame with :data:`OPERATION_COLUMNS`; what a row lacks becomes null."""
    return _frame(rows, OPERATION_COLUMNS)


def with_reserved(operation: Mapping[str, Any], reserved: Collection[int | None]) -> dict[str, Any]:
    """An operation with the VMID that is reserved for it, where it names none itself.

    A queued creation gives its VMID back when it fails. One that has several is unreadable, for
    nobody knows which of them it may have used.

    Args:
        operation: A row with ``OPEN_OPERATION_COLUMNS``.
        reserved: VMIDs whose reservation is the operation's and not released; null where a
            cell cannot be read.
    """
    if not absent(operation[UNREADABLE]):
        return dict(operation)
    named = operation["vmid"]
    held = {*reserved} if absent(named) else {named, *reserved}
    if len(held) <= 1 and None not in held:
        return {**operation, "vmid": next(iter(held), None)}
    if operation["type"] != "create" or operation["status"] != "queued":
        return dict(operation)
    own = "none" if absent(named) else named
    others = ", ".join("?" if vmid is None else str(vmid) for vmid in reserved)
    return {**operation, UNREADABLE: f"vmid: {own} in the row, {others} reserved for it"}


def absent(value: Any) -> bool:
    """Whether a cell is null, as Python, pandas or a file says it."""
    return value is None or bool(pd.isna(value))


def _frame(rows: Iterable[Mapping[str, Any]], columns: Mapping[str, str]) -> pd.DataFrame:
    given = list(rows)
    cells = {
        name: [None if absent(cell := row.get(name)) else cell for row in given] for name in columns
    }
    return pd.DataFrame(
        {name: pd.Series(cells[name], dtype=kind) for name, kind in columns.items()}
    )
