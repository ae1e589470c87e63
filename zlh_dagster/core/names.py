"""Names of a server on the edge: host names, SRV owners, ports.

The rules for host names are those of RFC 1123 section 2.1; the games' services and ports are the
platform's own convention.
"""

import ipaddress
import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

_LABEL = re.compile(r"[a-z0-9](?:[a-z0-9-]{0,61}[a-z0-9])?")
_MAX_NAME = 253
_BROADCAST = ipaddress.IPv4Address("255.255.255.255")
GAME_PORT_KEY = "game"


class InvalidServer(ValueError):
    """A platform row that cannot be published; the message says which field and why."""


@dataclass(frozen=True, slots=True)
class Service:
    """SRV service of a game: ``_service._protocol`` and the port used when none is allocated."""

    service: str
    protocol: str
    port: int

    @property
    def prefix(self) -> str:
        return f"_{self.service}._{self.protocol}"


_SERVICES = {
    "minecraft": Service("minecraft", "tcp", 25565),
    "rust": Service("rust", "udp", 28015),
    "terraria": Service("terraria", "tcp", 7777),
    "projectzomboid": Service("projectzomboid", "udp", 16261),
    "valheim": Service("valheim", "udp", 2456),
    "palworld": Service("palworld", "udp", 8211),
}
_OTHER = Service("game", "tcp", 25565)
MINECRAFT = "minecraft"
VELOCITY_BACKEND_PORT = 25565
"""Port of a Minecraft container as Velocity reaches it."""

SRV_PREFIXES = tuple(sorted({s.prefix for s in (*_SERVICES.values(), _OTHER)}))
"""Every SRV prefix that the platform publishes."""


def service_of(game: str) -> Service:
    """SRV service of a game; an unknown game is ``_game._tcp`` on 25565."""
    return _SERVICES.get(game, _OTHER)


def normalise_name(name: str) -> str:
    """A DNS name as it is compared: lower case, no trailing dot.

    Only ASCII has a case there (RFC 4343): the Kelvin sign, which Python lowers to ``k``, must not
    make one customer's host name equal to another's.
    """
    lowered = name.lower() if name.isascii() else name
    return lowered.removesuffix(".")


def srv_host(name: str) -> str:
    """The host of an SRV record's name: what follows service and protocol."""
    return name.split(".", 2)[2]


def host_label(hostname: object, zone: str) -> str:
    """The label of a server in the zone.

    Args:
        hostname: A label, or a full name in the zone, as a customer may have typed it.
        zone: Zone name, lower case.

    Raises:
        InvalidServer: If it is not one RFC 1123 label below the zone.
    """
    if not isinstance(hostname, str):
        raise InvalidServer(f"hostname: {hostname!r:.80} is not text")
    label = normalise_name(hostname).removesuffix(f".{zone}")
    if not _LABEL.fullmatch(label):
        raise InvalidServer(
            f"hostname: {hostname!r:.80} is not one label of letters, digits and hyphens in {zone}"
        )
    if len(label) + len(zone) + len("_projectzomboid._udp..") > _MAX_NAME:
        raise InvalidServer(f"hostname: {hostname!r:.80} is too long for zone {zone}")
    return label


def game_of(payload: object) -> str:
    """The game named by a payload, lower case.

    Raises:
        InvalidServer: If the payload is not an object with a text ``game``.
    """
    if not isinstance(payload, Mapping):
        raise InvalidServer("payload: is not a JSON object")
    game = payload.get("game")
    if not isinstance(game, str) or not game.strip():
        raise InvalidServer("payload: has no text 'game'")
    return game.strip().lower()


def game_port(allocated_ports: object, service: Service) -> int:
    """First of the allocated game ports, else the game's default.

    Raises:
        InvalidServer: If ports are given but are not what the contract describes; a port that
            cannot be read is never replaced by a guess.
    """
    if allocated_ports is None:
        return service.port
    if not isinstance(allocated_ports, Mapping):
        raise InvalidServer("allocatedPorts: is not a JSON object")
    ports: Any = allocated_ports.get(GAME_PORT_KEY)
    if ports is None or ports == []:
        return service.port
    if not isinstance(ports, list):
        raise InvalidServer(f"allocatedPorts: {GAME_PORT_KEY!r} is not a list")
    port = ports[0]
    if not isinstance(port, int) or isinstance(port, bool) or not 0 < port < 65536:
        raise InvalidServer(f"allocatedPorts: {port!r:.40} is not a port from 1 to 65535")
    return port


def container_address(ip: object) -> str:
    """The address at which Velocity reaches a container, in canonical form.

    Raises:
        InvalidServer: If it is not an address of a single host.
    """
    if not isinstance(ip, str) or not ip:
        raise InvalidServer("ip: the container has no address")
    try:
        address = ipaddress.ip_address(ip.strip())
    except ValueError as error:
        raise InvalidServer(f"ip: {ip!r:.60} is not an IP address") from error
    if isinstance(address, ipaddress.IPv6Address):
        if address.scope_id is not None:
            raise InvalidServer(f"ip: {ip!r:.60} has a zone index, which means nothing elsewhere")
        address = address.ipv4_mapped or address
    if (
        address.is_unspecified
        or address.is_multicast
        or address.is_link_local
        or address == _BROADCAST
    ):
        raise InvalidServer(f"ip: {ip!r:.60} is not an address of one host")
    return str(address)


def canonical_address(text: str) -> str:
    """An address as :func:`container_address` spells it; anything else in lower case.

    Java prints IPv6 addresses without abbreviation, so a proxy's spelling is not ours.
    """
    try:
        address = ipaddress.ip_address(text.strip())
    except ValueError:
        return text.strip().lower()
    if isinstance(address, ipaddress.IPv6Address) and address.scope_id is None:
        address = address.ipv4_mapped or address
    return str(address)


def backend_content(address: str, port: int) -> str:
    """``address:port`` of a backend; IPv6 addresses stand in brackets."""
    return f"[{address}]:{port}" if ":" in address else f"{address}:{port}"


def split_backend(content: str) -> tuple[str, int]:
    """Address and port of what :func:`backend_content` joined."""
    address, _, port = content.rpartition(":")
    return address.strip("[]"), int(port)


def srv_content(*, port: int, target: str, priority: int = 0, weight: int = 0) -> str:
    """Content of an SRV record as it is compared: ``priority weight port target``."""
    return f"{priority} {weight} {port} {normalise_name(target)}"


def split_srv(content: str) -> tuple[int, int, int, str]:
    """Priority, weight, port and target of what :func:`srv_content` joined.

    Raises:
        ValueError: If it is nothing of the kind.
    """
    priority, weight, port, target = content.split(" ", 3)
    return int(priority), int(weight), int(port), target
