"""Writes a pretend fleet of servers into a platform database."""

import random
from collections.abc import Iterator
from datetime import datetime, timedelta, timezone
from typing import Any

import sqlalchemy as sa

from zlh_dagster.sandbox.games import GAMES, MINECRAFT, game_named
from zlh_dagster.schema.tables import container_instance, platform_metadata

FIRST_GAME_VMID = 5000
DEV_VMID = 6000

_CHUNK = 5000
_OTHER_GAME_EVERY = 5
_OTHER_GAMES = (*(name for name in GAMES if name != MINECRAFT), "factorio")
_PREFIXES = {MINECRAFT: "mc", "projectzomboid": "pz"}
_VARIANTS = ("vanilla", "paper", "fabric", "forge", "neoforge")
_VERSIONS = ("1.20.1", "1.20.4", "1.21.1", "1.21.4")


def create_platform_tables(engine: sa.Engine) -> None:
    """Create the tables of the platform, those that are not there yet."""
    platform_metadata.create_all(engine)


def is_empty(engine: sa.Engine) -> bool:
    """Whether the platform has no server at all."""
    with engine.connect() as connection:
        return connection.execute(sa.select(container_instance.c.vmid).limit(1)).first() is None


def write_fleet(
    engine: sa.Engine,
    *,
    servers: int,
    zone: str = "example.gg",
    seed: int = 1,
    loopback: bool = False,
) -> int:
    """Write game servers and one dev container.

    Args:
        engine: Database with the platform's tables.
        servers: How many game servers; from five on about one in five is not Minecraft.
        zone: Zone of the fleet; every hundredth hostname is a full name in it.
        seed: Same seed, same fleet, but for its timestamps.
        loopback: Addresses in 127.0.0.0/8, where the agents of a running sandbox can be reached,
            in place of such as a platform has.

    Returns:
        How many containers were written.
    """
    chance = random.Random(seed)  # noqa: S311 - same seed, same fleet; nothing secret comes of it
    rows = _containers(servers, zone, chance, 127 if loopback else 10)
    written = 0
    with engine.begin() as connection:
        while chunk := [row for _, row in zip(range(_CHUNK), rows, strict=False)]:
            connection.execute(sa.insert(container_instance), chunk)
            written += len(chunk)
    return written


def game_vmid(index: int) -> int:
    """The VMID of the nth game server; large fleets step over the dev container."""
    vmid = FIRST_GAME_VMID + index
    return vmid if vmid < DEV_VMID else vmid + 1


def _containers(
    servers: int, zone: str, chance: random.Random, network: int
) -> Iterator[dict[str, Any]]:
    now = datetime.now(timezone.utc)
    others = 0
    for index in range(servers):
        game = MINECRAFT
        if servers >= _OTHER_GAME_EVERY and index % _OTHER_GAME_EVERY == _OTHER_GAME_EVERY - 1:
            game = _OTHER_GAMES[others % len(_OTHER_GAMES)]
            others += 1
        yield {
            **_game_server(index, game, zone, chance, now),
            "ip": f"{network}.{_host(index)}",
        }
    yield {
        **_container(DEV_VMID, f"dev-{DEV_VMID}", "dev", now, chance),
        "ip": f"{network}.59.0.1",
        "allocatedPorts": None,
        "payload": {"runtime": "node", "version": "22"},
    }


def _game_server(
    index: int, game: str, zone: str, chance: random.Random, now: datetime
) -> dict[str, Any]:
    vmid = game_vmid(index)
    label = f"{_PREFIXES.get(game, game)}-{vmid}"
    minecraft = game == MINECRAFT
    payload: dict[str, Any] = {
        "game": game,
        "variant": chance.choice(_VARIANTS) if minecraft else "vanilla",
        "version": chance.choice(_VERSIONS) if minecraft else "latest",
    }
    if index == 0:
        payload["disposable"] = True
    return {
        **_container(vmid, label, "game", now, chance),
        "hostname": f"{label}.{zone}" if index % 100 == 99 else label,
        "allocatedPorts": {"game": [game_named(game).port]},
        "payload": payload,
    }


def _host(index: int) -> str:
    """The last three parts of the nth game server's address."""
    third, fourth = divmod(index, 250)
    second, third = divmod(third, 250)
    return f"{60 + second}.{third}.{fourth + 1}"


def _container(
    vmid: int, hostname: str, ctype: str, now: datetime, chance: random.Random
) -> dict[str, Any]:
    made = now - timedelta(days=chance.randint(2, 400))
    return {
        "vmid": vmid,
        "customerId": f"customer-{chance.randint(1, 10_000)}",
        "ctype": ctype,
        "hostname": hostname,
        "agentState": "running",
        "agentLastSeen": now - timedelta(seconds=chance.randint(1, 30)),
        "lifecycle": "active",
        "billingStatus": "active",
        "maintenanceReason": None,
        "lastBackupAt": now - timedelta(hours=chance.randint(1, 12)),
        "backupEveryHours": 24,
        "createdAt": made,
        "updatedAt": made,
    }
