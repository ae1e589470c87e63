"""Puts on the pretend edge what the platform published for its servers.

Computed here from the platform's rows alone, apart from the code that compares, so that an error
in one of the two shows as a difference.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import sqlalchemy as sa

from zlh_dagster.sandbox.cloudflare_records import CloudflareRecord, SrvData, new_record
from zlh_dagster.sandbox.containers import Container
from zlh_dagster.sandbox.edge import Edge
from zlh_dagster.sandbox.games import MINECRAFT, game_named
from zlh_dagster.sandbox.technitium_records import TechnitiumRecord, address_data, srv_data
from zlh_dagster.sandbox.velocity_api import Backend
from zlh_dagster.schema.tables import container_instance

_TTL = 60
_BACKEND_PORT = 25565
_FOREIGN_CONTAINERS = ((9000, "velocity"), (9001, "traefik"), (9002, "technitium"))


@dataclass(frozen=True, slots=True)
class PublishedServer:
    """What the edge needs to know of one game server."""

    label: str
    service: str
    port: int
    address: str | None
    minecraft: bool


def publish_database(edge: Edge, engine: sa.Engine) -> int:
    """Publish every game server of a database, and records that are nobody's.

    Every container of the database runs on the node, and its agent is well.

    Returns:
        How many game servers were published.
    """
    with edge.lock:
        publish_foreign(edge)
        edge.containers.put_all(_containers(engine))
        return publish_servers(edge, list(_game_servers(engine, edge.config.zone)))


def publish_servers(edge: Edge, servers: list[PublishedServer]) -> int:
    """Put the records and registrations of some servers on the edge."""
    config, zone = edge.config, edge.config.zone
    with edge.lock:
        for server in servers:
            host = f"{server.label}.{zone}"
            name = f"{server.service}.{host}"
            data = SrvData(priority=0, weight=0, port=server.port, target=host)
            inner = config.velocity_edge_ip if server.minecraft else config.traefik_edge_ip
            _put_public(edge, new_record(host, "A", config.cloudflare_edge_ip, ttl=_TTL))
            _put_public(edge, new_record(name, "SRV", ttl=_TTL, data=data))
            edge.technitium.put(TechnitiumRecord(host, "A", address_data(inner), ttl=_TTL))
            edge.technitium.put(
                TechnitiumRecord(
                    name,
                    "SRV",
                    srv_data(priority=0, weight=0, port=server.port, target=host),
                    ttl=_TTL,
                )
            )
        edge.velocity.seed(
            Backend(server.label, server.address, _BACKEND_PORT)
            for server in servers
            if server.minecraft and server.address
        )
    return len(servers)


def publish_foreign(edge: Edge) -> None:
    """Put records into both zones, and containers on the node, that belong to no server.

    They must stay as they are.
    """
    zone = edge.config.zone
    with edge.lock:
        for record in _foreign_public(zone):
            _put_public(edge, record)
        edge.technitium.put_all(_foreign_internal(zone))
        edge.containers.put_all(Container(vmid, name) for vmid, name in _FOREIGN_CONTAINERS)


def _put_public(edge: Edge, record: CloudflareRecord) -> None:
    """Add a record to the public zone, unless an identical one is there."""
    if all(other.identity() != record.identity() for other in edge.cloudflare.named(record.name)):
        edge.cloudflare.put(record)


def _foreign_public(zone: str) -> list[CloudflareRecord]:
    return [
        new_record(zone, "A", "203.0.113.80", proxied=True),
        new_record(f"www.{zone}", "CNAME", zone, proxied=True),
        new_record(f"mail.{zone}", "A", "203.0.113.25", ttl=3600),
        new_record(zone, "MX", f"mail.{zone}", priority=10),
        new_record(zone, "TXT", "v=spf1 mx -all"),
        new_record(f"_imaps._tcp.{zone}", "SRV", data=SrvData(0, 1, 993, f"mail.{zone}")),
    ]


def _foreign_internal(zone: str) -> list[TechnitiumRecord]:
    return [
        TechnitiumRecord(zone, "A", address_data("10.70.0.80")),
        TechnitiumRecord(f"ns1.{zone}", "A", address_data("10.70.0.53")),
        TechnitiumRecord(f"mail.{zone}", "A", address_data("10.70.0.25")),
        TechnitiumRecord(f"www.{zone}", "CNAME", (("cname", zone),)),
        TechnitiumRecord(zone, "MX", (("preference", 10), ("exchange", f"mail.{zone}"))),
        TechnitiumRecord(zone, "TXT", (("text", "v=spf1 mx -all"),)),
    ]


def _game_servers(engine: sa.Engine, zone: str) -> Iterator[PublishedServer]:
    columns = container_instance.c
    query = (
        sa.select(columns.hostname, columns.ip, columns.allocatedPorts, columns.payload)
        .where(columns.ctype == "game")
        .order_by(columns.vmid)
    )
    with engine.connect() as connection:
        for hostname, ip, ports, payload in connection.execute(query):
            yield published_server(
                hostname=hostname, ip=ip, ports=ports, payload=payload, zone=zone
            )


def _containers(engine: sa.Engine) -> Iterator[Container]:
    columns = container_instance.c
    with engine.connect() as connection:
        query = sa.select(columns.vmid, columns.hostname, columns.ip)
        for vmid, hostname, ip in connection.execute(query):
            yield Container(vmid, hostname.partition(".")[0].lower(), ip)


def published_server(
    *, hostname: str, ip: str | None, ports: Any, payload: Any, zone: str
) -> PublishedServer:
    """What one row of the platform comes to on the edge."""
    name = (payload or {}).get("game")
    game = game_named(name)
    allocated = (ports or {}).get("game") or [game.port]
    return PublishedServer(
        label=hostname.strip().lower().rstrip(".").removesuffix(f".{zone}"),
        service=f"_{game.service}._{game.protocol}",
        port=int(allocated[0]),
        address=ip,
        minecraft=name == MINECRAFT,
    )
