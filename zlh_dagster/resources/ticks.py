"""The snapshots of one tick, read back together."""

from zlh_dagster.core.judge import Tick
from zlh_dagster.resources.observe import DESIRED_EDGE, PERSISTED_PAYLOADS, SOURCE_OF
from zlh_dagster.resources.snapshots import SnapshotStore


def load_tick(store: SnapshotStore, tick: str) -> Tick:
    """All snapshots of one tick.

    Raises:
        SnapshotMissing: If one of them is not there: the tick is not complete.
    """
    return Tick(
        payloads=store.read(PERSISTED_PAYLOADS, tick),
        desired=store.read(DESIRED_EDGE, tick),
        surfaces={surface: store.read(source, tick) for surface, source in SOURCE_OF.items()},
    )
