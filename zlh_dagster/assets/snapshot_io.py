"""The IO manager of snapshots: assets hand a snapshot on, the store keeps it."""

import dagster as dg

from zlh_dagster.core.snapshot import Snapshot
from zlh_dagster.resources.services import Services
from zlh_dagster.resources.snapshots import SnapshotMissing


class SnapshotIOManager(dg.IOManager):
    """Keeps each asset's snapshot of each run as one Parquet file.

    Args:
        services: Knows where snapshots are kept.
    """

    def __init__(self, services: Services) -> None:
        self._services = services

    def handle_output(self, context: dg.OutputContext, obj: Snapshot) -> None:
        path = self._services.snapshots.write(obj)
        context.add_output_metadata({"path": dg.MetadataValue.path(path)})

    def load_input(self, context: dg.InputContext) -> Snapshot:
        """The upstream snapshot of the same run; one of another tick is never handed on."""
        run_id = context.step_context.run_id
        try:
            return self._services.snapshots.read(context.asset_key.path[-1], run_id)
        except SnapshotMissing as error:
            raise dg.Failure(
                description=f"{error}; materialize the whole job `observe`, not a single asset",
                allow_retries=False,
            ) from error
