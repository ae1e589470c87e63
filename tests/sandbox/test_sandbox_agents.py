"""The pretend agents: one at each container's own address, well or failing in many ways."""

import contextlib
import resource
import socket
import threading
import time

import httpx
import pytest

from zlh_dagster.sandbox import agent_listeners
from zlh_dagster.sandbox.containers import Container
from zlh_dagster.sandbox.server import Sandbox, SandboxError

ADDRESS, OTHER = "127.60.0.1", "127.60.0.2"


@pytest.fixture
def agents(edge):
    """Two containers whose agents are well."""
    edge.sandbox.edge.containers.put_all(
        [Container(5000, "mc-5000", ADDRESS), Container(5001, "mc-5001", OTHER)]
    )
    return edge


def _set(edge, vmid=5000, **options):
    response = edge.control("PUT", f"agents/{vmid}", options)
    assert response.status_code == 200, response.text


def _until(look, seconds=5.0):
    give_up = time.monotonic() + seconds
    while not look():
        assert time.monotonic() < give_up
        time.sleep(0.01)


def test_each_agent_answers_at_its_own_address(agents):
    """Health, and the state of its server."""
    for vmid, address in ((5000, ADDRESS), (5001, OTHER)):
        health = agents.agent(address=address)
        assert (health.status_code, health.json()) == (200, {"status": "ok"})
        status = agents.agent("/status", address=address).json()
        assert (status["state"], status["vmid"]) == ("running", vmid)


def test_only_loopback_addresses_of_containers_listen(agents):
    """No other address, and none outside loopback, even when a container is there."""
    with pytest.raises(httpx.ConnectError):
        agents.agent(address="127.60.0.3")
    agents.sandbox.edge.containers.put(Container(5002, "mc-5002", "0.0.0.0"))
    agents.sandbox.edge.containers.put(Container(5003, "mc-5003", "10.60.0.9"))
    agents.sandbox.edge.containers.put(Container(5004, "mc-5004", "no address"))
    agents.sandbox.edge.containers.put(Container(5005, "mc-5005", ADDRESS))
    assert agents.agent("/status").json()["vmid"] == 5000
    with pytest.raises(httpx.ConnectError):
        agents.agent(address="127.60.0.3")


def test_other_paths_and_methods_are_refused(agents):
    """404 and 405."""
    assert agents.agent("/other").status_code == 404
    assert agents.agent(method="POST").status_code == 405
    assert agents.agent("/stop").status_code == 405


def test_an_unhealthy_agent_says_so_itself(agents):
    """503 on its health; its state is still told."""
    _set(agents, mode="unhealthy")
    assert agents.agent().status_code == 503
    assert agents.agent("/status").json()["state"] == "running"
    assert agents.agent(address=OTHER).status_code == 200


def test_a_silent_agent_accepts_and_never_answers(agents):
    """Until the caller has had enough; the journal has the call."""
    _set(agents, mode="silent")
    with pytest.raises(httpx.ReadTimeout):
        agents.agent(timeout=0.2)
    [entry] = agents.control("GET", "requests?surface=agents").json()
    assert (entry["vmid"], entry["status"], entry["fault"]) == (5000, None, "silent")


def test_a_refused_connection_is_refused_at_once_and_accepted_again(agents):
    """By the time the control call returns, many times over."""
    for _ in range(20):
        _set(agents, mode="refused")
        with pytest.raises(httpx.ConnectError):
            httpx.get(f"http://{ADDRESS}:{agents.sandbox.agent_port}/health")
        _set(agents, mode="healthy")
        assert agents.agent().status_code == 200


@pytest.mark.parametrize("status", ["stopped", None])
def test_a_container_that_is_not_running_has_no_agent(agents, status):
    """Stopped or removed."""
    containers = agents.sandbox.edge.containers
    assert agents.agent().status_code == 200
    if status is None:
        containers.remove(5000)
    else:
        containers.change(5000, status=status)
    with pytest.raises(httpx.ConnectError):
        httpx.get(f"http://{ADDRESS}:{agents.sandbox.agent_port}/health")
    with pytest.raises(httpx.RemoteProtocolError):
        agents.agent()  # the kept connection of the call before


@pytest.mark.parametrize("change", [{"status": "unknown"}, {"lock": "backup"}])
def test_what_the_node_says_does_not_silence_an_agent(agents, change):
    """A stale node and a lock are no end of a container."""
    agents.sandbox.edge.containers.change(5000, **change)
    assert agents.agent().status_code == 200


