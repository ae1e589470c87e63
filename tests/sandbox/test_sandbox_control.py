"""The sandbox's own API, its journal, and its life as a server."""

import socket
import threading
import time

import httpx
import pytest

from zlh_dagster.sandbox.config import SandboxConfig
from zlh_dagster.sandbox.server import Sandbox, SandboxError


def test_the_journal_has_every_call_in_order(edge, address):
    """With surface, method, path, status, and whether it was a write."""
    edge.cloudflare("GET", params={"page": 1})
    edge.cloudflare("POST", json=address)
    edge.technitium("add", domain="example.gg", type="A", ipAddress="10.70.0.2")
    edge.velocity("GET", "list")
    edge.discord("POST", "info", {"content": "x"})
    entries = edge.control("GET", "requests").json()
    assert [(e["surface"], e["method"], e["write"], e["status"]) for e in entries] == [
        ("cloudflare", "GET", False, 200),
        ("cloudflare", "POST", True, 200),
        ("technitium", "POST", True, 200),
        ("velocity", "GET", False, 200),
        ("discord", "POST", True, 204),
    ]
    assert [e["n"] for e in entries] == list(range(entries[0]["n"], entries[0]["n"] + 5))
    assert entries[0]["path"].endswith("/dns_records")
    assert entries[0]["query"] == "page=1"
    assert entries[0]["at"] <= entries[-1]["at"]


def test_the_journal_can_be_narrowed_and_cleared(edge):
    """One surface at a time; numbers go on after clearing."""
    edge.velocity("GET", "list")
    edge.discord("GET", "info")
    [entry] = edge.control("GET", "requests?surface=velocity").json()
    assert entry["surface"] == "velocity"
    assert edge.control("DELETE", "requests").status_code == 204
    assert edge.control("GET", "requests").json() == []
    edge.velocity("GET", "list")
    assert edge.control("GET", "requests").json()[0]["n"] > entry["n"]
    assert edge.control("GET", "requests?surface=nowhere").status_code == 400


def test_the_state_tells_configuration_and_counters(edge, address):
    """Without a secret in it."""
    edge.cloudflare("POST", json=address)
    response = edge.control("GET", "state")
    state = response.json()
    assert (state["zone"], state["zone_id"]) == ("example.gg", edge.sandbox.config.zone_id)
    assert state["cloudflare"]["records"] == 1
    assert state["requests"]["cloudflare"] == {"reads": 0, "writes": 1}
    for secret in edge.sandbox.environment():
        if secret.endswith(("_TOKEN", "_SECRET")):
            assert edge.sandbox.environment()[secret] not in response.text


def test_heartbeats_are_counted(edge):
    """By either method."""
    for method in ("GET", "POST"):
        assert edge.http.request(method, f"{edge.sandbox.url}/heartbeat").status_code == 200
    heartbeat = edge.control("GET", "state").json()["heartbeat"]
    assert heartbeat["count"] == 2
    assert heartbeat["last_at"] is not None


def test_a_reset_forgets_everything(edge, address):
    """As if the sandbox had just begun."""
    edge.cloudflare("POST", json=address)
    edge.technitium("add", domain="example.gg", type="A", ipAddress="10.70.0.2")
    edge.discord("POST", "info", {"content": "x"})
    edge.fail("cloudflare", "html")
    edge.sandbox.reset()
    state = edge.control("GET", "state").json()
    assert state["cloudflare"]["records"] == 0
    assert state["technitium"]["records"] == 3
    assert state["discord"]["messages"] == 0
    assert edge.control("GET", "faults").json() == {}
    assert edge.control("GET", "requests").json() == []


