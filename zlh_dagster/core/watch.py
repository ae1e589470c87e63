"""What containers, agents, operations and backups tell: decisions over one tick's snapshots.

Frames are those of ``core.fleet`` and the platform's rows; times in them are ISO text. Whoever
calls passes only what was observed: a source that was not seen is ``None``, and nothing is
concluded from it.
"""

from collections import Counter
from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Any

import pandas as pd

from zlh_dagster.core import times
from zlh_dagster.core.desired import readable, unreadable_reason
from zlh_dagster.core.fleet import QUEUED, Answer, JobState, operations_frame
from zlh_dagster.core.model import UNREADABLE, Action, rows_of
from zlh_dagster.core.policy import AGENTS, CONTAINERS, OPERATIONS, PAYLOADS
from zlh_dagster.core.repair import Finding, RepairRequest
from zlh_dagster.core.rules import RULES, Kind

HEARTBEAT_SECONDS = 120
"""Age from which a heartbeat has expired: a worker renews its job's lock every 15 s (BullMQ), so
eight renewals were missed."""

STUCK_SECONDS = 15 * 60
DEAD_READS = 2
DEAD_SECONDS = 60
"""A job is dead only after this many reads, the first and the last this far apart."""

BACKUP_GRACE_SECONDS = 30 * 60
"""A backup that is being made just now is not missed."""

STOPPED_STATES = frozenset({"stopped", "stopping", "offline"})
"""States of an agent in which the server itself does not run."""


@dataclass(frozen=True, slots=True)
class Fleet:
    """One tick beside the edge; ``None`` where a source was not observed or is off.

    Operations that are off are none, and nobody works on a server; those not seen may be any.
    """

    payloads: pd.DataFrame
    containers: pd.DataFrame | None
    agents: pd.DataFrame | None
    operations: pd.DataFrame | None
    now: datetime


@dataclass(frozen=True, slots=True)
class Watched:
    """What to repair and what to tell."""

    repairs: tuple[RepairRequest, ...]
    findings: tuple[Finding, ...]


def watch(fleet: Fleet, *, level2: Collection[str] = ()) -> Watched:
    """Everything that a tick shows beside the edge.

    Args:
        fleet: The tick.
        level2: Level-2 actions that the operator has switched on.
    """
    repairs, findings = [], [*missed_backups(fleet), *offline_agents(fleet), *addresses(fleet)]
    for row in [] if fleet.operations is None else rows_of(fleet.operations):
        if unreadable_reason(row) is not None:
            findings.append(_unreadable(row))
            continue
        kind = _kind_of(row, fleet.now)
        if kind is None:
            continue
        if (action := RULES[kind].asks_for(level2)) is not None:
            repairs.append(
                RepairRequest(_vmid(row), action, target=str(row["id"]), reason=_why(row))
            )
        else:
            findings.append(_operation(row, kind))
    for row in suspended_running(fleet):
        if (action := RULES[Kind.SUSPENDED_RUNNING].asks_for(level2)) is not None:
            reason = "billing is suspended, the server runs"
            repairs.append(RepairRequest(int(row["vmid"]), action, reason=reason))
        else:
            findings.append(_suspended(row))
    return Watched(tuple(repairs), tuple(findings))


def with_jobs(
    operations: pd.DataFrame,
    states: Mapping[tuple[str, str], JobState],
    *,
    queued: Mapping[str, int],
    unclear: Mapping[tuple[str, str], str],
) -> pd.DataFrame:
    """Operations with the state of their queue jobs.

    One that names no job may still have one: whoever made it could have ended between putting the
    job into the queue and writing down its identifier. Only where every job of the queue is named
    by another open operation is there none. What cannot be read has the state ``unknown``, and
    ``unreadable`` says why.

    Args:
        operations: Frame with ``OPEN_OPERATION_COLUMNS``.
        states: By queue and job identifier.
        queued: Jobs in each queue that are not done, read together with the states; a queue that
            could not be seen is absent.
        unclear: Why the state of a job is unknown.
    """
    named = Counter(queue for (queue, _), state in states.items() if state in QUEUED)

    def joined(row: dict[str, Any]) -> dict[str, Any]:
        queue, job = row["queue"], row["jobId"]
        why = unreadable_reason(row)
        if why is None and job is None and queue not in queued:
            why = f"queue {queue!r:.60} cannot be seen"
        why = why or unclear.get((queue, job))
        if why is not None:
            return {**row, "job": JobState.UNKNOWN.value, UNREADABLE: why}
        if job is not None:
            return {**row, "job": states[(queue, job)].value}
        state = JobState.UNKNOWN if queued[queue] > named[queue] else JobState.NONE
        return {**row, "job": state.value}

    return operations_frame(map(joined, rows_of(operations)))