def test_an_agent_follows_its_container_to_another_address(agents):
    """And is gone from the first."""
    agents.sandbox.edge.containers.change(5000, address="127.60.0.7")
    assert agents.agent(address="127.60.0.7").status_code == 200
    with pytest.raises(httpx.TransportError):
        agents.agent()


def test_a_slow_agent_answers_late(agents):
    """And holds up no other."""
    _set(agents, mode="slow", seconds=0.3)
    began = time.monotonic()
    with pytest.raises(httpx.ReadTimeout):
        agents.agent(timeout=0.1)
    assert agents.agent(address=OTHER).status_code == 200
    assert time.monotonic() - began < 0.3
    assert agents.agent().status_code == 200
    assert time.monotonic() - began > 0.3


def test_a_dripping_agent_outlasts_a_time_out_for_each_read(agents):
    """Byte by byte, each in time."""
    _set(agents, mode="dripping", seconds=0.003)
    began = time.monotonic()
    assert agents.agent(timeout=0.25).json() == {"status": "ok"}
    assert time.monotonic() - began > 0.3


def test_html_comes_in_place_of_json(agents):
    """With status 200."""
    _set(agents, mode="html")
    response = agents.agent("/status")
    assert (response.status_code, response.text[:15]) == (200, "<!DOCTYPE html>")


def test_truncated_json_is_half_of_the_body(agents):
    """HTTP itself has nothing to complain of."""
    _set(agents, mode="truncated")
    response = agents.agent()
    assert (response.status_code, response.text) == (200, '{"statu')


def test_a_redirect_leads_to_an_answer_that_shows_in_the_journal(agents):
    """So that following it can be told from leaving it."""
    _set(agents, mode="redirect")
    assert agents.agent().status_code == 302
    assert agents.agent(follow_redirects=True).json() == {"status": "ok"}
    paths = [e["path"] for e in agents.control("GET", "requests?surface=agents").json()]
    assert paths == ["/health", "/health", "/redirected"]


def test_a_huge_answer_can_be_left(agents):
    """It says no length; the agent goes on serving."""
    _set(agents, mode="huge")
    url = f"http://{ADDRESS}:{agents.sandbox.agent_port}/health"
    with agents.http.stream("GET", url) as response:
        assert "content-length" not in response.headers
        next(response.iter_bytes())
    _set(agents, mode="healthy")
    assert agents.agent().status_code == 200


def test_the_state_is_any_text(agents):
    """As the agent tells it."""
    _set(agents, state="starting <b>\n")
    assert agents.agent("/status").json()["state"] == "starting <b>\n"


def test_stopping_takes_a_moment(agents):
    """Accepted, stopping, stopped; the container runs on."""
    _set(agents, stop_seconds=0.2)
    assert agents.agent("/stop", method="POST", json={}).status_code == 202
    assert agents.agent("/status").json()["state"] == "stopping"
    _until(lambda: agents.agent("/status").json()["state"] == "stopped")
    assert agents.sandbox.edge.containers.get(5000).status == "running"
    [entry] = [e for e in agents.control("GET", "requests?surface=agents").json() if e["write"]]
    assert (entry["path"], entry["vmid"], entry["status"]) == ("/stop", 5000, 202)


def test_stopping_can_end_the_container_too(agents):
    """Then nothing answers any more."""
    _set(agents, stop="container", stop_seconds=0)
    assert agents.agent("/stop", method="POST").status_code == 202
    _until(lambda: agents.sandbox.edge.containers.get(5000).status == "stopped")


def test_a_stop_can_say_yes_and_do_nothing(agents):
    """The state stays."""
    _set(agents, stop="nothing", stop_seconds=0)
    assert agents.agent("/stop", method="POST").status_code == 202
    time.sleep(0.05)
    assert agents.agent("/status").json()["state"] == "running"


def test_the_journal_counts_agents(agents):
    """Reads and writes, with the VMID."""
    agents.agent()
    agents.agent("/status?x=1", address=OTHER)
    agents.agent("/stop", method="POST")
    entries = agents.sandbox.edge.journal.entries("agents")
    assert [(e.vmid, e.path, e.query) for e in entries] == [
        (5000, "/health", ""),
        (5001, "/status", "x=1"),
        (5000, "/stop", ""),
    ]
    assert agents.sandbox.edge.journal.counts()["agents"] == {"reads": 2, "writes": 1}