def test_the_environment_names_every_setting(edge):
    """Base addresses as the settings want them."""
    environment, url = edge.sandbox.environment(), edge.sandbox.url
    assert environment["CLOUDFLARE_API_BASE"] == f"{url}/client/v4"
    assert environment["TECHNITIUM_API_URL"] == environment["VELOCITY_URL"] == url
    assert environment["DISCORD_WEBHOOK_REPAIR"] == f"{url}/discord/repair"
    assert environment["CLOUDFLARE_EDGE_IP"] == "203.0.113.10"
    assert "ZLH_DATABASE_URL" not in environment
    assert set(environment) == {
        "ZLH_ZONE",
        "CLOUDFLARE_API_BASE",
        "CLOUDFLARE_API_TOKEN",
        "CLOUDFLARE_ZONE_ID",
        "CLOUDFLARE_EDGE_IP",
        "TECHNITIUM_API_URL",
        "TECHNITIUM_API_TOKEN",
        "VELOCITY_EDGE_IP",
        "TRAEFIK_EDGE_IP",
        "VELOCITY_URL",
        "ZPACK_SECRET",
        "PROXMOX_URL",
        "PROXMOX_NODE",
        "PROXMOX_TOKEN_ID",
        "PROXMOX_TOKEN_SECRET",
        "ZLH_AGENT_PORT",
        "ZLH_AGENT_NETWORKS",
        "DISCORD_WEBHOOK_CRITICAL",
        "DISCORD_WEBHOOK_WARNING",
        "DISCORD_WEBHOOK_REPAIR",
        "DISCORD_WEBHOOK_INFO",
        "ZLH_HEARTBEAT_URL",
    }


def test_two_sandboxes_live_side_by_side():
    """Each on a port of its own, with a zone of its own."""
    with Sandbox() as one, Sandbox(SandboxConfig(zone="other.gg")) as two:
        assert one.url != two.url
        assert httpx.get(f"{two.url}/sandbox/state").json()["zone"] == "other.gg"


def test_a_stopped_sandbox_is_gone_and_can_start_again():
    """Hanging calls do not hold it up, and its state stays."""
    sandbox = Sandbox()
    with sandbox:
        url = sandbox.url
        sandbox.edge.faults.switch_on("velocity", "hang", seconds=60)
        caller = threading.Thread(target=_ignoring_errors, args=(f"{url}/zpack/list",))
        caller.start()
        while not sandbox.edge.journal.entries("velocity"):
            time.sleep(0.005)
    caller.join(5)
    assert not caller.is_alive()
    assert not sandbox.running
    with pytest.raises(httpx.ConnectError):
        httpx.get(f"{url}/sandbox/state")
    with pytest.raises(SandboxError, match="not started"):
        _ = sandbox.url
    with sandbox:
        assert "velocity" in httpx.get(f"{sandbox.url}/sandbox/faults").json()


def test_a_port_that_is_taken_is_one_clear_error():
    """It names the port."""
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        with pytest.raises(SandboxError, match=f"port {port}"):
            Sandbox(port=port).start()


def test_state_can_be_read_while_calls_come_in(edge, address):
    """A copy each time, never a list that changes underfoot."""
    done = threading.Event()
    seen: set[int] = set()

    def look() -> None:
        while not done.is_set():
            seen.add(sum(record.type == "A" for record in edge.sandbox.edge.cloudflare.records()))
            time.sleep(0.001)

    watcher = threading.Thread(target=look)
    watcher.start()
    for n in range(100):
        edge.cloudflare("POST", json={**address, "name": f"mc-{n}"})
    done.set()
    watcher.join()
    assert len(seen) > 10
    assert len(edge.sandbox.edge.cloudflare.records()) == 100


def test_stopping_does_not_wait_for_a_reader_that_stalls():
    """A huge answer that nobody reads is dropped."""
    sandbox = Sandbox()
    with sandbox:
        sandbox.edge.faults.switch_on("velocity", "huge", megabytes=1000)
        with httpx.stream("GET", f"{sandbox.url}/zpack/list") as response:
            next(response.iter_bytes())
            began = time.monotonic()
            sandbox.stop()
            assert time.monotonic() - began < 1.5


def _ignoring_errors(url: str) -> None:
    try:
        httpx.get(url, timeout=30)
    except httpx.HTTPError:
        return
