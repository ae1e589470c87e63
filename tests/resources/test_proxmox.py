"""Proxmox: an empty list and an unknown status are no facts about containers; TLS is verified."""

import contextlib
import json
import shutil
import ssl
import subprocess
import threading
import time
from http.server import BaseHTTPRequestHandler, HTTPServer

import httpx
import pytest

from tests.resources.clients import answering
from zlh_dagster.core.fleet import CONTAINER_COLUMNS
from zlh_dagster.resources.edge import READ_TIMEOUT
from zlh_dagster.resources.http import (
    EdgeError,
    Incomplete,
    Rejected,
    Unauthorized,
    Unreachable,
    Untrusted,
)
from zlh_dagster.resources.proxmox import Proxmox
from zlh_dagster.resources.settings import SettingsError

SECRET = "5ecre7-5ecre7-5ecre7"
ROWS = [
    {"vmid": 5000, "name": "mc-5000", "status": "running", "cpus": 2, "type": "lxc"},
    {"vmid": "5001", "name": "mc-5001", "status": "stopped", "lock": "backup"},
    {"vmid": 9000, "status": "unknown", "lock": ""},
]


@pytest.fixture
def proxmox(no_pauses):
    made = []

    def make(*answers, **options):
        given = {
            "base_url": "https://pve.example:8006",
            "node": "pve1",
            "token_id": "zlh@pve!loop",
            "token_secret": SECRET,
            **options,
        }
        if answers:
            given["transport"] = answering(*answers)
        made.append(Proxmox(**given))
        return made[-1]

    yield make
    for one in made:
        one.close()


def listing(*rows) -> dict:
    return {"data": list(rows)}


def with_row(**values) -> dict:
    return listing(ROWS[0], {**ROWS[1], **values})


def test_containers_are_listed_with_one_call(proxmox):
    one = proxmox(listing(*ROWS))
    frame = one.list_containers()
    assert dict(frame.dtypes.astype(str)) == CONTAINER_COLUMNS
    assert frame.to_dict("records") == [
        {"vmid": 5000, "name": "mc-5000", "status": "running", "lock": None},
        {"vmid": 5001, "name": "mc-5001", "status": "stopped", "lock": "backup"},
        {"vmid": 9000, "name": None, "status": "unknown", "lock": None},
    ]
    assert one.requests == 1


def test_the_token_travels_in_the_header_and_the_node_as_one_part_of_the_path(proxmox):
    seen = []

    def answer(request):
        seen.append(request)
        return httpx.Response(200, json=listing(*ROWS))

    proxmox(node="a/../b", transport=httpx.MockTransport(answer)).list_containers()
    [request] = seen
    assert request.headers["Authorization"] == f"PVEAPIToken=zlh@pve!loop={SECRET}"
    assert request.url.raw_path == b"/api2/json/nodes/a%2F..%2Fb/lxc"


def test_an_empty_list_is_a_token_that_may_see_nothing_and_no_empty_node(proxmox):
    with pytest.raises(Incomplete, match=r"list is empty: the token lacks VM\.Audit, or node pve1"):
        proxmox(listing()).list_containers()


def test_a_node_that_knows_of_no_container_whether_it_runs_is_not_observed(proxmox):
    unknown = [{**row, "status": "unknown"} for row in ROWS]
    with pytest.raises(Incomplete, match="all 3 containers of node pve1 have status 'unknown'"):
        proxmox(listing(*unknown)).list_containers()


def test_one_container_of_unknown_status_is_unknown_and_not_stopped(proxmox):
    frame = proxmox(with_row(status="unknown")).list_containers()
    assert list(frame["status"]) == ["running", "unknown"]


def test_a_status_that_is_not_known_here_is_unknown(proxmox):
    frame = proxmox(with_row(status="freezing")).list_containers()
    assert list(frame["status"]) == ["running", "unknown"]


@pytest.mark.parametrize("other", [5000, "5000"])
def test_a_vmid_that_is_listed_twice_spoils_the_listing(proxmox, other):
    with pytest.raises(Incomplete, match="twice"):
        proxmox(with_row(vmid=other)).list_containers()


@pytest.mark.parametrize(
    "values",
    [
        {"vmid": None},
        {"vmid": True},
        {"vmid": 5001.0},
        {"vmid": -5},
        {"vmid": 0},
        {"vmid": ""},
        {"vmid": "05001"},
        {"vmid": "5001 "},
        {"vmid": "٥٠٠١"},
        {"vmid": 10**12},
        {"vmid": [5001]},
        {"status": None},
        {"status": 1},
        {"name": 5},
        {"name": "\ud800"},
        {"lock": True},
        {"lock": ["backup"]},
    ],
)
def test_one_row_of_the_wrong_shape_spoils_the_listing(proxmox, values):
    body = json.dumps(with_row(**values)).encode()
    with pytest.raises(Incomplete, match="proxmox"):
        proxmox(httpx.Response(200, content=body)).list_containers()


@pytest.mark.parametrize("absent", ["vmid", "status"])
def test_a_row_that_lacks_what_is_promised_spoils_the_listing(proxmox, absent):
    row = {name: value for name, value in ROWS[0].items() if name != absent}
    with pytest.raises(Incomplete, match=absent):
        proxmox(listing(ROWS[1], row)).list_containers()


