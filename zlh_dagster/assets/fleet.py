"""What is true beside the edge: containers, their agents, and operations in the queues."""

from collections.abc import Iterator
from typing import Any

import dagster as dg

from zlh_dagster.assets.platform import IO_MANAGER, OWNERS
from zlh_dagster.assets.results import observed, observed_check
from zlh_dagster.core.policy import AGENTS, CONTAINERS, OPERATIONS
from zlh_dagster.core.snapshot import Snapshot
from zlh_dagster.resources.observe import observe_agents, observe_containers, observe_operations
from zlh_dagster.resources.services import Services

_CONTAINERS = ("vmid", "name", "status", "lock")
_AGENTS = ("vmid", "address", "answer", "state", "detail")
_OPERATIONS = ("id", "vmid", "type", "status", "job", "deadReads", "heartbeatAt")


@dg.asset(
    group_name="observed",
    kinds={"proxmox"},
    owners=OWNERS,
    io_manager_key=IO_MANAGER,
    check_specs=[observed_check(CONTAINERS)],
)
def containers(
    context: dg.AssetExecutionContext, services: dg.ResourceParam[Services]
) -> Iterator[Any]:
    """Containers of the Proxmox node, in one listing.

    An empty list, or a node that knows no status, is `unobserved`: never taken for stopped.
    """
    yield from observed(context, observe_containers(services, context.run.run_id), _CONTAINERS)


@dg.asset(
    group_name="observed",
    kinds={"http"},
    owners=OWNERS,
    io_manager_key=IO_MANAGER,
    check_specs=[observed_check(AGENTS)],
)
def agents(
    context: dg.AssetExecutionContext,
    services: dg.ResourceParam[Services],
    persisted_payloads: Snapshot,
) -> Iterator[Any]:
    """Whether the agent in each container answers.

    Asked all at once with a bounded number of connections; an address outside the allowed
    networks is never called.
    """
    yield from observed(context, observe_agents(services, persisted_payloads), _AGENTS)


@dg.asset(
    group_name="observed",
    kinds={"sql", "redis"},
    owners=OWNERS,
    io_manager_key=IO_MANAGER,
    check_specs=[observed_check(OPERATIONS)],
)
def operations(
    context: dg.AssetExecutionContext, services: dg.ResourceParam[Services]
) -> Iterator[Any]:
    """Open operations of the platform, with the state of their queue jobs.

    Job states are read from BullMQ's keys in one transaction and never written.
    """
    yield from observed(context, observe_operations(services, context.run.run_id), _OPERATIONS)
