"""From the platform's rows to the records that should exist.

The platform frame has the columns of ``ContainerInstance`` that matter here: ``vmid, ctype,
hostname, ip, allocatedPorts, payload, lifecycle, billingStatus, maintenanceReason, unreadable``;
the JSON columns hold text or null.
"""

import json
from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

import pandas as pd

from zlh_dagster.core import names
from zlh_dagster.core.model import (
    BACKEND,
    DNS_TTL,
    RECORD_COLUMNS,
    UNREADABLE,
    Surface,
    rows_of,
)

DESIRED_COLUMNS: dict[str, str] = {**RECORD_COLUMNS, "vmid": "Int64", "guard": "object"}
"""A desired record also knows its server, and why that server must not be touched (or null)."""

INVALID_COLUMNS: dict[str, str] = {"vmid": "Int64", "reason": "object"}
"""Columns of a frame of rows that could not be used; ``vmid`` is null where it is that which cannot
be read."""

ROW_UNUSABLE = "row_unusable"
"""Code of the refusal of a server whose row cannot be read or published."""

MAINTENANCE = "maintenance: the server is locked for maintenance"


@dataclass(frozen=True, slots=True)
class EdgeConfig:
    """Where servers are published; an address is ``None`` where its surface is off."""

    zone: str | None
    cloudflare_ip: str | None = None
    velocity_ip: str | None = None
    traefik_ip: str | None = None
    velocity: bool = False


@dataclass(frozen=True, slots=True)
class Server:
    """A game server, read and checked."""

    vmid: int
    label: str
    game: str
    port: int
    address: str | None
    guard: str | None


@dataclass(frozen=True, slots=True)
class DesiredEdge:
    """All records that should exist, and the servers whose rows could not be used.

    Attributes:
        records: Frame with :data:`DESIRED_COLUMNS`.
        invalid: Frame of :data:`INVALID_COLUMNS`; those servers have no desired records.
    """

    records: pd.DataFrame
    invalid: pd.DataFrame


def guard_reason(row: Mapping[str, Any]) -> str | None:
    """Why level 1 leaves this server alone, or ``None`` when it may be repaired.

    Its first word is the code of the refusal.
    """
    unreadable = unreadable_reason(row)
    if unreadable is not None:
        return f"{ROW_UNUSABLE}: {unreadable}"
    if row["lifecycle"] != "active":
        return f"lifecycle is {row['lifecycle']}, not active"
    if row["billingStatus"] not in ("active", "past_due"):
        return f"billing is {row['billingStatus']}"
    if is_locked(row):
        return MAINTENANCE
    return None


def unreadable_reason(row: Mapping[str, Any]) -> str | None:
    """What of a row cannot be read, or ``None``: then all of it can be relied on."""
    reason = row[UNREADABLE]
    return None if reason is None or pd.isna(reason) else str(reason)


def readable(platform: pd.DataFrame) -> pd.DataFrame:
    """The rows that can be relied on."""
    return platform[platform[UNREADABLE].isna()]


def is_locked(row: Mapping[str, Any]) -> bool:
    """Whether the platform has locked the server for maintenance."""
    reason = row["maintenanceReason"]
    return reason is not None and not pd.isna(reason)


def read_server(row: Mapping[str, Any], zone: str) -> Server:
    """Reads and checks one row.

    Raises:
        InvalidServer: If the row cannot be published; the message names the field.
    """
    label = names.host_label(row["hostname"], zone)
    game = names.game_of(_parse(row, "payload"))
    port = names.game_port(_parse(row, "allocatedPorts"), names.service_of(game))
    address = names.container_address(row["ip"]) if game == names.MINECRAFT else None
    return Server(int(row["vmid"]), label, game, port, address, guard_reason(row))


def _parse(row: Mapping[str, Any], column: str) -> Any:
    text = row[column]
    if text is None or text != text:  # null, as SQL or as pandas says it
        return None
    try:
        return json.loads(text)
    except (ValueError, TypeError, RecursionError):
        raise names.InvalidServer(f"{column}: is not JSON") from None