@pytest.mark.parametrize(
    "sent", [b"\r\n\r\n", b"GET /\r\n\r\n", b"GET / HTTP/1.1\r\nX: " + b"x" * 99_999]
)
def test_what_is_no_http_ends_the_connection(agents, sent):
    """And nothing else."""
    with socket.create_connection((ADDRESS, agents.sandbox.agent_port), timeout=5) as connection:
        connection.sendall(sent)
        with contextlib.suppress(ConnectionResetError):
            assert connection.recv(10) == b""
    assert agents.agent().status_code == 200


def test_all_agents_change_at_once(agents):
    """In one call."""
    assert agents.control("PUT", "agents", {"mode": "unhealthy"}).is_success
    assert {agents.agent(address=a).status_code for a in (ADDRESS, OTHER)} == {503}


def test_a_reset_leaves_no_agent(agents):
    """And the same addresses can be taken at once, again and again."""
    for _ in range(20):
        agents.sandbox.reset()
        with pytest.raises(httpx.ConnectError):
            httpx.get(f"http://{ADDRESS}:{agents.sandbox.agent_port}/health")
        agents.sandbox.edge.containers.put(Container(5000, "mc-5000", ADDRESS))
        assert httpx.get(f"http://{ADDRESS}:{agents.sandbox.agent_port}/health").is_success


def test_two_sandboxes_have_agents_at_the_same_addresses():
    """Each at a port of its own."""
    with Sandbox() as one, Sandbox() as two:
        assert one.agent_port != two.agent_port
        one.edge.containers.put(Container(5000, "one", ADDRESS))
        two.edge.containers.put(Container(5000, "two", ADDRESS))
        for sandbox, name in ((one, "one"), (two, "two")):
            url = f"http://{ADDRESS}:{sandbox.agent_port}/status"
            assert httpx.get(url).json()["hostname"] == name


def test_agents_end_with_the_sandbox_and_come_back_with_it():
    """A call that hangs does not hold up the end."""
    sandbox = Sandbox()
    with pytest.raises(SandboxError, match="not started"):
        _ = sandbox.agent_port
    sandbox.edge.containers.put(Container(5000, "mc-5000", ADDRESS))
    with sandbox:
        url = f"http://{ADDRESS}:{sandbox.agent_port}/health"
        assert httpx.get(url).is_success
        sandbox.edge.containers.change_agent(5000, mode="silent")
        caller = threading.Thread(target=_ignoring_errors, args=(url,))
        caller.start()
        _until(lambda: len(sandbox.edge.journal.entries("agents")) == 2)
        began = time.monotonic()
    assert time.monotonic() - began < 1.5
    caller.join(5)
    assert not caller.is_alive()
    with pytest.raises(httpx.ConnectError):
        httpx.get(url)
    sandbox.edge.containers.change_agent(5000, mode="healthy")
    with sandbox:
        assert httpx.get(f"http://{ADDRESS}:{sandbox.agent_port}/health").is_success


def test_an_agent_port_that_is_taken_is_one_clear_error():
    """It names the port, or the address and the container."""
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        with pytest.raises(SandboxError, match=f"port {port}"):
            Sandbox(agent_port=port).start()
    with (
        Sandbox() as sandbox,
        socket.create_server((OTHER, sandbox.agent_port)),
        pytest.raises(OSError, match=rf"{OTHER}:\d+ for the agent of container 5001"),
    ):
        sandbox.edge.containers.put(Container(5001, "mc-5001", OTHER))


def test_the_limit_of_open_files_is_raised_or_told(monkeypatch):
    """The soft limit grows up to the hard one; beyond it, the message says what to do."""
    limits = [(1024, 4096)]
    monkeypatch.setattr(resource, "getrlimit", lambda _: limits[-1])
    monkeypatch.setattr(resource, "setrlimit", lambda _, pair: limits.append(pair))
    agent_listeners._make_room(10)
    assert limits == [(1024, 4096)]
    agent_listeners._make_room(1000)
    assert limits[-1] == (4096, 4096)
    with pytest.raises(OSError, match="ulimit -n"):
        agent_listeners._make_room(4000)


def _ignoring_errors(url: str) -> None:
    try:
        httpx.get(url, timeout=30)
    except httpx.HTTPError:
        return
