"""What should exist: the mission's table of records, and what one bad row may cost."""

import json

import pytest

from tests.core.builders import EDGE, OTHER, PROXY, PUBLIC, container, desired, platform
from zlh_dagster.core.desired import (
    DESIRED_COLUMNS,
    MAINTENANCE,
    EdgeConfig,
    claimed_labels,
    desired_edge,
    desired_frame,
)
from zlh_dagster.core.model import rows_of

HOST = "mc-5000.example.gg"


def table(edge) -> list[tuple]:
    return [(r["surface"], r["type"], r["name"], r["content"]) for r in rows_of(edge.records)]


def reasons(edge) -> dict[int, str]:
    return dict(zip(edge.invalid["vmid"], edge.invalid["reason"], strict=True))


def test_a_minecraft_server_has_the_five_records_of_the_mission():
    made = desired(container(ip="10.60.0.1", allocatedPorts={"game": [25565]}))
    srv = f"0 0 25565 {HOST}"
    assert table(made) == [
        ("cloudflare", "A", HOST, PUBLIC),
        ("cloudflare", "SRV", f"_minecraft._tcp.{HOST}", srv),
        ("technitium", "A", HOST, PROXY),
        ("technitium", "SRV", f"_minecraft._tcp.{HOST}", srv),
        ("velocity", "BACKEND", "mc-5000", "10.60.0.1:25565"),
    ]
    rows = rows_of(made.records)
    assert [row["ttl"] for row in rows[:4]] == [60] * 4
    assert rows[0]["proxied"] is False
    assert made.invalid.empty
    assert dict(made.records.dtypes.astype(str)) == DESIRED_COLUMNS


@pytest.mark.parametrize(
    ("game", "service", "port"),
    [
        ("rust", "_rust._udp", 28015),
        ("terraria", "_terraria._tcp", 7777),
        ("projectzomboid", "_projectzomboid._udp", 16261),
        ("valheim", "_valheim._udp", 2456),
        ("palworld", "_palworld._udp", 8211),
        ("factorio", "_game._tcp", 25565),
    ],
)
def test_every_other_game_points_at_traefik_and_has_no_backend(game, service, port):
    srv = f"0 0 {port} {HOST}"
    assert table(desired(container(game=game, ip=None))) == [
        ("cloudflare", "A", HOST, PUBLIC),
        ("cloudflare", "SRV", f"{service}.{HOST}", srv),
        ("technitium", "A", HOST, OTHER),
        ("technitium", "SRV", f"{service}.{HOST}", srv),
    ]


def test_the_allocated_port_is_in_the_srv_records_and_not_in_the_backend():
    """Players reach the proxy by the allocated port; the proxy reaches the container by its own."""
    made = table(desired(container(ip="10.60.0.1", allocatedPorts={"game": [30123, 30124]})))
    assert [row[3] for row in made if row[1] == "SRV"] == [f"0 0 30123 {HOST}"] * 2
    assert made[-1] == ("velocity", "BACKEND", "mc-5000", "10.60.0.1:25565")


def test_an_ipv6_container_is_a_backend_in_brackets():
    assert table(desired(container(ip="FD00::0010")))[-1][3] == "[fd00::10]:25565"


@pytest.mark.parametrize(
    ("edge", "surfaces"),
    [
        (EdgeConfig(zone="example.gg"), []),
        (EdgeConfig(zone=None, cloudflare_ip=PUBLIC, velocity=True), []),
        (EdgeConfig(zone="example.gg", cloudflare_ip=PUBLIC), ["cloudflare"] * 2),
        (EdgeConfig(zone="example.gg", velocity_ip=PROXY, traefik_ip=OTHER), ["technitium"] * 2),
        (EdgeConfig(zone="example.gg", velocity=True), ["velocity"]),
    ],
)
def test_a_surface_that_is_off_is_asked_for_nothing(edge, surfaces):
    assert list(desired(container(), edge=edge).records["surface"]) == surfaces


def test_dev_containers_are_nobody_to_publish():
    made = desired(container(6000, ctype="dev", payload="rubbish", hostname=None))
    assert made.records.empty
    assert made.invalid.empty


@pytest.mark.parametrize(
    ("values", "why"),
    [
        ({"lifecycle": "suspended"}, "lifecycle is suspended, not active"),
        ({"lifecycle": "deleting"}, "lifecycle is deleting, not active"),
        ({"lifecycle": "provisioning"}, "lifecycle is provisioning, not active"),
        ({"lifecycle": None}, "lifecycle is None, not active"),
        ({"billingStatus": "suspended"}, "billing is suspended"),
        ({"billingStatus": "something new"}, "billing is something new"),
        ({"maintenanceReason": "disk swap"}, MAINTENANCE),
        ({"maintenanceReason": ""}, MAINTENANCE),
    ],
)
def test_a_guarded_server_keeps_its_records_and_carries_the_reason(values, why):
    """They are still desired, or its records would look like orphans; they are just not mended."""
    records = desired(container(**values)).records
    assert len(records) == 5
    assert set(records["guard"]) == {why}


