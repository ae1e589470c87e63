"""Taking one snapshot: a failure becomes an outcome, never an empty list."""

import logging
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from datetime import datetime, timezone
from typing import Protocol, cast

import pandas as pd

from zlh_dagster.core.desired import desired_edge
from zlh_dagster.core.fleet import Answer, agents_frame, containers_frame, operations_frame
from zlh_dagster.core.judge import INVALID, Tick
from zlh_dagster.core.model import Surface, records_frame
from zlh_dagster.core.policy import AGENTS, CONTAINERS, OPERATIONS, PAYLOADS, SOURCE_OF
from zlh_dagster.core.snapshot import Outcome, Snapshot
from zlh_dagster.resources.agents import probe
from zlh_dagster.resources.database import PAYLOAD_COLUMNS, DatabaseError
from zlh_dagster.resources.http import EdgeError, RateLimited
from zlh_dagster.resources.proxmox import Proxmox
from zlh_dagster.resources.redis import RedisUnavailable
from zlh_dagster.resources.services import Services
from zlh_dagster.resources.settings import SettingsError
from zlh_dagster.resources.shards import Shard, merge, shards_for, to_ask

DESIRED_EDGE = "desired_edge"
_log = logging.getLogger(__name__)


def observe_payloads(services: Services, tick: str) -> Snapshot:
    """The platform's rows, or why they could not be read."""
    return _timed(
        PAYLOADS,
        tick,
        services.read_payloads,
        pd.DataFrame(columns=list(PAYLOAD_COLUMNS)),
    )


def derive_desired(services: Services, payloads: Snapshot) -> Snapshot:
    """The records that should exist according to a snapshot of the platform's rows."""
    started = time.monotonic()
    desired = desired_edge(payloads.rows, services.settings.edge)
    return Snapshot(
        source=DESIRED_EDGE,
        tick=payloads.tick,
        taken_at=payloads.taken_at,
        outcome=payloads.outcome,
        reason=payloads.reason,
        rows=desired.records,
        seconds=time.monotonic() - started,
        extra={INVALID: desired.invalid.to_json(orient="records")},
    )


def observe_surface(
    services: Services, surface: Surface, tick: str, *, count: bool = True
) -> Snapshot:
    """One complete listing of a surface, or why there is none.

    Args:
        services: The outside systems.
        surface: Which.
        tick: Identifier of the tick.
        count: Whether a rate limit opens the surface's breaker: nothing is asked there until it
            ends.
    """
    source, nothing = SOURCE_OF[surface], records_frame([])
    client = services.surfaces.get(surface)
    if client is None:
        return _off(source, tick, nothing, f"{surface.value} is not configured")
    limited = _limited_until(services, surface)
    if limited:
        return Snapshot(source, tick, _now(), Outcome.UNOBSERVED, nothing, limited)

    def read() -> pd.DataFrame:
        try:
            return client.list_records()
        except RateLimited as error:
            if count:
                _note_limit(services, surface, error)
            raise

    return _timed(source, tick, read, nothing, lambda: client)


def observe_containers(services: Services, tick: str) -> Snapshot:
    """One listing of all containers, or why there is none."""
    nothing = containers_frame([])
    if not services.settings.proxmox_on:
        return _off(CONTAINERS, tick, nothing, "Proxmox is not configured")

    def client() -> Proxmox:
        return cast(Proxmox, services.proxmox)

    return _timed(CONTAINERS, tick, lambda: client().list_containers(), nothing, client)


def observe_agents(services: Services, payloads: Snapshot) -> Snapshot:
    """Whether the agent of each server that should be up answers."""
    settings, nothing = services.settings, agents_frame([])
    if not payloads.observed:
        return Snapshot(
            AGENTS,
            payloads.tick,
            _now(),
            Outcome.UNOBSERVED,
            nothing,
            f"the platform's rows were not read: {payloads.reason}",
        )
    if not settings.proxmox_on:
        reason = "without Proxmox nothing follows from an agent that is silent"
        return _off(AGENTS, payloads.tick, nothing, reason)
    rows = to_ask(payloads.rows)
    if shards_for(len(rows), settings.zlh_agent_shard_size):
        return _again(services, merge(services.agent_rounds, payloads.tick, now=_now()), rows)
    return _ask(services, AGENTS, payloads.tick, rows)


