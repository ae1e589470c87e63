"""A pure model of the platform: which servers there are, and whether each may be repaired."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

Key = tuple[str, str, str]
"""Surface, name and type."""

MASS_FRACTION, MASS_SERVERS = 0.2, 5
"""Above both, a DNS surface is not written to without the operator's approval."""


@dataclass
class ServerModel:
    """One server and what stands in the way of its repair."""

    vmid: int
    wanted: dict[Key, str]
    guarded: bool = False
    paused: bool = False


@dataclass
class Model:
    """All servers, and what holds for all of them."""

    servers: dict[int, ServerModel]
    paused: bool = False
    paused_surfaces: set[str] = field(default_factory=set)
    approved: set[str] = field(default_factory=set)
    """Surfaces whose mass drift the operator has approved, each good for one batch."""

    def owner(self, key: Key) -> ServerModel | None:
        """The server that asks for a record."""
        return next((s for s in self.servers.values() if key in s.wanted), None)

    def may_write(self, key: Key) -> bool:
        """Whether anything at all may be written at a name now."""
        owner = self.owner(key)
        return (
            owner is not None
            and not self.paused
            and not owner.guarded
            and not owner.paused
            and key[0] not in self.paused_surfaces
        )

    def mass_drift(self, edge: Mapping[Key, Sequence[str]]) -> set[str]:
        """DNS surfaces on which so many servers drift that nothing may be written unasked."""
        free = [server for server in self.servers.values() if not server.guarded]
        found = set()
        for surface in ("cloudflare", "technitium"):
            drifting = sum(_drifts(server, surface, edge) for server in free)
            if drifting > MASS_SERVERS and drifting > MASS_FRACTION * len(free):
                found.add(surface)
        return found


def _drifts(server: ServerModel, surface: str, edge: Mapping[Key, Sequence[str]]) -> bool:
    """Whether a surface lacks one of a server's records, or has it otherwise."""
    there = {key: edge.get(key, ()) for key in server.wanted if key[0] == surface}
    return any(len(c) <= 1 and list(c) != [server.wanted[key]] for key, c in there.items())
