"""Fleets of any size as the frames of one tick, with a little drift, built column by column."""

import random
from dataclasses import dataclass
from datetime import datetime, timezone
from pathlib import Path
from typing import Any

import pandas as pd

from zlh_dagster.core.desired import DESIRED_COLUMNS, EdgeConfig
from zlh_dagster.core.fleet import agents_frame, containers_frame, operations_frame
from zlh_dagster.core.judge import Tick
from zlh_dagster.core.model import DNS_SURFACES, RECORD_COLUMNS, UNREADABLE, Surface, records_frame
from zlh_dagster.core.policy import AGENTS, CONTAINERS, OPERATIONS, PAYLOADS, SOURCE_OF
from zlh_dagster.core.snapshot import Outcome, Snapshot
from zlh_dagster.resources.observe import DESIRED_EDGE
from zlh_dagster.resources.snapshots import SnapshotStore
from zlh_dagster.resources.ticks import load_tick

ZONE = "example.gg"
PUBLIC, PROXY = "203.0.113.10", "10.70.0.2"
EDGE = EdgeConfig(zone=ZONE, cloudflare_ip=PUBLIC, velocity_ip=PROXY, traefik_ip="10.70.0.3")
RECORDS_EACH = 4
DRIFT = 0.001
OTHER = tuple(
    {"A": f"198.51.100.{n}", "SRV": f"0 0 {25000 + n} elsewhere.{ZONE}"} for n in range(3)
)
"""Contents that are wrong, by type."""

TICK = "benchmark"
_NOW = datetime(2030, 1, 1, tzinfo=timezone.utc)
KINDS = ("missing", "wrong", "disabled", "duplicate")


@dataclass(frozen=True, slots=True)
class Listing:
    """The records of a fleet on the two DNS surfaces, wanted and found.

    Attributes:
        drifting: How many records were made to drift.
    """

    desired: pd.DataFrame
    cloudflare: pd.DataFrame
    technitium: pd.DataFrame
    drifting: int


def listing(
    servers: int,
    *,
    drift: float = DRIFT,
    surfaces: tuple[Surface, ...] = DNS_SURFACES,
    kinds: tuple[str, ...] = KINDS,
    strangers: bool = True,
    seed: int = 1,
) -> Listing:
    """Two records on each surface for each server, a share of them drifting.

    Args:
        servers: How many, all of them Minecraft.
        drift: Share of the records that drift.
        surfaces: Cloudflare, or it and Technitium.
        kinds: Kinds of drift, made in turn.
        strangers: Whether there are a few records that no server asks for.
        seed: Same seed, same world.
    """
    hosts = [f"mc-{5000 + n}.{ZONE}" for n in range(servers)]
    chance = random.Random(seed)  # noqa: S311 - same seed, same world; nothing secret comes of it
    wanted, found, drifting = [], [], 0
    for surface in surfaces:
        public = surface is Surface.CLOUDFLARE
        part = _wanted(
            surface, hosts, PUBLIC if public else PROXY, proxied=False if public else None
        )
        rows = part[list(RECORD_COLUMNS)].astype(RECORD_COLUMNS)
        if public:
            rows["record_id"] = [f"c{n:031x}" for n in range(len(rows))]
        count = max(round(len(rows) * drift), len(kinds))
        chosen = chance.sample(range(len(rows)), count)
        drifting += len(chosen)
        wanted.append(part)
        listed = _drifted(rows, chosen, kinds)
        if strangers:
            listed = _stacked([listed, _strangers(rows)])
        found.append(listed.sample(frac=1, random_state=1, ignore_index=True))
    desired = _stacked(wanted).astype(DESIRED_COLUMNS)
    return Listing(desired, found[0], found[-1], drifting)


def _wanted(
    surface: Surface, hosts: list[str], address: str, *, proxied: bool | None
) -> pd.DataFrame:
    servers = len(hosts)
    columns: dict[str, Any] = {
        "surface": surface.value,
        "name": [name for h in hosts for name in (h, f"_minecraft._tcp.{h}")],
        "type": ["A", "SRV"] * servers,
        "content": [content for h in hosts for content in (address, f"0 0 25565 {h}")],
        "ttl": pd.array([60] * (2 * servers), dtype="Int64"),
        "proxied": pd.array([proxied, None] * servers, dtype="boolean"),
        "disabled": False,
        "record_id": None,
        "vmid": pd.array([5000 + n for n in range(servers) for _ in "12"], dtype="Int64"),
        "guard": None,
    }
    return pd.DataFrame(columns)


