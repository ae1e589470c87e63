"""The pretend bridge behaves as the plugin does."""

import hashlib

import httpx
import pytest

from zlh_dagster.sandbox.config import SandboxConfig
from zlh_dagster.sandbox.server import Sandbox
from zlh_dagster.sandbox.velocity_api import Backend

BACKEND = {"server_name": "mc-5000", "address": "10.60.0.1", "port": 25565}


def _servers(edge):
    response = edge.velocity("GET", "list")
    assert response.status_code == 200
    return response.json()["servers"]


@pytest.mark.parametrize("secret", [None, "wrong", "sandbox-zpack-secret"])
@pytest.mark.parametrize(("method", "call"), [("GET", "list"), ("POST", "register")])
def test_calls_need_the_digest_of_the_secret(edge, secret, method, call):
    """Neither nothing nor the secret itself will do."""
    headers = {} if secret is None else {"X-Zpack-Secret": secret}
    response = edge.http.request(method, f"{edge.sandbox.url}/zpack/{call}", headers=headers)
    assert response.status_code == 401


def test_a_registered_backend_is_listed(edge):
    """With address and port, and its name in lower case."""
    assert edge.velocity("POST", "register", {**BACKEND, "server_name": "MC-5000"}).is_success
    assert _servers(edge) == [{"name": "mc-5000", "address": "10.60.0.1", "port": 25565}]


def test_an_older_bridge_lists_names_alone():
    """Addresses and ports may be lacking."""
    config = SandboxConfig(velocity_lists_addresses=False)
    digest = hashlib.sha256(config.zpack_secret.encode()).hexdigest()
    with Sandbox(config) as sandbox:
        sandbox.edge.velocity.seed([Backend("mc-5000", "10.60.0.1", 25565)])
        response = httpx.get(f"{sandbox.url}/zpack/list", headers={"X-Zpack-Secret": digest})
        assert response.json() == {"servers": [{"name": "mc-5000"}]}


def test_registering_makes_the_backend_the_next_target(edge):
    """Also when it was registered already, which is counted apart."""
    edge.velocity("POST", "register", BACKEND)
    edge.velocity("POST", "register", {**BACKEND, "server_name": "mc-5001"})
    assert edge.sandbox.edge.velocity.last_join_target == "mc-5001"
    assert edge.velocity("POST", "register", BACKEND).status_code == 200
    state = edge.control("GET", "state").json()["velocity"]
    assert state["last_join_target"] == "mc-5000"
    assert (state["registrations"], state["reregistrations"]) == (2, 1)


@pytest.mark.parametrize("change", [{"address": "10.60.0.9"}, {"port": 25570}])
def test_a_name_with_another_address_is_a_conflict(edge, change):
    """The registration stays as it was."""
    edge.velocity("POST", "register", BACKEND)
    assert edge.velocity("POST", "register", {**BACKEND, **change}).status_code == 409
    assert _servers(edge) == [{"name": "mc-5000", "address": "10.60.0.1", "port": 25565}]


@pytest.mark.parametrize(
    "change", [{"server_name": " "}, {"address": None}, {"port": "25565"}, {"port": 0}]
)
def test_a_registration_that_lacks_something_is_refused(edge, change):
    """Status 400, and nothing is registered."""
    assert edge.velocity("POST", "register", {**BACKEND, **change}).status_code == 400
    assert _servers(edge) == []


@pytest.mark.parametrize("method", ["POST", "DELETE"])
def test_an_unregistered_backend_is_gone(edge, method):
    """And is no target any more; a second time it is unknown."""
    edge.velocity("POST", "register", BACKEND)
    name = {"server_name": "MC-5000"}
    assert edge.velocity(method, "unregister", name).status_code == 200
    assert _servers(edge) == []
    assert edge.sandbox.edge.velocity.last_join_target is None
    assert edge.velocity(method, "unregister", name).status_code == 404
    assert edge.velocity(method, "unregister", {}).status_code == 400


def test_a_restart_loses_every_registration(edge):
    """They live in memory only."""
    edge.velocity("POST", "register", BACKEND)
    assert edge.control("PUT", "velocity/restart").status_code == 204
    assert _servers(edge) == []
    assert edge.control("GET", "state").json()["velocity"]["restarts"] == 1
    assert edge.velocity("GET", "other").status_code == 404
