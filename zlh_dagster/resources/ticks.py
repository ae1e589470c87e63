"""The snapshots of one tick, read back together."""

from zlh_dagster.core.judge import Tick
from zlh_dagster.core.policy import AGENTS, CONTAINERS, OPERATIONS, PAYLOADS, SOURCE_OF
from zlh_dagster.resources.observe import DESIRED_EDGE
from zlh_dagster.resources.snapshots import SnapshotStore


def load_tick(store: SnapshotStore, tick: str) -> Tick:
    """All snapshots of one tick.

    Raises:
        SnapshotMissing: If one of them is not there: the tick is not complete.
    """
    return Tick(
        payloads=store.read(PAYLOADS, tick),
        desired=store.read(DESIRED_EDGE, tick),
        surfaces={surface: store.read(source, tick) for surface, source in SOURCE_OF.items()},
        containers=store.read(CONTAINERS, tick),
        agents=store.read(AGENTS, tick),
        operations=store.read(OPERATIONS, tick),
    )
