"""The bridge plugin of the Velocity proxy: which backends it knows.

Registrations live in the proxy's memory, so an empty list is an honest answer. Registering also
makes that backend the target for players who join next: only what is absent is ever registered.
"""

import hashlib
from typing import Any, ClassVar

import httpx
import pandas as pd

from zlh_dagster.core.changes import Change
from zlh_dagster.core.model import BACKEND, DriftKind, Surface, records_frame
from zlh_dagster.core.names import backend_content, canonical_address, split_backend
from zlh_dagster.resources.edge import READ_TIMEOUT, WRITE_TIMEOUT, expect, field
from zlh_dagster.resources.http import AlreadyThere, ApiClient, HttpApi, Rejected


class Velocity(ApiClient):
    """The bridge.

    Args:
        base_url: The bridge's URL, without ``/zpack``.
        secret: Shared secret; its SHA-256 hex digest is what travels.
        transport: For tests.
    """

    surface = Surface.VELOCITY
    at_once: ClassVar[int] = 8
    per_call: ClassVar[int] = 1

    def __init__(
        self, *, base_url: str, secret: str, transport: httpx.BaseTransport | None = None
    ) -> None:
        digest = hashlib.sha256(secret.encode()).hexdigest()
        super().__init__(
            HttpApi(
                self.surface.value,
                base_url,
                headers={"X-Zpack-Secret": digest},
                timeout=READ_TIMEOUT,
                transport=transport,
            )
        )

    def list_records(self) -> pd.DataFrame:
        """All registrations; ``content`` is null where an older bridge tells no address.

        Raises:
            EdgeError: If the bridge does not answer with a list of servers.
        """
        status, answer = self._api.read(lambda: self._api.call("GET", "/zpack/list"))
        if status != 200:
            raise Rejected(f"velocity: HTTP {status} to the list")
        listed = field(answer, "servers", list, "velocity: the answer")
        return records_frame([_row(server) for server in listed])

    def apply(self, change: Change) -> None:
        """Registers an absent backend.

        Raises:
            Rejected: If the backend is not absent, or the bridge refuses.
            EdgeError: See ``HttpApi.call``.
        """
        if change.kind is not DriftKind.MISSING:
            raise Rejected(f"velocity: {change.describe()}: only absent backends are registered")
        address, port = split_backend(str(change.wanted.content))
        body = {"server_name": change.wanted.name, "address": address, "port": port}
        status, _ = self._api.call("POST", "/zpack/register", json=body, timeout=WRITE_TIMEOUT)
        if status == 409:
            raise AlreadyThere(f"velocity: {change.wanted.name} is registered already")
        if status >= 400:
            raise Rejected(f"velocity: HTTP {status} to the registration")


def _row(server: Any) -> dict[str, Any]:
    where = "velocity"
    name = field(server, "name", str, where).lower()
    address, port = server.get("address"), server.get("port")
    content = None
    if address is not None and port is not None:
        content = backend_content(
            canonical_address(expect(address, str, f"{where}: 'address'")),
            expect(port, int, f"{where}: 'port'"),
        )
    return {"surface": Surface.VELOCITY.value, "name": name, "type": BACKEND, "content": content}
