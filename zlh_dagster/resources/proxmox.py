"""Proxmox: which containers one node has, and whether they run.

Two honest-looking answers are none: a token that may see nothing gets an empty list, and a node
whose status daemon hangs calls every container ``unknown``.
"""

import re
import ssl
from pathlib import Path
from typing import Any
from urllib.parse import quote

import httpx
import pandas as pd

from zlh_dagster.core.fleet import ContainerStatus, containers_frame
from zlh_dagster.resources.edge import READ_TIMEOUT, Rights, expect, field
from zlh_dagster.resources.http import ApiClient, HttpApi, Incomplete, Rejected, Untrusted
from zlh_dagster.resources.settings import SettingsError

_NAME = "proxmox"
_VMID = re.compile(r"[1-9][0-9]{0,8}", re.ASCII)
_KNOWN = frozenset(status.value for status in ContainerStatus)


class Proxmox(ApiClient):
    """One node of a Proxmox VE cluster; its certificate is always verified.

    Args:
        base_url: The API's URL, without ``/api2/json``.
        node: The node's name.
        token_id: API token, ``user@realm!name``; it needs ``VM.Audit``.
        token_secret: The token's secret.
        ca_file: Certificates to trust instead of the system's; Proxmox signs with a CA of its own.
        transport: For tests.

    Raises:
        SettingsError: If the CA file cannot be used.
    """

    def __init__(
        self,
        *,
        base_url: str,
        node: str,
        token_id: str,
        token_secret: str,
        ca_file: Path | None = None,
        transport: httpx.BaseTransport | None = None,
    ) -> None:
        self._node = node
        super().__init__(
            HttpApi(
                _NAME,
                base_url,
                headers={"Authorization": f"PVEAPIToken={token_id}={token_secret}"},
                # Above the 3 s by which Proxmox delays a 401.
                timeout=READ_TIMEOUT,
                trust=None if ca_file is None else _trusting(ca_file),
                transport=transport,
            )
        )

    def rights(self) -> Rights:
        """Whether the token may see all containers, which any token may ask of itself.

        Raises:
            EdgeError: If Proxmox does not say.
        """
        query = {"path": "/vms"}
        status, answer = self._api.read(
            lambda: self._api.call("GET", "/api2/json/access/permissions", params=query)
        )
        if status != 200:
            return Rights(unknown=f"HTTP {status} to the question for the token's rights")
        held = field(answer, "data", dict, f"{_NAME}: the answer").get("/vms")
        audit = isinstance(held, dict) and held.get("VM.Audit")
        return Rights() if audit else Rights(missing=("VM.Audit on /vms",))

    def list_containers(self) -> pd.DataFrame:
        """All containers of the node, as a frame with ``CONTAINER_COLUMNS``.

        Raises:
            EdgeError: If the listing fails, is empty, has the wrong shape, or knows of no
                container whether it runs.
        """
        path = f"/api2/json/nodes/{quote(self._node, safe='')}/lxc"
        try:
            status, answer = self._api.read(lambda: self._api.call("GET", path))
        except Untrusted as error:
            hint = "PROXMOX_CA_FILE takes the cluster's CA (/etc/pve/pve-root-ca.pem on a node)"
            raise Untrusted(f"{error}; {hint}") from None
        if status != 200:
            raise Rejected(f"{_NAME}: HTTP {status} to the list of node {self._node}")
        rows = [_row(row) for row in field(answer, "data", list, f"{_NAME}: the answer")]
        if not rows:
            raise Incomplete(
                f"{_NAME}: the list is empty: the token lacks VM.Audit, or node {self._node} has"
                " no container"
            )
        if len({row["vmid"] for row in rows}) != len(rows):
            raise Incomplete(f"{_NAME}: the list has a VMID twice")
        if all(row["status"] == ContainerStatus.UNKNOWN.value for row in rows):
            raise Incomplete(
                f"{_NAME}: all {len(rows)} containers of node {self._node} have status 'unknown':"
                " the node does not report"
            )
        return containers_frame(rows)


def _row(row: Any) -> dict[str, Any]:
    status = field(row, "status", str, _NAME)
    return {
        "vmid": _vmid(row),
        "name": _text(row, "name"),
        # A word that this program does not know says nothing about running or not.
        "status": status if status in _KNOWN else ContainerStatus.UNKNOWN.value,
        "lock": _text(row, "lock"),
    }


def _vmid(row: dict[str, Any]) -> int:
    # Proxmox's JSON comes from Perl: the same number is a number here and a text there.
    value = row.get("vmid")
    spelled = value if isinstance(value, str) else str(field(row, "vmid", int, _NAME))
    if not _VMID.fullmatch(spelled):
        raise Incomplete(f"{_NAME}: 'vmid' is {spelled!r:.40}, not a number of a container")
    return int(spelled)


def _text(row: dict[str, Any], name: str) -> str | None:
    value = row.get(name)
    return None if value is None else expect(value, str, f"{_NAME}: {name!r}") or None


def _trusting(ca_file: Path) -> ssl.SSLContext:
    try:
        return ssl.create_default_context(cafile=str(ca_file))
    except ssl.SSLError:
        raise SettingsError(f"PROXMOX_CA_FILE: {ca_file} holds no certificate in PEM") from None
    except OSError as error:
        raise SettingsError(f"PROXMOX_CA_FILE: {ca_file}: {error.strerror}") from None
