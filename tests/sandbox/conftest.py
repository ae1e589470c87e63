"""One sandbox for all of these tests, emptied before each."""

import hashlib
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import httpx
import pytest

from zlh_dagster.sandbox.server import Sandbox


@dataclass(frozen=True)
class Edge:
    """The providers as a caller sees them: over HTTP, with the right tokens."""

    sandbox: Sandbox
    http: httpx.Client

    @property
    def dns_records(self) -> str:
        zone_id = self.sandbox.config.zone_id
        return f"{self.sandbox.url}/client/v4/zones/{zone_id}/dns_records"

    def cloudflare(self, method: str, path: str = "", **arguments: Any) -> httpx.Response:
        token = self.sandbox.config.cloudflare_token
        headers = {"Authorization": f"Bearer {token}"}
        url = f"{self.dns_records}{path}"
        return self.http.request(method, url, headers=headers, **arguments)

    def technitium(self, call: str, **fields: str) -> dict[str, Any]:
        token = self.sandbox.config.technitium_token
        response = self.http.post(
            f"{self.sandbox.url}/api/zones/records/{call}",
            data={"zone": self.sandbox.config.zone, **fields},
            headers={"Authorization": f"Bearer {token}"},
        )
        assert response.status_code == 200
        answer = response.json()
        assert isinstance(answer, dict)
        return answer

    def velocity(self, method: str, call: str, body: Any = None) -> httpx.Response:
        digest = hashlib.sha256(self.sandbox.config.zpack_secret.encode()).hexdigest()
        return self.http.request(
            method,
            f"{self.sandbox.url}/zpack/{call}",
            headers={"X-Zpack-Secret": digest},
            json=body,
        )

    def discord(self, method: str, path: str, body: Any = None) -> httpx.Response:
        return self.http.request(method, f"{self.sandbox.url}/discord/{path}", json=body)

    def proxmox(self, node: str = "pve1", token: str | None = None) -> httpx.Response:
        config = self.sandbox.config
        token = token or f"{config.proxmox_token_id}={config.proxmox_token_secret}"
        url = f"{self.sandbox.url}/api2/json/nodes/{node}/lxc"
        return self.http.get(url, headers={"Authorization": f"PVEAPIToken={token}"})

    def agent(
        self,
        path: str = "/health",
        *,
        address: str = "127.60.0.1",
        method: str = "GET",
        **options: Any,
    ) -> httpx.Response:
        url = f"http://{address}:{self.sandbox.agent_port}{path}"
        return self.http.request(method, url, **options)

    def control(self, method: str, path: str, body: Any = None) -> httpx.Response:
        return self.http.request(method, f"{self.sandbox.url}/sandbox/{path}", json=body)

    def fail(self, surface: str, kind: str, **options: Any) -> None:
        response = self.control("PUT", f"faults/{surface}", {"kind": kind, **options})
        assert response.status_code == 200, response.text


@pytest.fixture(scope="session")
def running_edge() -> Iterator[Edge]:
    with Sandbox() as sandbox, httpx.Client(timeout=10) as http:
        yield Edge(sandbox, http)


@pytest.fixture
def edge(running_edge: Edge) -> Edge:
    running_edge.sandbox.reset()
    return running_edge


@pytest.fixture
def address() -> dict[str, Any]:
    """Body of an A record."""
    return {"type": "A", "name": "mc-5000.example.gg", "content": "203.0.113.10", "ttl": 60}


@pytest.fixture
def service() -> dict[str, Any]:
    """Body of an SRV record."""
    return {
        "type": "SRV",
        "name": "_minecraft._tcp.mc-5000.example.gg",
        "ttl": 60,
        "data": {"priority": 0, "weight": 5, "port": 25565, "target": "mc-5000.example.gg"},
    }