def _drifted(rows: pd.DataFrame, chosen: list[int], kinds: tuple[str, ...]) -> pd.DataFrame:
    """The rows, the chosen ones changed in turn by each kind."""
    by_kind = {
        kind: chosen[kinds.index(kind) :: len(kinds)] if kind in kinds else [] for kind in KINDS
    }
    for n, kind in enumerate(("wrong", "duplicate")):
        of_kind = rows.loc[by_kind[kind], "type"]
        rows.loc[of_kind.index, "content"] = of_kind.map(OTHER[n])
    rows.loc[by_kind["disabled"], "disabled"] = True
    twins = rows.loc[by_kind["duplicate"]]
    twins = twins.assign(content=twins["type"].map(OTHER[2]), record_id="twin")
    return _stacked([rows.drop(index=by_kind["missing"]), twins])


def _stacked(parts: list[pd.DataFrame]) -> pd.DataFrame:
    """Frames of the same columns on top of each other, column by column.

    All columns at once pandas asks of each single value whether it is missing.
    """
    columns = {name: pd.concat([part[name] for part in parts]) for name in parts[0]}
    return pd.DataFrame(columns).reset_index(drop=True)


def _strangers(rows: pd.DataFrame) -> pd.DataFrame:
    """Records that are nobody's, and two in the platform's own shape without a server."""
    surface = rows["surface"].iloc[0]
    address = PUBLIC if surface == Surface.CLOUDFLARE.value else PROXY
    given: list[dict[str, Any]] = [
        {"name": f"www.{ZONE}", "type": "CNAME", "content": ZONE},
        {"name": f"mail.{ZONE}", "type": "A", "content": "203.0.113.25", "ttl": 3600},
        {"name": f"gone.{ZONE}", "type": "A", "content": address, "ttl": 60},
        {"name": f"_minecraft._tcp.gone.{ZONE}", "type": "SRV", "content": f"0 0 1 gone.{ZONE}"},
    ]
    return records_frame([{**row, "surface": surface, "record_id": row["name"]} for row in given])


def write_tick(servers: int, directory: Path) -> None:
    """Writes the same fleet as the snapshots of one whole tick."""
    world = listing(servers)
    store = SnapshotStore(str(directory))
    frames = {
        PAYLOADS: _payloads(servers),
        DESIRED_EDGE: world.desired,
        SOURCE_OF[Surface.CLOUDFLARE]: world.cloudflare,
        SOURCE_OF[Surface.TECHNITIUM]: world.technitium,
        OPERATIONS: operations_frame([]),
    }
    nothing = {
        SOURCE_OF[Surface.VELOCITY]: world.cloudflare.head(0),
        CONTAINERS: containers_frame([]),
        AGENTS: agents_frame([]),
    }
    for source, rows in frames.items():
        store.write(Snapshot(source, TICK, _NOW, Outcome.OBSERVED, rows))
    for source, rows in nothing.items():
        store.write(Snapshot(source, TICK, _NOW, Outcome.OFF, rows, "off"))


def read_tick(directory: Path) -> Tick:
    """That tick, as the sensor reads it."""
    return load_tick(SnapshotStore(str(directory)), TICK)


def _payloads(servers: int) -> pd.DataFrame:
    columns: dict[str, Any] = {
        "vmid": range(5000, 5000 + servers),
        "ctype": "game",
        "hostname": [f"mc-{5000 + n}" for n in range(servers)],
        "ip": [f"10.{n >> 16 & 255}.{n >> 8 & 255}.{n & 255}" for n in range(servers)],
        "allocatedPorts": '{"game": [25565]}',
        "payload": '{"game": "minecraft"}',
        "lifecycle": "active",
        "billingStatus": "active",
        "maintenanceReason": None,
        UNREADABLE: None,
        "lastBackupAt": _NOW.isoformat(),
        "backupEveryHours": 24,
        "createdAt": "2029-01-01T00:00:00.000000+00:00",
    }
    return pd.DataFrame(columns).astype(object)
