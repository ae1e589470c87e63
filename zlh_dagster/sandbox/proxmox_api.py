"""The calls of Proxmox VE's API that are made here: a node's containers, a token's rights."""

import hmac
import zlib

from zlh_dagster.sandbox.config import SandboxConfig
from zlh_dagster.sandbox.containers import Container, ContainerTable
from zlh_dagster.sandbox.exchange import Answer, Call, Handler, JsonObject

_SCHEME = "PVEAPIToken="
_GIB = 1024**3


def failure(status: int, message: str) -> Answer:
    """What Proxmox says when a call goes wrong."""
    return Answer(status=status, body={"data": None, "message": f"{message}\n"})


def invalid_token() -> Answer:
    """What Proxmox says to a token that it does not know: the reason is not in the body."""
    return Answer(status=401)


class ProxmoxApi:
    """Answers calls on the containers of one node."""

    def __init__(self, config: SandboxConfig, table: ContainerTable) -> None:
        self._config = config
        self._table = table

    def guarded(self, handler: Handler) -> Handler:
        """A handler behind the API token."""
        config = self._config
        wanted = f"{_SCHEME}{config.proxmox_token_id}={config.proxmox_token_secret}".encode()

        def answer(call: Call) -> Answer:
            sent = call.headers.get("authorization", "").encode()
            return handler(call) if hmac.compare_digest(sent, wanted) else invalid_token()

        return answer

    def list_containers(self, call: Call) -> Answer:
        """The containers of the node, in no order that could be relied on."""
        node = call.params["node"]
        if node != self._config.proxmox_node:
            reason = f"failed to get address info for: {node}: Name or service not known"
            return failure(500, f"hostname lookup '{node}' failed - {reason}")
        seen = self._table.containers() if self._config.proxmox_may_audit else ()
        shown = [_shown(container) for container in seen]
        return Answer(body={"data": sorted(shown, key=_shuffled)})

    def permissions(self, call: Call) -> Answer:
        """What the token may do below one path; a token always may ask this of itself."""
        path = call.query.get("path", "/")
        held = {"VM.Audit": 1} if self._config.proxmox_may_audit else {}
        return Answer(body={"data": {path: held}})

    def no_route(self, call: Call) -> Answer:
        """A path that the pretend API does not have."""
        path = call.path.removeprefix("/api2/json")
        return failure(501, f"Method '{call.method} {path}' not implemented")


def _shown(container: Container) -> JsonObject:
    running = container.status == "running"
    row: JsonObject = {
        "vmid": container.vmid,
        "name": container.name,
        "status": container.status,
        "type": "lxc",
        "cpu": 0.02 if running else 0,
        "cpus": 2,
        "mem": _GIB if running else 0,
        "maxmem": 4 * _GIB,
        "swap": 0,
        "maxswap": _GIB // 2,
        "disk": 3 * _GIB if running else 0,
        "maxdisk": 16 * _GIB,
        "diskread": 0,
        "diskwrite": 0,
        "netin": 0,
        "netout": 0,
        "uptime": 86_400 if running else 0,
    }
    if running:
        row["pid"] = 100_000 + container.vmid
    if container.lock is not None:
        row["lock"] = container.lock
    return row


def _shuffled(row: JsonObject) -> int:
    return zlib.crc32(str(row["vmid"]).encode())
