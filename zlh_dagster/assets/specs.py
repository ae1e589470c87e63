"""The assets of a tick as a Dagster user sees them: what each is, and its check."""

import dagster as dg

from zlh_dagster.core.model import Surface
from zlh_dagster.core.policy import AGENTS, CONTAINERS, OPERATIONS, PAYLOADS, SOURCE_OF
from zlh_dagster.resources.observe import DESIRED_EDGE

OWNERS = ["team:operator"]
OBSERVED, ROWS_USABLE = "observed", "rows_usable"

_COLUMNS = {
    PAYLOADS: ("vmid", "hostname", "ip", "lifecycle", "billingStatus"),
    DESIRED_EDGE: ("vmid", "surface", "type", "name", "content", "guard"),
    **dict.fromkeys(SOURCE_OF.values(), ("type", "name", "content", "ttl", "proxied", "disabled")),
    CONTAINERS: ("vmid", "name", "status", "lock"),
    AGENTS: ("vmid", "address", "answer", "state", "detail"),
    OPERATIONS: ("id", "vmid", "type", "status", "job", "deadReads", "heartbeatAt"),
}
_UNOBSERVED = (
    "A listing that fails or cannot be shown to be complete is `unobserved`, and nothing on this"
    " surface is drift at that tick."
)


def columns_of(asset: str) -> tuple[str, ...]:
    """The columns of an asset that are worth showing in a table."""
    return _COLUMNS[asset]


def _spec(
    name: str,
    kinds: set[str],
    *description: str,
    group: str = "observed",
    deps: tuple[str, ...] = (),
) -> dg.AssetSpec:
    return dg.AssetSpec(
        name,
        deps=deps,
        group_name=group,
        kinds=kinds,
        owners=OWNERS,
        description="\n\n".join(description),
    )


TICK_ASSETS = (
    _spec(
        PAYLOADS,
        {"sql"},
        "Servers as the platform database has them.",
        "One row for each container, JSON columns as text. An unreadable database is `unobserved`:"
        " nothing is compared then.",
        group="desired",
    ),
    _spec(
        DESIRED_EDGE,
        {"pandas"},
        "DNS records and registrations that should exist.",
        "One row for each record of each game server on each surface that is on, with the reason"
        " why its server must not be touched, where there is one.",
        group="desired",
        deps=(PAYLOADS,),
    ),
    _spec(
        SOURCE_OF[Surface.CLOUDFLARE],
        {"cloudflare"},
        "DNS records of the public zone at Cloudflare.",
        _UNOBSERVED,
    ),
    _spec(
        SOURCE_OF[Surface.TECHNITIUM],
        {"technitium"},
        "DNS records of the internal zone at Technitium.",
        _UNOBSERVED,
    ),
    _spec(
        SOURCE_OF[Surface.VELOCITY],
        {"velocity"},
        "Backends that the Velocity proxy knows, from its bridge plugin.",
        _UNOBSERVED,
    ),
    _spec(
        CONTAINERS,
        {"proxmox"},
        "Containers of the Proxmox node, in one listing.",
        "An empty list, or a node that knows no status, is `unobserved`: never taken for stopped.",
    ),
    _spec(
        AGENTS,
        {"http"},
        "Whether the agent in each container answers.",
        "Asked all at once with a bounded number of connections; an address outside the allowed"
        " networks is never called. Above `ZLH_AGENT_SHARD_SIZE` these are the answers of"
        " `agent_shards`.",
        deps=(PAYLOADS, "agent_shards"),
    ),
    _spec(
        OPERATIONS,
        {"sql", "redis"},
        "Open operations of the platform, with the state of their queue jobs.",
        "Job states are read from BullMQ's keys in one transaction and never written.",
    ),
)
"""Every asset that a tick materializes."""

TICK_CHECKS = (
    *(
        dg.AssetCheckSpec(
            OBSERVED,
            asset=source,
            description="The source was read whole at this tick, or is switched off.",
        )
        for source in _COLUMNS
        if source != DESIRED_EDGE
    ),
    dg.AssetCheckSpec(
        ROWS_USABLE, asset=DESIRED_EDGE, description="Every game server's row could be used."
    ),
)