def records_of(server: Server, config: EdgeConfig) -> list[dict[str, Any]]:
    """The records of one server on every surface that is on, as rows of a frame."""
    if config.zone is None:
        return []
    host = f"{server.label}.{config.zone}"
    service = names.service_of(server.game)
    minecraft = server.game == names.MINECRAFT
    internal = config.velocity_ip if minecraft else config.traefik_ip
    rows = []
    for surface, address, proxied in (
        (Surface.CLOUDFLARE, config.cloudflare_ip, False),
        (Surface.TECHNITIUM, internal, None),
    ):
        if address is None:
            continue
        shared = {"surface": surface.value, "ttl": DNS_TTL, "vmid": server.vmid}
        rows.append({**shared, "name": host, "type": "A", "content": address, "proxied": proxied})
        rows.append(
            {
                **shared,
                "name": f"{service.prefix}.{host}",
                "type": "SRV",
                "content": names.srv_content(port=server.port, target=host),
            }
        )
    if config.velocity and minecraft and server.address is not None:
        rows.append(
            {
                "surface": Surface.VELOCITY.value,
                "name": server.label,
                "type": BACKEND,
                "content": names.backend_content(server.address, names.VELOCITY_BACKEND_PORT),
                "vmid": server.vmid,
            }
        )
    for row in rows:
        row["guard"] = server.guard
    return rows


def desired_edge(platform: pd.DataFrame, config: EdgeConfig) -> DesiredEdge:
    """The desired records of all game servers.

    A row that cannot be used costs that server its records and nothing else. Servers that share a
    host name are all refused: which of them owns the name is not for this program to guess.
    """
    servers: list[Server] = []
    invalid: list[dict[str, Any]] = []
    zone = config.zone or ""
    claims = Counter(claimed_labels(platform, zone))
    for row in rows_of(platform):
        unreadable = unreadable_reason(row)
        if unreadable is not None:
            vmid = None if pd.isna(row["vmid"]) else int(row["vmid"])
            invalid.append({"vmid": vmid, "reason": unreadable})
            continue
        if row["ctype"] != "game":
            continue
        try:
            servers.append(read_server(row, zone))
        except names.InvalidServer as error:
            invalid.append({"vmid": int(row["vmid"]), "reason": str(error)})
    rows: list[dict[str, Any]] = []
    for server in servers:
        if claims[server.label] > 1:
            reason = f"hostname: {server.label!r} is used by more than one server"
            invalid.append({"vmid": server.vmid, "reason": reason})
        else:
            rows.extend(records_of(server, config))
    return DesiredEdge(
        records=desired_frame(rows),
        invalid=invalid_frame(invalid),
    )


def invalid_frame(rows: list[dict[str, Any]]) -> pd.DataFrame:
    """A frame with the columns and types of :data:`INVALID_COLUMNS`."""
    return pd.DataFrame(rows, columns=list(INVALID_COLUMNS)).astype(INVALID_COLUMNS)


def desired_frame(rows: list[dict[str, Any]]) -> pd.DataFrame:
    """A frame with the columns and types of :data:`DESIRED_COLUMNS`."""
    frame = pd.DataFrame(rows, columns=list(DESIRED_COLUMNS))
    frame["disabled"] = False
    return frame.astype(DESIRED_COLUMNS)


def claimed_labels(platform: pd.DataFrame, zone: str) -> Iterable[str]:
    """The label of every game server, usable or not, in whatever state; none is an orphan."""
    for hostname in _of_games(platform)["hostname"]:
        if isinstance(hostname, str):
            yield names.normalise_name(hostname).removesuffix(f".{zone}")


def all_labels_known(platform: pd.DataFrame) -> bool:
    """Whether every game server's host name can be read; otherwise any record may be its own."""
    return bool(_of_games(platform)["hostname"].notna().all())


def _of_games(platform: pd.DataFrame) -> pd.DataFrame:
    """The rows of game servers, those with a type that cannot be read among them."""
    return platform[(platform["ctype"] == "game") | platform["ctype"].isna()]