def _again(services: Services, merged: Snapshot, rows: pd.DataFrame) -> Snapshot:
    """A round's answers are a minute old: who was not well then is asked once more, now.

    As many as one shard has; the rest of a fleet that is not well as a whole is ``unknown``.
    """
    if not merged.observed:
        return merged
    answers = merged.rows
    unwell = answers["answer"] != Answer.HEALTHY.value
    if not unwell.any():
        return merged
    asked = rows[rows["vmid"].isin(answers.loc[unwell, "vmid"])]
    asked = asked.head(services.settings.zlh_agent_shard_size)
    now = _ask(services, AGENTS, merged.tick, asked)
    if not now.observed:
        return replace(now, requests=now.requests + merged.requests)
    rest = answers[unwell & ~answers["vmid"].isin(asked["vmid"])].assign(
        answer=Answer.UNKNOWN.value, detail="not asked again in this tick"
    )
    known = pd.concat([answers[~unwell], now.rows, rest], ignore_index=True)
    return replace(
        merged,
        rows=known.astype(answers.dtypes.to_dict()).sort_values("vmid", ignore_index=True),
        requests=merged.requests + now.requests,
    )


def observe_shard(services: Services, payloads: Snapshot, shard: Shard) -> Snapshot:
    """The same for one of several parts of the agents."""
    return _ask(services, shard.name, payloads.tick, shard.part(to_ask(payloads.rows)))


def _ask(services: Services, source: str, tick: str, rows: pd.DataFrame) -> Snapshot:
    settings = services.settings
    suspended = set(rows.loc[rows["billingStatus"] == "suspended", "vmid"])
    return _timed(
        source,
        tick,
        lambda: probe(
            list(zip(rows["vmid"], rows["ip"], strict=True)),
            port=settings.zlh_agent_port,
            networks=settings.agent_networks,
            with_state=suspended,
        ),
        agents_frame([]),
        requests=len(rows),
    )


def observe_operations(services: Services, tick: str, *, count: bool = True) -> Snapshot:
    """All open operations with the state of their queue jobs, or why they are not known.

    Args:
        services: The outside systems.
        tick: Identifier of the tick.
        count: Whether this counts as a tick's read of dead jobs.
    """
    read = services.count_operations if count else services.read_operations
    return _timed(OPERATIONS, tick, read, operations_frame([]))


def observe_all(services: Services, tick: str, *, count: bool = True) -> Tick:
    """One whole tick, its sources read side by side.

    Args:
        services: The outside systems.
        tick: Identifier of the tick.
        count: Whether it counts as a tick; whoever only looks changes nothing by it.
    """
    services.warm()
    with ThreadPoolExecutor(len(Surface) + 2, "observe") as pool:
        surfaces = {
            s: pool.submit(observe_surface, services, s, tick, count=count) for s in Surface
        }
        containers = pool.submit(observe_containers, services, tick)
        operations = pool.submit(observe_operations, services, tick, count=count)
        payloads = observe_payloads(services, tick)
        desired = derive_desired(services, payloads)
        agents = observe_agents(services, payloads)
    return Tick(
        payloads=payloads,
        desired=desired,
        surfaces={surface: taken.result() for surface, taken in surfaces.items()},
        containers=containers.result(),
        agents=agents,
        operations=operations.result(),
    )


class _Counting(Protocol):
    @property
    def requests(self) -> int: ...


def _timed(
    source: str,
    tick: str,
    read: Callable[[], pd.DataFrame],
    nothing: pd.DataFrame,
    client: Callable[[], _Counting] | None = None,
    *,
    requests: int = 1,
) -> Snapshot:
    taken_at, started = _now(), time.monotonic()
    reason, rows = "", nothing
    counting, before = None, 0
    try:
        # Made here: a client that cannot be made costs its own source alone.
        counting = client() if client else None
        before = counting.requests if counting else 0
        rows = read()
    except (EdgeError, DatabaseError, RedisUnavailable, SettingsError) as error:
        reason = str(error) or type(error).__name__
    except Exception as error:  # noqa: BLE001 - one source's bug costs that source, not the tick
        _log.exception("%s could not be read", source)
        reason = f"{source} could not be read: {type(error).__name__} (see the log)"
    asked = requests
    if client is not None:
        asked = counting.requests - before if counting else 0
    return Snapshot(
        source=source,
        tick=tick,
        taken_at=taken_at,
        outcome=Outcome.UNOBSERVED if reason else Outcome.OBSERVED,
        rows=rows,
        reason=reason,
        requests=asked,
        seconds=time.monotonic() - started,
    )


def _off(source: str, tick: str, nothing: pd.DataFrame, reason: str) -> Snapshot:
    return Snapshot(source, tick, _now(), Outcome.OFF, nothing, reason)


def _limited_until(services: Services, surface: Surface) -> str | None:
    try:
        return services.gate.limited(surface)
    except RedisUnavailable:
        return None


def _note_limit(services: Services, surface: Surface, error: RateLimited) -> None:
    try:
        services.gate.limit(surface, str(error), seconds=error.retry_after)
    except RedisUnavailable as lost:
        _log.warning("%s", lost)


def _now() -> datetime:
    return datetime.now(timezone.utc)