def job_is_dead(row: dict[str, Any], now: datetime) -> bool:
    """Whether the queue job was dead at two reads at least 60 s apart."""
    since = times.age_seconds(row["deadSince"], now)
    return (
        JobState(row["job"]).dead
        and since is not None
        and since >= DEAD_SECONDS
        and int(row["deadReads"]) >= DEAD_READS
    )


def busy_servers(operations: pd.DataFrame, now: datetime) -> set[Any]:
    """Servers with an open operation that is not known to be dead: somebody may work on them.

    Such a server restarts or is restored: its agent may be silent, and it must not be stopped.
    """
    return {
        row["vmid"]
        for row in rows_of(operations)
        if not pd.isna(row["vmid"]) and not job_is_dead(row, now)
    }


def is_stale(row: dict[str, Any], now: datetime) -> bool:
    """Whether a running operation holds its lock though nobody works on it."""
    return row["status"] == "running" and lock_expired(row, now) and job_is_dead(row, now)


def lock_expired(row: dict[str, Any], now: datetime) -> bool:
    """Whether heartbeat or lease has expired; an operation that has neither never expires."""
    heartbeat = times.age_seconds(row["heartbeatAt"], now)
    lease = times.age_seconds(row["leaseExpiresAt"], now)
    return (heartbeat is not None and heartbeat > HEARTBEAT_SECONDS) or (
        lease is not None and lease > 0
    )


def is_stuck(row: dict[str, Any], now: datetime) -> bool:
    """Whether a create operation was queued, never moved, and its job is dead."""
    return _queued_long(row, now) and job_is_dead(row, now)


def waits_long(row: dict[str, Any], now: datetime) -> bool:
    """Whether a create operation was queued for long and its job is alive and not worked on."""
    state = JobState(row["job"])
    return _queued_long(row, now) and not state.dead and state is not JobState.ACTIVE


def _queued_long(row: dict[str, Any], now: datetime) -> bool:
    moved = [
        age
        for column in ("createdAt", "progressAt", "heartbeatAt")
        if (age := times.age_seconds(row[column], now)) is not None
    ]
    return (
        row["type"] == "create"
        and row["status"] == "queued"
        and bool(moved)
        and min(moved) > STUCK_SECONDS
    )


def offline_agents(fleet: Fleet) -> Iterable[Finding]:
    """Servers whose container runs while their agent does not answer, and nobody works on them."""
    if fleet.containers is None or fleet.agents is None or fleet.operations is None:
        return
    silent = fleet.agents[
        fleet.agents["answer"].isin([Answer.SILENT.value, Answer.UNHEALTHY.value])
    ]
    running = set(fleet.containers.loc[fleet.containers["status"] == "running", "vmid"])
    locked = set(fleet.containers.loc[fleet.containers["lock"].notna(), "vmid"])
    busy = busy_servers(fleet.operations, fleet.now)
    quiet = _active(fleet.payloads) & running - locked - busy
    for row in rows_of(silent[silent["vmid"].isin(quiet)]):
        vmid = int(row["vmid"])
        yield _finding(
            Kind.AGENT_OFFLINE,
            vmid,
            f"Server {vmid}: agent offline",
            f"The container runs, the agent at {row['address']} does not answer"
            f" ({row['detail'] or row['answer']}). Restarting it is yours to decide.",
            (CONTAINERS, AGENTS, OPERATIONS, PAYLOADS),
        )


def addresses(fleet: Fleet) -> Iterable[Finding]:
    """Servers whose agent may not be called."""
    if fleet.agents is None:
        return
    refused = fleet.agents[fleet.agents["answer"] == Answer.REFUSED.value]
    for row in rows_of(refused[refused["vmid"].isin(_active(fleet.payloads))]):
        vmid = int(row["vmid"])
        yield _finding(
            Kind.AGENT_ADDRESS,
            vmid,
            f"Server {vmid}: its agent's address is refused",
            f"{row['detail']}. The agent was not called. Mend the row's ip, or add the network to"
            " ZLH_AGENT_NETWORKS if it is yours.",
            (AGENTS, PAYLOADS),
        )


def suspended_running(fleet: Fleet) -> Iterable[dict[str, Any]]:
    """The platform's rows of servers that are suspended for billing and run all the same.

    Not those in maintenance, nor those that somebody works on, nor those whose container is being
    backed up or moved just now.
    """
    if fleet.containers is None or fleet.operations is None:
        return
    rows = readable(fleet.payloads)
    rows = rows[
        (rows["ctype"] == "game")
        & (rows["billingStatus"] == "suspended")
        & rows["lifecycle"].isin(["active", "suspended"])
        & rows["maintenanceReason"].isna()
    ]
    free = (fleet.containers["status"] == "running") & fleet.containers["lock"].isna()
    running = set(fleet.containers.loc[free, "vmid"]) - busy_servers(fleet.operations, fleet.now)
    states = {}
    if fleet.agents is not None:
        states = dict(zip(fleet.agents["vmid"], fleet.agents["state"], strict=True))
    for row in rows_of(rows[rows["vmid"].isin(running)]):
        if states.get(row["vmid"]) not in STOPPED_STATES:
            yield row


