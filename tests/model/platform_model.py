"""A pure model of the platform: which servers there are, and whether each may be repaired."""

from dataclasses import dataclass, field

Key = tuple[str, str, str]
"""Surface, name and type."""


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
