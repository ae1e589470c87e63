"""The pretend fleet, and what of it stands on the edge."""

import ipaddress
from collections import Counter

import pytest
import sqlalchemy as sa

from zlh_dagster.sandbox.config import SandboxConfig
from zlh_dagster.sandbox.edge import Edge
from zlh_dagster.sandbox.fleet import create_platform_tables, is_empty, write_fleet
from zlh_dagster.sandbox.publish import publish_database, published_server
from zlh_dagster.schema.tables import container_instance

FOREIGN_PUBLIC = 6
FOREIGN_INTERNAL = 6
HEAD = 3


@pytest.fixture
def engine():
    engine = sa.create_engine("sqlite://", poolclass=sa.StaticPool)
    create_platform_tables(engine)
    yield engine
    engine.dispose()


def _rows(engine):
    with engine.connect() as connection:
        query = sa.select(container_instance).order_by(container_instance.c.vmid)
        return connection.execute(query).mappings().all()


def test_a_fleet_is_game_servers_and_one_dev_container(engine):
    """From VMID 5000 on, the first one disposable."""
    assert is_empty(engine)
    assert write_fleet(engine, servers=3) == 4
    assert not is_empty(engine)
    rows = _rows(engine)
    assert [row["vmid"] for row in rows] == [5000, 5001, 5002, 6000]
    assert [row["ctype"] for row in rows] == ["game", "game", "game", "dev"]
    assert rows[0]["hostname"] == "mc-5000"
    assert rows[0]["allocatedPorts"] == {"game": [25565]}
    assert rows[0]["payload"]["disposable"] is True
    assert "disposable" not in rows[1]["payload"]
    assert {row["lifecycle"] for row in rows} == {"active"}


def test_one_server_in_five_is_another_game(engine):
    """Every listed game appears, and one that is not listed."""
    write_fleet(engine, servers=50)
    games = Counter(row["payload"].get("game") for row in _rows(engine) if row["ctype"] == "game")
    assert games["minecraft"] == 40
    assert set(games) == {
        "minecraft",
        "rust",
        "terraria",
        "projectzomboid",
        "valheim",
        "palworld",
        "factorio",
    }


def test_a_large_fleet_repeats_nothing(engine):
    """Neither VMIDs, hostnames nor addresses, and it steps over the dev container."""
    write_fleet(engine, servers=2000)
    rows = _rows(engine)
    assert len(rows) == 2001
    assert len({row["hostname"] for row in rows}) == len(rows)
    assert len({row["ip"] for row in rows}) == len(rows)
    assert all(ipaddress.ip_address(row["ip"]).is_private for row in rows)
    assert {row["ctype"] for row in rows if row["vmid"] == 6000} == {"dev"}
    assert any(row["hostname"].endswith(".example.gg") for row in rows)


def test_the_same_seed_gives_the_same_fleet(engine):
    """But for the times."""
    write_fleet(engine, servers=20, seed=7)
    first = [(row["hostname"], row["payload"], row["customerId"]) for row in _rows(engine)]
    with engine.begin() as connection:
        connection.execute(sa.delete(container_instance))
    write_fleet(engine, servers=20, seed=7)
    assert [(r["hostname"], r["payload"], r["customerId"]) for r in _rows(engine)] == first


@pytest.fixture
def published(engine):
    """The edge of ten servers: eight Minecraft, one Rust, one Terraria."""
    write_fleet(engine, servers=10)
    edge = Edge(SandboxConfig())
    assert publish_database(edge, engine) == 10
    return edge


def test_every_game_server_has_two_records_in_each_zone(published):
    """Beside those that belong to nobody."""
    assert len(published.cloudflare) == 20 + FOREIGN_PUBLIC
    assert len(published.technitium) == 20 + FOREIGN_INTERNAL + HEAD


def test_a_minecraft_server_is_published_as_the_mission_says(published):
    """Public address outside, Velocity's inside, and a registration."""
    [public] = published.cloudflare.named("mc-5000.example.gg")
    assert (public.type, public.content, public.ttl) == ("A", "203.0.113.10", 60)
    assert public.proxied is False
    [service] = published.cloudflare.named("_minecraft._tcp.mc-5000.example.gg")
    assert service.data is not None
    assert service.ttl == 60
    parts = {"priority": 0, "weight": 0, "port": 25565, "target": "mc-5000.example.gg"}
    assert service.data.to_json() == parts
    [inner] = published.technitium.named("mc-5000.example.gg")
    assert (inner.type, dict(inner.data), inner.ttl) == ("A", {"ipAddress": "10.70.0.2"}, 60)
    [inner_service] = published.technitium.named("_minecraft._tcp.mc-5000.example.gg")
    assert dict(inner_service.data) == parts
    assert (inner_service.ttl, inner_service.disabled) == (60, False)
    [backend] = [b for b in published.velocity.backends() if b.name == "mc-5000"]
    assert (backend.address, backend.port) == ("10.60.0.1", 25565)


def test_another_game_goes_past_velocity(published):
    """Traefik's address inside, its own service, and no registration."""
    [service] = published.cloudflare.named("_rust._udp.rust-5004.example.gg")
    assert service.data is not None
    assert service.data.port == 28015
    [inner] = published.technitium.named("rust-5004.example.gg")
    assert dict(inner.data) == {"ipAddress": "10.70.0.3"}
    assert {backend.name[:2] for backend in published.velocity.backends()} == {"mc"}
    assert len(published.velocity.backends()) == 8


def test_dev_containers_are_not_published(published):
    """Only game servers are."""
    names = {record.name for record in published.cloudflare.records()}
    assert not any("6000" in name for name in names)


def test_both_zones_hold_records_that_belong_to_nobody(published):
    """Apex, www, mail, MX and TXT."""
    public = {(r.name, r.type) for r in published.cloudflare.records()}
    internal = {(r.name, r.type) for r in published.technitium.records()}
    wanted = {
        ("example.gg", "A"),
        ("www.example.gg", "CNAME"),
        ("mail.example.gg", "A"),
        ("example.gg", "MX"),
        ("example.gg", "TXT"),
    }
    assert wanted <= public
    assert wanted <= internal


def test_publishing_twice_changes_nothing(published, engine):
    """No record is there two times."""
    publish_database(published, engine)
    assert len(published.cloudflare) == 20 + FOREIGN_PUBLIC
    assert len(published.technitium) == 20 + FOREIGN_INTERNAL + HEAD
    assert len(published.velocity.backends()) == 8


@pytest.mark.parametrize(
    ("game", "service", "port"),
    [
        ("minecraft", "_minecraft._tcp", 25565),
        ("rust", "_rust._udp", 28015),
        ("terraria", "_terraria._tcp", 7777),
        ("projectzomboid", "_projectzomboid._udp", 16261),
        ("valheim", "_valheim._udp", 2456),
        ("palworld", "_palworld._udp", 8211),
        ("factorio", "_game._tcp", 25565),
        (None, "_game._tcp", 25565),
    ],
)
def test_each_game_has_its_service_and_default_port(game, service, port):
    """As the mission lists them; anything else is a game on 25565."""
    server = published_server(
        hostname="x", ip=None, ports=None, payload={"game": game}, zone="example.gg"
    )
    assert (server.service, server.port) == (service, port)


def test_the_first_allocated_port_counts(published):
    """And a full name in the zone comes to its label."""
    server = published_server(
        hostname="MC-5000.example.gg",
        ip="10.60.0.1",
        ports={"game": [25570, 25571]},
        payload={"game": "minecraft"},
        zone="example.gg",
    )
    assert (server.label, server.port) == ("mc-5000", 25570)
