"""What a failing surface answers, in its own manner of speaking."""

from collections.abc import Callable, Mapping
from typing import Any

from zlh_dagster.sandbox.cloudflare_api import failure as cloudflare_failure
from zlh_dagster.sandbox.discord_api import rate_limited
from zlh_dagster.sandbox.discord_api import refusal as discord_refusal
from zlh_dagster.sandbox.exchange import Answer, JsonObject
from zlh_dagster.sandbox.faults import Fault
from zlh_dagster.sandbox.proxmox_api import failure as proxmox_failure
from zlh_dagster.sandbox.proxmox_api import invalid_token as proxmox_invalid_token
from zlh_dagster.sandbox.technitium_api import failure as technitium_failure
from zlh_dagster.sandbox.technitium_api import invalid_token as technitium_invalid_token
from zlh_dagster.sandbox.velocity_api import unauthorized

_PAGE = (
    b"<!DOCTYPE html><html><head><title>Gateway</title></head><body>Just a moment.</body></html>"
)


def answer_instead(surface: str, fault: Fault) -> Answer | None:
    """The answer of a fault that never asks the provider, or nothing when it is no such fault."""
    if fault.kind == "status":
        return _with_status(surface, fault.options)
    if fault.kind == "html":
        return Answer(raw=_PAGE, media_type="text/html")
    if fault.kind == "invalid_token":
        return _INVALID_TOKEN[surface]()
    if fault.kind == "missing_page" and fault.options["answer"] == "error":
        return cloudflare_failure(10000, "Internal server error", status=500)
    return None


def answer_spoiled(surface: str, fault: Fault, true: Answer) -> Answer:
    """A true answer, as a fault leaves it; refusals stay as they are."""
    if fault.kind == "truncated_json":
        return _shortened(true, 0.5)
    if true.status != 200 or not isinstance(true.body, dict):
        return true
    if fault.kind == "cut_short":
        kept = 1 - float(fault.options["fraction"])
        return _fewer_rows(true, kept) if surface == "cloudflare" else _shortened(true, kept)
    if fault.kind == "missing_page":
        return _fewer_rows(true, 0)
    if fault.kind == "empty":
        return _no_rows(surface, true)
    if fault.kind == "wrong_types":
        return _of_wrong_types(surface, true, fault.options["where"])
    return true


def _with_status(surface: str, options: Mapping[str, Any]) -> Answer:
    code, retry_after, body = options["code"], options["retry_after"], options["body"]
    headers = {} if retry_after is None else {"Retry-After": f"{retry_after:g}"}
    if isinstance(body, str):
        return Answer(status=code, raw=body.encode(), headers=headers, media_type="text/plain")
    if body is None:
        body = _default_body(surface, code, retry_after)
    return Answer(status=code, body=body, headers=headers)


def _default_body(surface: str, code: int, retry_after: float | None) -> Any:
    message = f"pretended failure {code}"
    if surface == "cloudflare":
        return cloudflare_failure(10429 if code == 429 else code, message).body
    if surface == "technitium":
        return technitium_failure(message).body
    if surface == "velocity":
        return {"error": message}
    if surface == "proxmox":
        return proxmox_failure(code, message).body
    if code == 429:
        return rate_limited(1.0 if retry_after is None else retry_after).body
    return discord_refusal(code, 10015 if code == 404 else 0, message).body


_INVALID_TOKEN: Mapping[str, Callable[[], Answer]] = {
    "cloudflare": lambda: cloudflare_failure(10000, "Authentication error", status=403),
    "technitium": technitium_invalid_token,
    "velocity": unauthorized,
    "discord": lambda: discord_refusal(401, 50027, "Invalid Webhook Token"),
    "proxmox": proxmox_invalid_token,
}


def _shortened(true: Answer, kept: float) -> Answer:
    """The head of a body, under a length header that fits it."""
    whole = true.encoded()
    return Answer(
        status=true.status,
        raw=whole[: int(len(whole) * kept)],
        headers=true.headers,
        media_type=true.media_type,
    )


def _fewer_rows(true: Answer, kept: float) -> Answer:
    """A Cloudflare page that lacks its last rows; the totals stay."""
    rows = true.body["result"]
    rows = rows[: int(len(rows) * kept)]
    info = {**true.body["result_info"], "count": len(rows)}
    return Answer(body={**true.body, "result": rows, "result_info": info})


def _no_rows(surface: str, true: Answer) -> Answer:
    """A listing that says there is nothing, without contradicting itself."""
    body: JsonObject = dict(true.body)
    if surface == "cloudflare":
        nothing = {"count": 0, "total_count": 0, "total_pages": 0}
        body |= {"result": [], "result_info": {**body["result_info"], **nothing}}
    elif surface == "velocity":
        body["servers"] = []
    elif surface == "proxmox":
        body["data"] = []
    elif "response" in body:
        body["response"] = {**body["response"], "records": []}
    return Answer(body=body)


def _of_wrong_types(surface: str, true: Answer, where: str) -> Answer:
    """Valid JSON of another shape than was agreed on."""
    body: JsonObject = dict(true.body)
    if surface == "cloudflare":
        body["result"] = _another_shape(body["result"], where)
    elif surface in ("velocity", "proxmox"):
        body = {key: _another_shape(value, where) for key, value in body.items()}
    elif surface == "discord":
        body = _other_fields(body)
    elif "response" in body:
        response = body["response"]
        body["response"] = {key: _another_shape(value, where) for key, value in response.items()}
    return Answer(body=body)


def _another_shape(value: Any, where: str) -> Any:
    if not isinstance(value, list):
        return _other_fields(value) if isinstance(value, dict) else [value]
    if where == "container":
        return {"rows": "none", "count": str(len(value))}
    if where == "rows":
        return [f"row {n}" for n, _ in enumerate(value)]
    return [_other_fields(row) for row in value]


def _other_fields(row: JsonObject) -> JsonObject:
    return {key: [value] for key, value in row.items()}
