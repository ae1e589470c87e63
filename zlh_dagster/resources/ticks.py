"""The snapshots of one tick: taken and kept, and read back together."""

from collections.abc import Callable, Iterator
from contextlib import suppress

from zlh_dagster.core.judge import Tick
from zlh_dagster.core.model import UNREADABLE
from zlh_dagster.core.policy import AGENTS, CONTAINERS, OPERATIONS, PAYLOADS, SOURCE_OF
from zlh_dagster.core.snapshot import Outcome, Snapshot
from zlh_dagster.resources.database import DatabaseError
from zlh_dagster.resources.observe import DESIRED_EDGE, observe_all
from zlh_dagster.resources.redis import RedisUnavailable
from zlh_dagster.resources.services import Services
from zlh_dagster.resources.snapshots import SnapshotMissing, SnapshotStore

_LOOKED_AT = 5
"""Ticks looked at for a complete one: one under way, and a few that were cut off."""


def take_tick(
    services: Services, tick: str, *, warn: Callable[[str], None]
) -> Iterator[tuple[Snapshot, str]]:
    """Reads every source once and keeps what it saw; changes nothing.

    Args:
        services: The outside systems.
        tick: Identifier of the tick.
        warn: Told what was not seen.

    Yields:
        Each snapshot, and the path of its file.
    """
    _recall_pauses(services, warn)
    for snapshot in observe_all(services, tick).snapshots:
        if snapshot.outcome is Outcome.UNOBSERVED:
            warn(f"{snapshot.source} is unobserved: {snapshot.reason}")
        yield snapshot, services.snapshots.write(snapshot)


def _recall_pauses(services: Services, warn: Callable[[str], None]) -> None:
    """Shows the pauses again after Redis lost its data, before a repair has to ask for them."""
    try:
        recalled = services.gate.recall()
    except (RedisUnavailable, DatabaseError) as error:
        warn(str(error))
        return
    if recalled:
        warn(f"Redis did not know of these pauses, they hold now: {', '.join(recalled)}")


def newest_tick(store: SnapshotStore) -> Tick | None:
    """The newest complete tick, or ``None``: the last one may be under way, or was cut off."""
    for tick in store.newest_first()[:_LOOKED_AT]:
        with suppress(SnapshotMissing):
            return load_tick(store, tick)
    return None


def load_tick(store: SnapshotStore, tick: str) -> Tick:
    """All snapshots of one tick.

    Raises:
        SnapshotMissing: If one of them is not there, for then the tick is not complete, or if it is
            one of an earlier version.
    """
    payloads = store.read(PAYLOADS, tick)
    if UNREADABLE not in payloads.rows:
        raise SnapshotMissing(f"tick {tick} was observed by an earlier version")
    return Tick(
        payloads=payloads,
        desired=store.read(DESIRED_EDGE, tick),
        surfaces={surface: store.read(source, tick) for surface, source in SOURCE_OF.items()},
        containers=store.read(CONTAINERS, tick),
        agents=store.read(AGENTS, tick),
        operations=store.read(OPERATIONS, tick),
    )
