"""What is wrong with the settings, in the words of the person who sets them."""

from collections.abc import Collection, Iterable
from difflib import get_close_matches

from pydantic_core import ErrorDetails

_TOGETHER = (
    ("cloudflare_api_token", "cloudflare_zone_id"),
    ("technitium_api_url", "technitium_api_token"),
    ("velocity_url", "zpack_secret"),
    ("proxmox_url", "proxmox_node", "proxmox_token_id", "proxmox_token_secret"),
)
"""Settings of which none is of use without the others."""

_NEEDED = {
    "Cloudflare": ("cloudflare_api_token", "zlh_zone", "cloudflare_edge_ip"),
    "Technitium": ("technitium_api_url", "zlh_zone", "velocity_edge_ip", "traefik_edge_ip"),
    "Velocity": ("velocity_url", "zlh_zone"),
}
"""What switches a surface on, and what it needs besides."""

_OURS = ("ZLH_", "CLOUDFLARE_", "TECHNITIUM_", "VELOCITY_", "PROXMOX_", "DISCORD_")
"""What the names of settings begin with."""

_ALIKE = 0.9
"""How alike two names are of which one is taken for a slip of the other, from 0 to 1."""


def misspelt(given: Iterable[str], known: Collection[str]) -> dict[str, str]:
    """Names that are nearly those of settings, and which each was meant to be."""
    meant = {}
    for name in sorted({name.upper() for name in given} - set(known)):
        near = get_close_matches(name, known, n=1, cutoff=_ALIKE)
        if near:
            meant[name] = near[0]
    return meant


def unknown(given: Iterable[str], known: Collection[str]) -> list[str]:
    """Names that begin like those of settings and are none."""
    return sorted(
        name for name in {n.upper() for n in given} - set(known) if name.startswith(_OURS)
    )


def told(detail: ErrorDetails) -> str:
    """A problem with the name of its setting, in the words of the person who sets it."""
    name = ".".join(str(part) for part in detail["loc"]).upper()
    message = detail["msg"].removeprefix("Value error, ").replace("Input should be", "must be")
    # "..., unable to parse string as an integer" is said of the same.
    message = message.partition(", unable to parse")[0].replace("valid integer", "whole number")
    return f"{name}: {message}" if name else message


def absent(given: set[str]) -> list[str]:
    """What is needed because of what is given, and is not given itself."""
    needed: dict[str, str] = {}
    for group in _TOGETHER:
        has = [name for name in group if name in given]
        needed |= {name: f"{has[0].upper()} is set" for name in group if has}
    for surface, (switch, *others) in _NEEDED.items():
        if switch in given:
            needed = dict.fromkeys(others, f"{surface} is configured") | needed
    if "zlh_dagster_database_url" in given:
        needed["zlh_deployment"] = (
            "ZLH_DAGSTER_DATABASE_URL is set; all machines of one deployment have the same"
        )
    return [
        f"{name.upper()}: is needed because {why}"
        for name, why in needed.items()
        if name not in given
    ]
