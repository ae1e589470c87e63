"""What is true: one complete listing of each surface."""

import dagster as dg

from zlh_dagster.assets.metadata import snapshot_metadata
from zlh_dagster.assets.platform import IO_MANAGER, OWNERS
from zlh_dagster.core.model import Surface
from zlh_dagster.core.policy import SOURCE_OF
from zlh_dagster.core.snapshot import Outcome, Snapshot
from zlh_dagster.resources.observe import observe_surface
from zlh_dagster.resources.services import Services

_COLUMNS = ("type", "name", "content", "ttl", "proxied", "disabled")
_DESCRIPTIONS = {
    Surface.CLOUDFLARE: "DNS records of the public zone at Cloudflare.",
    Surface.TECHNITIUM: "DNS records of the internal zone at Technitium.",
    Surface.VELOCITY: "Backends that the Velocity proxy knows, from its bridge plugin.",
}


def observed_asset(surface: Surface) -> dg.AssetsDefinition:
    """The observed asset of one surface.

    Args:
        surface: Which one; its name is the asset's kind.
    """

    @dg.asset(
        name=SOURCE_OF[surface],
        group_name="observed",
        kinds={surface.value},
        owners=OWNERS,
        io_manager_key=IO_MANAGER,
        description=(
            f"{_DESCRIPTIONS[surface]}\n\nA listing that fails or cannot be shown to be complete"
            " is `unobserved`, and nothing on this surface is drift at that tick."
        ),
    )
    def observed(
        context: dg.AssetExecutionContext, services: dg.ResourceParam[Services]
    ) -> dg.Output[Snapshot]:
        snapshot = observe_surface(services, surface, context.run.run_id)
        if snapshot.outcome is Outcome.UNOBSERVED:
            context.log.warning(f"unobserved: {snapshot.reason}")
        return dg.Output(snapshot, metadata=snapshot_metadata(snapshot, columns=_COLUMNS))

    return observed


OBSERVED_EDGE = [observed_asset(surface) for surface in Surface]
