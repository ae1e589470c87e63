"""What one sandbox pretends to be: its zone, tokens and edge addresses."""

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class SandboxConfig:
    """Names, addresses and pretend secrets of the edge.

    Attributes:
        zone: Zone that both DNS surfaces hold.
        zone_id: Cloudflare's identifier of that zone.
        cloudflare_token: Bearer token that the Cloudflare surface accepts.
        cloudflare_edge_ip: Address in the public A records.
        technitium_token: Token that the Technitium surface accepts.
        technitium_bearer: Whether it reads the bearer header, as it does since version 15; before
            that only the ``token`` field counts.
        velocity_edge_ip: Internal address for Minecraft servers.
        traefik_edge_ip: Internal address for every other game.
        zpack_secret: Secret of the bridge; callers send its SHA-256 hex digest.
        velocity_lists_addresses: Older bridge plugins list names alone.
        proxmox_node: The one node of the pretend Proxmox.
        proxmox_token_id: Identifier of the API token that it accepts, with user and realm.
        proxmox_token_secret: Secret of that token.
        proxmox_refusal_seconds: What Proxmox waits before it refuses a token; really 3 seconds.
        cloudflare_may_edit: Whether that token may do more than read the zone.
        technitium_may_modify: The same of the user to whom Technitium's token belongs.
        proxmox_may_audit: Whether Proxmox's token may see containers; without, the list is empty.
    """

    zone: str = "example.gg"
    zone_id: str = "5a4d8b0f6e1c47d29b3e7f8a10c2d4e6"
    cloudflare_token: str = "sandbox-cloudflare-token"  # noqa: S105 - opens the sandbox alone
    cloudflare_edge_ip: str = "203.0.113.10"
    technitium_token: str = "sandbox-technitium-token"  # noqa: S105 - opens the sandbox alone
    technitium_bearer: bool = True
    velocity_edge_ip: str = "10.70.0.2"
    traefik_edge_ip: str = "10.70.0.3"
    zpack_secret: str = "sandbox-zpack-secret"  # noqa: S105 - opens the sandbox alone
    velocity_lists_addresses: bool = True
    proxmox_node: str = "pve1"
    proxmox_token_id: str = "zlh@pve!controller"  # noqa: S105 - opens the sandbox alone
    proxmox_token_secret: str = "sandbox-proxmox-secret"  # noqa: S105 - opens the sandbox alone
    proxmox_refusal_seconds: float = 0.0
    cloudflare_may_edit: bool = True
    technitium_may_modify: bool = True
    proxmox_may_audit: bool = True
