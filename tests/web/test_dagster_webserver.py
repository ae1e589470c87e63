"""What a page in the operator's browser cannot do; the web server is a real process."""

import json
import subprocess
import time
from collections.abc import Iterator

import httpx
import pytest
from websockets.exceptions import InvalidStatus
from websockets.sync.client import connect

from tests.stack.stack import free_port, until
from zlh_dagster.cli import up
from zlh_dagster.cli.home import environment_of, prepare_home, web_command, workspace_of
from zlh_dagster.cli.parts import Part
from zlh_dagster.cli.serve import command
from zlh_dagster.resources.settings import Settings

PUBLIC = "https://dagster.example.gg"
MUTATION = "mutation { setNuxSeen }"
QUERY = "{ version }"
ELSEWHERE = ("https://evil.example", "http://127.0.0.1:1", "http://localhost", "null", "")


@pytest.fixture(scope="module")
def web(tmp_path_factory: pytest.TempPathFactory) -> Iterator[httpx.Client]:
    """The web server as `zlh serve web` and `zlh up` start it, of a home without code."""
    home = tmp_path_factory.mktemp("home")
    settings = Settings(
        _env_file=None, dagster_home=home, zlh_web_port=free_port(), zlh_web_url=PUBLIC
    )
    prepare_home(home)
    workspace_of(settings).write_text(json.dumps({"load_from": []}))
    process = subprocess.Popen(command(settings, Part.WEB), env=environment_of(settings), cwd=home)
    with httpx.Client(base_url=f"http://127.0.0.1:{settings.zlh_web_port}", timeout=30) as client:
        try:
            until(lambda: answers(client, process), seconds=90, what="the web server")
            yield client
        finally:
            process.terminate()
            process.wait(30)


def answers(client: httpx.Client, process: "subprocess.Popen[bytes]") -> bool:
    assert process.poll() is None, "the web server ended"
    try:
        return client.get("/server_info").is_success
    except httpx.TransportError:
        time.sleep(0.2)
        return False


def host_of(web: httpx.Client) -> str:
    return web.base_url.netloc.decode()


def ask(web: httpx.Client, **headers: str) -> httpx.Response:
    return web.post("/graphql", json={"query": QUERY}, headers=headers)


def test_a_link_or_a_picture_elsewhere_starts_nothing(web):
    for path in ("/graphql", "//graphql", "/graphql/"):
        answer = web.get(path, params={"query": MUTATION}, headers={"Accept": "image/*"})
        assert "setNuxSeen" not in answer.text
    answer = web.get("/graphql", params={"query": QUERY})
    assert (answer.status_code, answer.headers["allow"]) == (405, "POST")
    assert "POST" in answer.text


@pytest.mark.parametrize("origin", ELSEWHERE)
def test_a_page_elsewhere_cannot_ask(web, origin):
    """A form or text is sent without asking first whether it may be."""
    for kind in ("text/plain", "application/x-www-form-urlencoded", "application/graphql"):
        answer = web.post(
            "/graphql",
            params={"query": MUTATION},
            content=MUTATION,
            headers={"Origin": origin, "Content-Type": kind},
        )
        assert answer.status_code == 403
        assert "ZLH_WEB_URL" in answer.text
    assert ask(web, Origin=origin).status_code == 403
    report = web.post("/report_asset_materialization/drift", headers={"Origin": origin})
    assert report.status_code == 403


@pytest.mark.parametrize("origin", ELSEWHERE)
def test_a_page_elsewhere_cannot_listen(web, origin):
    with pytest.raises(InvalidStatus) as refused:
        connect(f"ws://{host_of(web)}/graphql", additional_headers={"Origin": origin}).close()
    assert refused.value.response.status_code == 403


@pytest.mark.parametrize("host", ["evil.example", "evil.example:3000", "127.0.0.1.evil.example"])
def test_a_name_that_was_pointed_at_this_machine_is_refused(web, host):
    for path in ("/", "/server_info", "/graphql"):
        assert web.get(path, headers={"Host": host}).status_code == 400
    same = {"Host": host, "Origin": f"http://{host}"}
    assert ask(web, **same).status_code == 400


def test_the_page_and_its_own_requests_are_served(web):
    page = web.get("/runs", headers={"Accept": "text/html"})
    assert "<html" in page.text
    playground = web.get("/graphql", headers={"Accept": "text/html"})
    assert "GraphiQL" in playground.text
    own = f"http://{host_of(web)}"
    for headers in ({}, {"Origin": own}, {"Host": "localhost:1"}, {"Host": "[::1]:1"}):
        assert ask(web, **headers).json()["data"]["version"], headers


@pytest.mark.parametrize("host", ["dagster.example.gg", None])
def test_behind_a_proxy_the_public_address_is_its_own(web, host):
    """Whether or not the proxy hands on the name by which it was reached."""
    assert ask(web, Host=host or host_of(web), Origin=PUBLIC).is_success
    assert ask(web, Host=host or host_of(web), Origin=f"{PUBLIC}.evil").status_code == 403


@pytest.mark.parametrize("own", [True, False])
def test_subscriptions_are_served(web, own):
    headers = {"Origin": f"http://{host_of(web)}"} if own else {}
    url = f"ws://{host_of(web)}/graphql"
    with connect(url, additional_headers=headers, subprotocols=["graphql-ws"]) as socket:
        socket.send(json.dumps({"type": "connection_init"}))
        assert json.loads(socket.recv(30)) == {"type": "connection_ack"}


def test_up_starts_the_same_server(tmp_path):
    settings = Settings(_env_file=None, dagster_home=tmp_path)
    [child] = [c for c in up._children(settings, web=True) if c.name == "web server"]
    assert child.command == command(settings, Part.WEB) == web_command(settings)
