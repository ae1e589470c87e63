"""The pretend Proxmox node lists its containers as Proxmox VE does."""

import time

import httpx
import pytest

from zlh_dagster.sandbox.config import SandboxConfig
from zlh_dagster.sandbox.containers import Container, UnknownContainer
from zlh_dagster.sandbox.server import Sandbox


@pytest.fixture
def node(edge):
    """Two containers that run."""
    edge.sandbox.edge.containers.put_all([Container(5000, "mc-5000"), Container(5001, "mc-5001")])
    return edge


def _rows(edge):
    response = edge.proxmox()
    assert response.status_code == 200
    return {row["vmid"]: row for row in response.json()["data"]}


def test_a_running_container_is_listed_with_the_usual_fields(node):
    """The VMID is a number, and there is no lock unless one is held."""
    row = _rows(node)[5000]
    assert (row["name"], row["status"], row["type"]) == ("mc-5000", "running", "lxc")
    assert {"cpu", "cpus", "mem", "maxmem", "disk", "maxdisk", "uptime", "pid"} <= set(row)
    assert row["uptime"] > 0
    assert "lock" not in row


@pytest.mark.parametrize("token", ["zlh@pve!controller=wrong", "zlh@pve!controller", "root@pam=x"])
def test_a_wrong_token_is_refused(node, token):
    """With an empty body: Proxmox puts the reason into the status line."""
    response = node.proxmox(token=token)
    assert (response.status_code, response.content) == (401, b"")
    bare = node.http.get(f"{node.sandbox.url}/api2/json/nodes/pve1/lxc")
    assert bare.status_code == 401


def test_a_refusal_can_be_as_late_as_the_real_one():
    """And holds up no other call."""
    with Sandbox(SandboxConfig(proxmox_refusal_seconds=0.3)) as sandbox:
        began = time.monotonic()
        assert httpx.get(f"{sandbox.url}/api2/json/nodes/pve1/lxc").status_code == 401
        assert 0.3 <= time.monotonic() - began < 2


def test_a_token_without_audit_sees_an_empty_list(node):
    """Status 200: nothing in the answer tells it from a node without containers."""
    node.fail("proxmox", "empty")
    response = node.proxmox()
    assert (response.status_code, response.json()) == (200, {"data": []})


def test_an_unknown_node_is_a_failed_lookup(node):
    """Status 500, as when Proxmox would hand the call on to that node."""
    response = node.proxmox(node="pve9")
    assert response.status_code == 500
    assert response.json()["data"] is None
    assert "hostname lookup 'pve9' failed" in response.json()["message"]


def test_other_paths_are_not_implemented(node):
    """Status 501, with the method and path."""
    url = f"{node.sandbox.url}/api2/json/nodes/pve1/lxc/5000/status/stop"
    assert node.http.post(url).status_code == 401
    config = node.sandbox.config
    token = f"PVEAPIToken={config.proxmox_token_id}={config.proxmox_token_secret}"
    response = node.http.post(url, headers={"Authorization": token})
    assert response.status_code == 501
    assert "POST /nodes/pve1/lxc/5000/status/stop" in response.json()["message"]


def test_states_are_switched_over_the_control_api(node):
    """Status and lock, each on its own."""
    assert node.control("PUT", "proxmox/containers/5000", {"status": "stopped"}).is_success
    assert node.control("PUT", "proxmox/containers/5001", {"lock": "backup"}).is_success
    rows = _rows(node)
    assert (rows[5000]["status"], rows[5000]["uptime"]) == ("stopped", 0)
    assert (rows[5001]["status"], rows[5001]["lock"]) == ("running", "backup")
    node.control("PUT", "proxmox/containers/5001", {"lock": None})
    assert "lock" not in _rows(node)[5001]


def test_a_stale_node_knows_nothing_of_any_container(node):
    """All at once."""
    assert node.control("PUT", "proxmox/containers", {"status": "unknown"}).is_success
    assert {row["status"] for row in _rows(node).values()} == {"unknown"}


def test_containers_come_and_go(node):
    """A second one of the same VMID is refused."""
    assert node.control("DELETE", "proxmox/containers/5000").status_code == 204
    assert set(_rows(node)) == {5001}
    body = {"name": "mc-7", "status": "stopped"}
    assert node.control("POST", "proxmox/containers/5007", body).is_success
    assert _rows(node)[5007]["status"] == "stopped"
    assert node.control("POST", "proxmox/containers/5007", body).status_code == 400
    listed = node.control("GET", "proxmox/containers").json()
    assert [container["vmid"] for container in listed] == [5001, 5007]


@pytest.mark.parametrize(
    ("method", "path", "body", "part"),
    [
        ("PUT", "proxmox/containers/5000", {"status": "paused"}, "running, stopped, unknown"),
        ("PUT", "proxmox/containers/5000", {"colour": "red"}, "name, address, status, lock"),
        ("PUT", "proxmox/containers/5000", {"vmid": 1}, "'vmid'"),
        ("PUT", "proxmox/containers/5099", {"status": "stopped"}, "no container 5099"),
        ("PUT", "proxmox/containers/5000", [], "JSON object"),
        ("POST", "proxmox/containers/5099", {"status": 1}, "'status'"),
        ("DELETE", "proxmox/containers/5099", None, "no container 5099"),
        ("PUT", "agents/5000", {"mode": "asleep"}, "silent, refused, slow"),
        ("PUT", "agents/5000", {"stop": True}, "server, container, nothing"),
        ("PUT", "agents/5099", {"mode": "silent"}, "no container 5099"),
    ],
)
def test_a_change_that_does_not_exist_is_refused(node, method, path, body, part):
    """Status 400, the message names what there is, and nothing has changed."""
    before = node.control("GET", "proxmox/containers").json()
    response = node.control(method, path, body)
    assert response.status_code == 400
    assert part in response.json()["error"]
    assert node.control("GET", "proxmox/containers").json() == before


def test_states_are_switched_from_python(node):
    """With the same names and the same checks."""
    node.sandbox.edge.containers.change(5000, status="stopped", lock="migrate")
    assert _rows(node)[5000]["lock"] == "migrate"
    with pytest.raises(UnknownContainer, match="running, stopped, unknown"):
        node.sandbox.edge.containers.change(5000, status="gone")


def test_the_journal_and_the_state_count_the_node(node):
    """As any other surface."""
    node.control("DELETE", "requests")
    node.proxmox()
    node.fail("proxmox", "status", code=503)
    node.proxmox()
    entries = node.control("GET", "requests?surface=proxmox").json()
    assert [(e["method"], e["status"], e["fault"]) for e in entries] == [
        ("GET", 200, None),
        ("GET", 503, "status"),
    ]
    state = node.control("GET", "state").json()
    assert state["requests"]["proxmox"] == {"reads": 2, "writes": 0}
    assert state["proxmox"] == {"containers": 2, "running": 2}
