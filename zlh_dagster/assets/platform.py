"""What should be true: the platform's rows, and the records that follow from them."""

from collections.abc import Iterator
from typing import Any

import dagster as dg

from zlh_dagster.assets.results import derived, observed, observed_check, rows_check
from zlh_dagster.core.policy import PAYLOADS
from zlh_dagster.core.snapshot import Snapshot
from zlh_dagster.resources.database import DatabaseError
from zlh_dagster.resources.observe import DESIRED_EDGE, derive_desired, observe_payloads
from zlh_dagster.resources.redis import RedisUnavailable
from zlh_dagster.resources.services import Services

OWNERS = ["team:operator"]
IO_MANAGER = "snapshots"
_PLATFORM_COLUMNS = ("vmid", "hostname", "ip", "lifecycle", "billingStatus")
_DESIRED_COLUMNS = ("vmid", "surface", "type", "name", "content", "guard")


@dg.asset(
    group_name="desired",
    kinds={"sql"},
    owners=OWNERS,
    io_manager_key=IO_MANAGER,
    check_specs=[observed_check(PAYLOADS)],
)
def persisted_payloads(
    context: dg.AssetExecutionContext, services: dg.ResourceParam[Services]
) -> Iterator[Any]:
    """Servers as the platform database has them.

    One row for each container, JSON columns as text. An unreadable database is `unobserved`:
    nothing is compared then.
    """
    snapshot = observe_payloads(services, context.run.run_id)
    if snapshot.observed:
        _recall_pauses(context, services)
    yield from observed(context, snapshot, _PLATFORM_COLUMNS)


@dg.asset(
    group_name="desired",
    kinds={"pandas"},
    owners=OWNERS,
    io_manager_key=IO_MANAGER,
    check_specs=[rows_check(DESIRED_EDGE)],
)
def desired_edge(
    context: dg.AssetExecutionContext,
    services: dg.ResourceParam[Services],
    persisted_payloads: Snapshot,
) -> Iterator[Any]:
    """DNS records and registrations that should exist.

    One row for each record of each game server on each surface that is on, with the reason why
    its server must not be touched, where there is one.
    """
    snapshot = derive_desired(services, persisted_payloads)
    yield from derived(context, snapshot, _DESIRED_COLUMNS)


def _recall_pauses(context: dg.AssetExecutionContext, services: Services) -> None:
    """Shows the pauses again after Redis lost its data, before a repair has to ask for them."""
    try:
        recalled = services.gate.recall()
    except (RedisUnavailable, DatabaseError) as error:
        context.log.warning(str(error))
        return
    if recalled:
        context.log.warning(f"Redis had lost its data; paused again: {', '.join(recalled)}")
