"""What stands on the edge for no server, and what is none of this program's business."""

import pytest

from tests.core.builders import (
    EDGE,
    OTHER,
    PROXY,
    PUBLIC,
    container,
    desired,
    fleet,
    in_step,
    listing,
    without,
)
from tests.core.builders import platform as platform_rows
from zlh_dagster.core.compare import DRIFT_COLUMNS, orphans
from zlh_dagster.core.desired import EdgeConfig, claimed_labels, desired_frame
from zlh_dagster.core.model import rows_of


def record(surface: str, kind: str, name: str, content: str | None = None, **values):
    return {"surface": surface, "type": kind, "name": name, "content": content, **values}


def found(rows, claimed=("mc-5000",), config=EDGE) -> list[tuple]:
    frame = orphans(listing(rows), claimed=claimed, desired=desired_frame([]), config=config)
    assert dict(frame.dtypes.astype(str)) == DRIFT_COLUMNS
    assert set(frame["kind"]) <= {"orphan"}
    assert frame["vmid"].isna().all()
    return [(r["surface"], r["type"], r["name"]) for r in rows_of(frame)]


ORPHANS = [
    record("cloudflare", "A", "mc-9.example.gg", PUBLIC),
    record("technitium", "A", "mc-9.example.gg", PROXY),
    record("technitium", "A", "rust-9.example.gg", OTHER),
    record("technitium", "A", "mc-9.example.gg", PROXY, disabled=True),
    record("cloudflare", "SRV", "_minecraft._tcp.mc-9.example.gg", "0 0 1 mc-9.example.gg"),
    record("technitium", "SRV", "_rust._udp.rust-9.example.gg", "0 0 1 rust-9.example.gg"),
    record("cloudflare", "SRV", "_game._tcp.mc-9.example.gg", "0 0 1 anywhere.example.com"),
    record("velocity", "BACKEND", "mc-9", "10.60.0.9:25565"),
    record("velocity", "BACKEND", "mc-9", None),
]


@pytest.mark.parametrize("row", ORPHANS)
def test_what_looks_like_a_server_and_is_none_is_an_orphan(row):
    assert found([row]) == [(row["surface"], row["type"], row["name"])]


FOREIGN = [
    record("cloudflare", "A", "example.gg", PUBLIC),
    record("technitium", "A", "example.gg", PROXY),
    record("cloudflare", "A", "mail.example.gg", "203.0.113.25"),
    record("technitium", "A", "ns1.example.gg", "10.70.0.53"),
    record("cloudflare", "CNAME", "www.example.gg", "example.gg"),
    record("cloudflare", "CNAME", "play.example.gg", "mc-9.example.gg"),
    record("cloudflare", "SRV", "_imaps._tcp.example.gg", "0 1 993 mail.example.gg"),
    record("cloudflare", "SRV", "_minecraftx._tcp.mc-9.example.gg", "0 0 1 mc-9.example.gg"),
    record("cloudflare", "SRV", "x_minecraft._tcp.mc-9.example.gg", "0 0 1 mc-9.example.gg"),
    record("cloudflare", "SRV", "_minecraft._udp.mc-9.example.gg", "0 0 1 mc-9.example.gg"),
    # A network's own address: no server has the zone's own name, so none can have lost it.
    record("cloudflare", "SRV", "_minecraft._tcp.example.gg", "0 0 25565 example.gg"),
]


@pytest.mark.parametrize("row", FOREIGN)
def test_what_is_somebody_elses_is_no_orphan(row):
    assert found([row]) == []


@pytest.mark.parametrize(
    "values", [{}, {"lifecycle": "deleting"}, {"payload": "rubbish"}, {"hostname": "MC-5000."}]
)
def test_a_server_in_whatever_state_has_no_orphans(values):
    rows = platform_rows(container(5000, **values))
    assert found(in_step(fleet(1)), claimed=claimed_labels(rows, "example.gg")) == []