@pytest.mark.parametrize("body", [[], {}, 0, {"data": None}, {"data": {}}, {"data": [[]]}])
def test_an_answer_of_another_shape_is_no_listing(proxmox, body):
    with pytest.raises(Incomplete):
        proxmox(body).list_containers()


@pytest.mark.parametrize(
    ("status", "error"),
    [
        (401, Unauthorized),
        (403, Unauthorized),
        (404, Rejected),
        (500, Unreachable),
        (595, Unreachable),
        (302, Rejected),
    ],
)
def test_a_refusal_is_an_error_that_names_no_secret(proxmox, status, error, caplog):
    with pytest.raises(error) as failed:
        proxmox(httpx.Response(status, json=listing())).list_containers()
    assert SECRET not in str(failed.value)
    assert SECRET not in caplog.text


# --- TLS -----------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def authority(tmp_path_factory):
    """A folder with a CA of its own and a certificate of it for 127.0.0.1, as Proxmox makes."""
    if shutil.which("openssl") is None:
        pytest.skip("no openssl to make certificates with")
    folder = tmp_path_factory.mktemp("ca")

    def openssl(*arguments: str) -> None:
        command = ["openssl", *arguments]
        subprocess.run(command, cwd=folder, check=True, capture_output=True, timeout=60)

    new = ["-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes"]
    for ca in ("ca", "other"):
        files = ["-keyout", f"{ca}.key", "-out", f"{ca}.pem"]
        openssl("req", "-x509", *new, "-days", "2", "-subj", f"/CN=PVE {ca}", *files)
    openssl("req", *new, "-subj", "/CN=pve", "-keyout", "server.key", "-out", "server.csr")
    (folder / "names").write_text("subjectAltName=IP:127.0.0.1\n")
    signed = ["-CA", "ca.pem", "-CAkey", "ca.key", "-CAcreateserial", "-extfile", "names"]
    openssl("x509", "-req", "-in", "server.csr", "-days", "2", *signed, "-out", "server.pem")
    return folder


class Node(BaseHTTPRequestHandler):
    """Answers the list after a delay, with a status."""

    status, delay = 200, 0.0

    def do_GET(self) -> None:
        time.sleep(self.server.delay)
        body = json.dumps(listing(*ROWS)).encode()
        self.send_response(self.server.status)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *arguments) -> None:
        pass


@contextlib.contextmanager
def node(authority=None, *, status: int = 200, delay: float = 0.0):
    server = HTTPServer(("127.0.0.1", 0), Node)
    server.status, server.delay = status, delay
    server.handle_error = lambda *arguments: None
    if authority is not None:
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(authority / "server.pem", authority / "server.key")
        server.socket = context.wrap_socket(server.socket, server_side=True)
    thread = threading.Thread(target=server.serve_forever, args=(0.02,))
    thread.start()
    try:
        scheme = "http" if authority is None else "https"
        yield f"{scheme}://127.0.0.1:{server.server_port}"
    finally:
        server.shutdown()
        thread.join()
        server.server_close()


def test_a_certificate_of_the_clusters_own_ca_is_accepted_once_that_ca_is_named(proxmox, authority):
    with node(authority) as url:
        one = proxmox(base_url=url, ca_file=authority / "ca.pem")
        assert len(one.list_containers()) == len(ROWS)
        one.close()


@pytest.mark.parametrize("ca_file", [None, "other.pem"])
def test_any_other_certificate_is_refused_and_the_error_names_the_setting(
    proxmox, authority, ca_file
):
    with node(authority) as url:
        one = proxmox(base_url=url, ca_file=ca_file and authority / ca_file)
        with pytest.raises(Untrusted, match=r"not trusted \(.+\); PROXMOX_CA_FILE"):
            one.list_containers()
        assert one.requests == 1, "asking again would not help"


def test_a_certificate_for_another_host_is_refused(proxmox, authority):
    with node(authority) as url:
        one = proxmox(base_url=url.replace("127.0.0.1", "localhost"), ca_file=authority / "ca.pem")
        with pytest.raises(Untrusted, match="mismatch"):
            one.list_containers()


@pytest.mark.parametrize("content", [None, b"", b"no certificate", b"\x00\xff"])
def test_a_ca_file_that_cannot_be_used_names_its_setting(proxmox, tmp_path, content):
    path = tmp_path / "ca.pem"
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(SettingsError, match=r"^PROXMOX_CA_FILE: .*ca\.pem"):
        proxmox(ca_file=path)


def test_a_refusal_that_comes_late_is_still_a_refusal_and_no_time_out(proxmox):
    """Proxmox delays a 401 by three seconds."""
    with node(status=401, delay=3.0) as url, pytest.raises(Unauthorized):
        proxmox(base_url=url).list_containers()
    assert READ_TIMEOUT > 3


def test_nobody_there_is_unreachable(proxmox):
    with pytest.raises(EdgeError, match=r"proxmox: 127.0.0.1:1 cannot be reached \(Connection"):
        proxmox(base_url="https://127.0.0.1:1").list_containers()
