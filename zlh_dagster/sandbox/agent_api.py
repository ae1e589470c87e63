"""What the agent in a container answers, as plain values."""

from dataclasses import dataclass
from http import HTTPStatus

from zlh_dagster.sandbox.containers import Container
from zlh_dagster.sandbox.exchange import Answer

PAGE = b"<!DOCTYPE html><html><head><title>Panel</title></head><body>Welcome.</body></html>"
REDIRECTED = "/redirected"


@dataclass(frozen=True, slots=True)
class AgentRequest:
    """One request to an agent, as far as it looks at it."""

    method: str
    path: str
    query: str
    keep_alive: bool


def agent_answer(container: Container, request: AgentRequest) -> Answer:
    """The answer of a container's agent, but for how fast and how wholly it is sent."""
    mode = container.agent.mode
    if mode == "html":
        return Answer(raw=PAGE, media_type="text/html")
    if mode == "redirect" and request.path != REDIRECTED:
        return Answer(status=302, headers={"Location": REDIRECTED})
    whole = _answer(container, request)
    if mode == "truncated":
        body = whole.encoded()
        return Answer(status=whole.status, raw=body[: len(body) // 2])
    return whole


def is_stop(container: Container, request: AgentRequest) -> bool:
    """Whether a request really reaches the code that stops the server."""
    asked = (request.method, request.path) == ("POST", "/stop")
    return asked and container.agent.mode not in ("html", "redirect", "huge")


def on_the_wire(answer: Answer, *, keep_alive: bool) -> bytes:
    """Status line, headers and body."""
    body = answer.encoded()
    head = [
        f"HTTP/1.1 {answer.status} {HTTPStatus(answer.status).phrase}",
        f"Content-Type: {answer.media_type}",
        f"Content-Length: {len(body)}",
        f"Connection: {'keep-alive' if keep_alive else 'close'}",
        *(f"{name}: {value}" for name, value in answer.headers.items()),
    ]
    return "\r\n".join([*head, "", ""]).encode() + body


def _answer(container: Container, request: AgentRequest) -> Answer:
    agent = container.agent
    known = {"/health": "GET", REDIRECTED: "GET", "/status": "GET", "/stop": "POST"}
    if request.path not in known:
        return Answer(status=404, body={"error": "not found"})
    if request.method != known[request.path]:
        return Answer(status=405, body={"error": "method not allowed"})
    if request.path == "/stop":
        return Answer(status=202, body={"status": "accepted"})
    if request.path == "/status":
        body = {"state": agent.state, "vmid": container.vmid, "hostname": container.name}
        return Answer(body={**body, "version": "1.4.2"})
    if agent.mode == "unhealthy":
        return Answer(status=503, body={"status": "error"})
    return Answer(body={"status": "ok"})