def test_one_orphan_among_many_is_found_with_what_it_says():
    rows = [*in_step(fleet(3)), {**ORPHANS[0], "ttl": 60, "record_id": "id"}]
    claimed = ["mc-5000", "mc-5001", "mc-5002"]
    frame = orphans(listing(rows), claimed=claimed, desired=desired_frame([]), config=EDGE)
    [row] = rows_of(frame)
    assert (row["name"], row["found"], row["found_ttl"]) == ("mc-9.example.gg", PUBLIC, 60)
    assert row["record_id"] == "id"


def test_without_a_zone_only_backends_can_be_told():
    config = EdgeConfig(zone=None, velocity=True)
    assert found([ORPHANS[7], FOREIGN[2]], config=config) == [("velocity", "BACKEND", "mc-9")]


def test_an_empty_listing_has_no_orphans():
    assert found([]) == []
    assert found([], claimed=()) == []


# --- of a server that asks for others ------------------------------------------------------------

WAS_MINECRAFT = [
    record("cloudflare", "SRV", "_minecraft._tcp.mc-5000.example.gg", "0 0 25565 mc-5000"),
    record("technitium", "SRV", "_minecraft._tcp.mc-5000.example.gg", "0 0 25565 mc-5000"),
    record("velocity", "BACKEND", "mc-5000", "10.60.0.1:25565"),
]


def left(*servers, rows, config=EDGE) -> list[tuple]:
    """What is found of rows that none of these servers asks for."""
    frame = orphans(
        listing(rows),
        claimed=claimed_labels(platform_rows(*servers), "example.gg"),
        desired=desired(*servers, edge=config).records,
        config=config,
    )
    return [(r["surface"], r["type"], r["name"], r["vmid"]) for r in rows_of(frame)]


def test_what_a_server_left_behind_when_its_game_changed_is_reported_as_its():
    servers = [container(5000, "rust"), container(5001)]
    assert left(*servers, rows=WAS_MINECRAFT) == [
        (row["surface"], row["type"], row["name"], 5000) for row in WAS_MINECRAFT
    ]


UNCLEAR = {
    "its row cannot be used": [container(5000, payload="rubbish")],
    "its row cannot be read": [container(5000, "rust", unreadable="ip: is not text")],
    "two servers have its name": [container(5000, "rust"), container(5001, hostname="mc-5000")],
    "it is suspended": [container(5000, "rust", lifecycle="suspended")],
    "it is being made": [container(5000, "rust", lifecycle="provisioning")],
    "it is being deleted": [container(5000, "rust", lifecycle="deleting")],
    "it is not paid for": [container(5000, "rust", billingStatus="suspended")],
    "it is in maintenance": [container(5000, "rust", maintenanceReason="another game")],
}


@pytest.mark.parametrize("servers", UNCLEAR.values(), ids=UNCLEAR)
def test_of_a_server_that_is_left_alone_nothing_is_left_over(servers):
    assert left(*servers, rows=WAS_MINECRAFT) == []


def test_what_is_somebody_elses_is_not_left_over_either():
    foreign = [
        record("cloudflare", "A", "mc-5000.example.gg", "198.51.100.7"),
        record("cloudflare", "TXT", "mc-5000.example.gg", "mine"),
        record("cloudflare", "SRV", "_minecraft._udp.mc-5000.example.gg", "0 0 1 mc-5000"),
        record("cloudflare", "CNAME", "mc-5000.example.gg", "elsewhere.example.org"),
    ]
    assert left(container(5000, "rust"), rows=foreign) == []


def test_without_a_zone_no_server_asks_for_anything():
    config = EdgeConfig(zone=None, velocity=True)
    assert left(container(5000, "rust"), rows=[WAS_MINECRAFT[2]], config=config) == []


def test_one_left_over_is_found_among_records_without_a_server():
    rows = [ORPHANS[0], WAS_MINECRAFT[0], ORPHANS[7]]
    found = left(container(5000, "rust"), rows=rows)
    assert [vmid for *_, vmid in found] == [None, 5000, None]
    assert len(left(rows=rows)) == 3, "without the server all of them are nobody's"
    assert left(container(5000, "rust"), rows=without(rows, surface="cloudflare")) == found[2:]