def missed_backups(fleet: Fleet) -> Iterable[Finding]:
    """Servers whose last backup is older than their interval allows."""
    rows = readable(fleet.payloads)
    asked = pd.to_numeric(rows["backupEveryHours"], errors="coerce")
    base = rows["lastBackupAt"].where(rows["lastBackupAt"].notna(), rows["createdAt"])
    age = times.ages(base, fleet.now)
    late = (asked > 0) & (age > asked * 3600 + BACKUP_GRACE_SECONDS)
    late &= rows["vmid"].isin(_active(rows))
    for row, hours, seconds in zip(rows_of(rows[late]), asked[late], age[late], strict=True):
        vmid = int(row["vmid"])
        what = "the last one was" if isinstance(row["lastBackupAt"], str) else "created"
        yield _finding(
            Kind.BACKUP_MISSED,
            vmid,
            f"Server {vmid}: backup missed",
            f"One is wanted every {hours:g} h, {what} {times.words(seconds)} ago. Look at the"
            " backup jobs; nothing is repaired here.",
            (PAYLOADS,),
        )


def _unreadable(row: dict[str, Any]) -> Finding:
    reason = unreadable_reason(row)
    return Finding(
        incident=f"{Kind.INVALID.value}:operation:{row['id'] or reason}",
        severity=RULES[Kind.INVALID].message,
        title=f"Operation {row['id'] or '?'}: it cannot be judged",
        text=f"{reason}. It is left as it is until the platform's row is mended.",
        vmid=_vmid(row),
        sources=(OPERATIONS,),
    )


def _vmid(row: dict[str, Any]) -> int | None:
    """Of an operation, where it has one."""
    return None if pd.isna(row["vmid"]) else int(row["vmid"])


def _kind_of(row: dict[str, Any], now: datetime) -> Kind | None:
    """What is wrong with an open operation."""
    if is_stale(row, now):
        return Kind.STALE_OPERATION
    if is_stuck(row, now):
        return Kind.STUCK_PROVISIONING
    return Kind.PROVISIONING_WAITS if waits_long(row, now) else None


def _operation(row: dict[str, Any], kind: Kind) -> Finding:
    rule = RULES[kind]
    return Finding(
        incident=f"{kind.value}:{row['id']}",
        severity=rule.message,
        title=f"{_server(row)}: {kind.value.replace('_', ' ')}",
        text=f"Operation {row['id']} {_what(row, kind)}",
        action=rule.action,
        vmid=_vmid(row),
        sources=(OPERATIONS,),
    )


def _what(row: dict[str, Any], kind: Kind) -> str:
    if kind is Kind.PROVISIONING_WAITS:
        where = _where(row)
        return f"has been queued for over 15 minutes; {where}. Is the worker running?"
    return f"is dead: {_why(row)}. Nothing is repaired: the policy only tells."


def _why(row: dict[str, Any]) -> str:
    return f"{row['type']} operation {row['status']}, its queue job is {row['job']}"


def _where(row: dict[str, Any]) -> str:
    if JobState(row["job"]) is JobState.UNKNOWN:
        return f"it names no job, and one of those in queue {row['queue']} may be its own"
    return f"its job in queue {row['queue']} is {row['job']}"


def _suspended(row: dict[str, Any]) -> Finding:
    vmid = int(row["vmid"])
    action = Action.STOP_SUSPENDED_WORKLOAD
    return _finding(
        Kind.SUSPENDED_RUNNING,
        vmid,
        f"Server {vmid}: billing suspended, still running",
        f"Recommended: stop it. {action.value} is level {action.level} and not switched on"
        f" (ZLH_LEVEL2_ACTIONS={action.value} lets the loop do it).",
        (CONTAINERS, OPERATIONS, PAYLOADS),
    )


def _finding(kind: Kind, vmid: int, title: str, text: str, sources: tuple[str, ...]) -> Finding:
    rule = RULES[kind]
    return Finding(
        incident=f"{kind.value}:{vmid}",
        severity=rule.message,
        title=title,
        text=text,
        action=rule.action,
        vmid=vmid,
        sources=sources,
    )


def _server(row: dict[str, Any]) -> str:
    return "A new server" if pd.isna(row["vmid"]) else f"Server {int(row['vmid'])}"


def _active(payloads: pd.DataFrame) -> set[Any]:
    """Servers that should be up and are not locked."""
    rows = readable(payloads)
    rows = rows[
        (rows["lifecycle"] == "active")
        & rows["billingStatus"].isin(["active", "past_due"])
        & rows["maintenanceReason"].isna()
    ]
    return set(rows["vmid"])