@pytest.mark.parametrize("values", [{}, {"billingStatus": "past_due"}, {"maintenanceReason": None}])
def test_an_active_server_has_no_guard(values):
    assert desired(container(**values)).records["guard"].isna().all()


def test_a_null_of_pandas_is_no_maintenance():
    rows = platform(container())
    rows["maintenanceReason"] = float("nan")
    assert desired_edge(rows, EDGE).records["guard"].isna().all()


BAD_ROWS = [
    ({"hostname": ""}, "hostname"),
    ({"hostname": "a" * 300}, "hostname"),
    ({"hostname": "@everyone"}, "hostname"),
    ({"hostname": "other.example.com"}, "hostname"),
    ({"hostname": None}, "hostname"),
    ({"payload": None}, "payload"),
    ({"payload": ""}, "payload"),
    ({"payload": "{not json"}, "payload"),
    ({"payload": "null"}, "payload"),
    ({"payload": "NaN"}, "payload"),
    ({"payload": '"minecraft"'}, "payload"),
    ({"payload": b'{"game": 1}'}, "payload"),
    ({"payload": "[" * 100_000 + "]" * 100_000}, "payload"),
    ({"payload": '{"game": ' * 100_000 + "1" + "}" * 100_000}, "payload"),
    ({"payload": "1" * 10_000}, "payload"),
    ({"allocatedPorts": "{"}, "allocatedPorts"),
    ({"allocatedPorts": {"game": ["25565"]}}, "allocatedPorts"),
    ({"allocatedPorts": {"game": [70000]}}, "allocatedPorts"),
    ({"allocatedPorts": {"game": [-1]}}, "allocatedPorts"),
    ({"allocatedPorts": {"game": [True]}}, "allocatedPorts"),
    ({"allocatedPorts": {"game": 25565}}, "allocatedPorts"),
    ({"ip": None}, "ip"),
    ({"ip": "10.60.0.256"}, "ip"),
]


@pytest.mark.parametrize(("values", "field"), BAD_ROWS)
def test_a_bad_row_costs_that_server_its_records_and_nothing_else(values, field):
    made = desired(container(5000), container(5001, **values), container(5002))
    assert set(made.records["vmid"]) == {5000, 5002}
    assert len(made.records) == 10
    [(vmid, why)] = reasons(made).items()
    assert vmid == 5001
    assert why.startswith(f"{field}: ")


def test_a_huge_payload_is_read():
    payload = json.dumps({"mods": ["x" * 100] * 50_000, "game": "rust"})
    assert len(desired(container(payload=payload)).records) == 4


def test_a_null_of_pandas_means_default_ports():
    rows = platform(container())
    rows["allocatedPorts"] = float("nan")
    assert f"0 0 25565 {HOST}" in list(desired_edge(rows, EDGE).records["content"])


@pytest.mark.parametrize(
    "names",
    [
        ("mc-1", "mc-1"),
        ("mc-1", "MC-1"),
        ("mc-1", "mc-1.example.gg"),
        ("mc-1.", "Mc-1.example.gg."),
    ],
)
def test_servers_that_share_a_hostname_are_all_refused_and_others_unaffected(names):
    one, two = names
    made = desired(container(5000, hostname=one), container(5001, hostname=two), container(5002))
    assert set(made.records["vmid"]) == {5002}
    assert set(reasons(made)) == {5000, 5001}
    assert all("more than one server" in why for why in reasons(made).values())


def test_an_unusable_row_still_claims_its_hostname():
    """Whoever owns the name, its row may be mended tomorrow: nothing is written for the other."""
    made = desired(
        container(5000, hostname="mc-1"), container(5001, hostname="mc-1", payload="rubbish")
    )
    assert made.records.empty
    assert reasons(made)[5000] == "hostname: 'mc-1' is used by more than one server"
    assert reasons(made)[5001].startswith("payload: ")


def test_a_lookalike_cannot_take_a_name_from_its_owner():
    """The Kelvin sign lowers to k; its row is refused and the true owner stays published."""
    made = desired(container(5000, hostname="kube"), container(5001, hostname="\u212aube"))
    assert set(made.records["vmid"]) == {5000}
    assert set(reasons(made)) == {5001}


def test_a_dev_container_claims_no_name():
    made = desired(container(5000, hostname="mc-1"), container(6000, ctype="dev", hostname="mc-1"))
    assert set(made.records["vmid"]) == {5000}


def test_every_game_server_claims_its_label_whatever_its_state():
    rows = platform(
        container(5000, hostname="A.example.gg."),
        container(5001, hostname="b", lifecycle="deleting"),
        container(5002, hostname="c", payload="rubbish"),
        container(5003, hostname=None),
        container(6000, ctype="dev", hostname="d"),
    )
    assert list(claimed_labels(rows, "example.gg")) == ["a", "b", "c"]


def test_an_empty_platform_wants_nothing():
    made = desired()
    assert made.records.empty
    assert made.invalid.empty
    assert dict(made.records.dtypes.astype(str)) == DESIRED_COLUMNS
    assert dict(desired_frame([]).dtypes.astype(str)) == DESIRED_COLUMNS
