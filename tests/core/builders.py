"""Small fleets and listings as values."""

import json
from typing import Any

import pandas as pd

from zlh_dagster.core.desired import DesiredEdge, EdgeConfig, desired_edge
from zlh_dagster.core.model import RECORD_COLUMNS, records_frame, rows_of

ZONE = "example.gg"
PUBLIC, PROXY, OTHER = "203.0.113.10", "10.70.0.2", "10.70.0.3"
EDGE = EdgeConfig(
    zone=ZONE, cloudflare_ip=PUBLIC, velocity_ip=PROXY, traefik_ip=OTHER, velocity=True
)


def container(vmid: int = 5000, game: str = "minecraft", **values: Any) -> dict[str, Any]:
    """One row of the platform; ``payload`` and ``allocatedPorts`` may be given as values."""
    row: dict[str, Any] = {
        "vmid": vmid,
        "ctype": "game",
        "hostname": f"mc-{vmid}",
        "ip": f"10.60.{vmid % 60000 // 250}.{vmid % 250 + 1}",
        "allocatedPorts": None,
        "payload": {"game": game},
        "lifecycle": "active",
        "billingStatus": "active",
        "maintenanceReason": None,
        "lastBackupAt": None,
        "backupEveryHours": None,
        "createdAt": "2029-01-01T00:00:00.000000+00:00",
        "unreadable": None,
        **values,
    }
    for column in ("payload", "allocatedPorts"):
        if isinstance(row[column], (dict, list)):
            row[column] = json.dumps(row[column])
    return row


def platform(*rows: dict[str, Any]) -> pd.DataFrame:
    return pd.DataFrame(list(rows), columns=list(container())).astype(object)


def desired(*rows: dict[str, Any], edge: EdgeConfig = EDGE) -> DesiredEdge:
    return desired_edge(platform(*rows), edge)


def fleet(servers: int, **values: Any) -> pd.DataFrame:
    """The desired records of a Minecraft fleet, five for each server."""
    return desired(*(container(5000 + n, **values) for n in range(servers))).records


def in_step(records: pd.DataFrame) -> list[dict[str, Any]]:
    """Observed records exactly as desired, each with an identifier of its own."""
    rows = rows_of(records[list(RECORD_COLUMNS)])
    return [{**row, "record_id": f"id-{n}"} for n, row in enumerate(rows)]


def listing(rows: list[dict[str, Any]]) -> pd.DataFrame:
    return records_frame(rows)


def without(rows: list[dict[str, Any]], **keys: Any) -> list[dict[str, Any]]:
    """The rows but those that agree in all of ``keys``."""
    return [row for row in rows if any(row[key] != value for key, value in keys.items())]


def changed(
    rows: list[dict[str, Any]], where: dict[str, Any], **values: Any
) -> list[dict[str, Any]]:
    """The rows, with ``values`` in those that agree in all of ``where``."""
    return [
        {**row, **values} if all(row[k] == v for k, v in where.items()) else row for row in rows
    ]
