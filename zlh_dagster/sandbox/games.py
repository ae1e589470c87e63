"""The games that the pretend platform hosts, as the mission lists them."""

from collections.abc import Mapping
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Game:
    """How a game is announced in the DNS."""

    service: str
    protocol: str
    port: int


MINECRAFT = "minecraft"

ANY_OTHER_GAME = Game("game", "tcp", 25565)

GAMES: Mapping[str, Game] = {
    MINECRAFT: Game("minecraft", "tcp", 25565),
    "rust": Game("rust", "udp", 28015),
    "terraria": Game("terraria", "tcp", 7777),
    "projectzomboid": Game("projectzomboid", "udp", 16261),
    "valheim": Game("valheim", "udp", 2456),
    "palworld": Game("palworld", "udp", 8211),
}


def game_named(name: object) -> Game:
    """The game of that name, or what stands for every game that is not listed."""
    return GAMES.get(name, ANY_OTHER_GAME) if isinstance(name, str) else ANY_OTHER_GAME
