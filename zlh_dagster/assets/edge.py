"""What is true: one complete listing of each surface."""

from collections.abc import Iterator
from typing import Any

import dagster as dg

from zlh_dagster.assets.platform import IO_MANAGER, OWNERS
from zlh_dagster.assets.results import observed, observed_check
from zlh_dagster.core.model import Surface
from zlh_dagster.core.policy import SOURCE_OF
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
        check_specs=[observed_check(SOURCE_OF[surface])],
        description=(
            f"{_DESCRIPTIONS[surface]}\n\nA listing that fails or cannot be shown to be complete"
            " is `unobserved`, and nothing on this surface is drift at that tick."
        ),
    )
    def listing(
        context: dg.AssetExecutionContext, services: dg.ResourceParam[Services]
    ) -> Iterator[Any]:
        snapshot = observe_surface(services, surface, context.run.run_id)
        yield from observed(context, snapshot, _COLUMNS)

    return listing


OBSERVED_EDGE = [observed_asset(surface) for surface in Surface]
