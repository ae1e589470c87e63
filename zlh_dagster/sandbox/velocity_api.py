"""The bridge plugin of the Velocity proxy: backends, kept in memory only."""

import hashlib
import hmac
import threading
from collections.abc import Iterable
from dataclasses import asdict, dataclass

from zlh_dagster.sandbox.config import SandboxConfig
from zlh_dagster.sandbox.exchange import Answer, Call, Handler, JsonObject


@dataclass(frozen=True, slots=True)
class Backend:
    """A server that players can be sent to."""

    name: str
    address: str
    port: int

    def to_json(self) -> JsonObject:
        """The backend as the bridge lists it."""
        return asdict(self)


@dataclass(frozen=True, slots=True)
class VelocityCounts:
    """What the bridge has done since the sandbox began."""

    registrations: int = 0
    reregistrations: int = 0
    unregistrations: int = 0
    restarts: int = 0


@dataclass(frozen=True, slots=True)
class VelocityCheckpoint:
    """The bridge at one moment."""

    backends: dict[str, Backend]
    last_join_target: str | None
    counts: VelocityCounts


def unauthorized() -> Answer:
    """What the bridge says to a wrong secret."""
    return Answer(status=401, body={"error": "unauthorized"})


class VelocityBridge:
    """Answers the bridge's calls."""

    def __init__(self, config: SandboxConfig, lock: threading.RLock) -> None:
        self._config = config
        self._lock = lock
        self._digest = hashlib.sha256(config.zpack_secret.encode()).hexdigest()
        self._backends: dict[str, Backend] = {}
        self._last_join_target: str | None = None
        self._counts = VelocityCounts()

    def backends(self) -> list[Backend]:
        """Every registration, in order."""
        with self._lock:
            return list(self._backends.values())

    @property
    def last_join_target(self) -> str | None:
        """The backend that the next player joins."""
        return self._last_join_target

    @property
    def counts(self) -> VelocityCounts:
        """What was done so far."""
        return self._counts

    def seed(self, backends: Iterable[Backend]) -> None:
        """Add registrations as if they had always been there: nothing is counted."""
        with self._lock:
            self._backends.update((backend.name.lower(), backend) for backend in backends)

    def restart(self) -> None:
        """Start the proxy anew, which loses all registrations."""
        with self._lock:
            self._backends.clear()
            self._last_join_target = None
            self._count("restarts")

    def clear(self) -> None:
        """Forget everything, the counts too."""
        with self._lock:
            self._backends.clear()
            self._last_join_target = None
            self._counts = VelocityCounts()

    def checkpoint(self) -> VelocityCheckpoint:
        """Remember the registrations, to go back to them."""
        with self._lock:
            return VelocityCheckpoint(dict(self._backends), self._last_join_target, self._counts)

    def restore(self, checkpoint: VelocityCheckpoint) -> None:
        """Go back to what was remembered."""
        with self._lock:
            self._backends = dict(checkpoint.backends)
            self._last_join_target = checkpoint.last_join_target
            self._counts = checkpoint.counts

    def guarded(self, handler: Handler) -> Handler:
        """A handler behind the secret."""

        def answer(call: Call) -> Answer:
            sent = call.headers.get("x-zpack-secret", "")
            if not hmac.compare_digest(sent.encode(), self._digest.encode()):
                return unauthorized()
            return handler(call)

        return answer

    def list_servers(self, call: Call) -> Answer:
        """All registrations."""
        shown = [backend.to_json() for backend in self.backends()]
        if not self._config.velocity_lists_addresses:
            shown = [{"name": server["name"]} for server in shown]
        return Answer(body={"servers": shown})

    def register(self, call: Call) -> Answer:
        """Register a backend, which also makes it the target of the next player."""
        backend = _backend(call.json_object())
        if backend is None:
            return _invalid("server_name, address and port are required")
        known = self._backends.get(backend.name)
        if known is not None and known != backend:
            message = f"{backend.name} is registered at {known.address}:{known.port}"
            return Answer(status=409, body={"error": message})
        self._backends[backend.name] = backend
        self._last_join_target = backend.name
        self._count("registrations" if known is None else "reregistrations")
        return Answer(body={"success": True, "server": backend.to_json()})

    def unregister(self, call: Call) -> Answer:
        """Take a registration away."""
        name = (call.json_object() or {}).get("server_name")
        if not isinstance(name, str) or not name.strip():
            return _invalid("server_name is required")
        name = name.strip().lower()
        if self._backends.pop(name, None) is None:
            return Answer(status=404, body={"error": f"{name} is not registered"})
        if self._last_join_target == name:
            self._last_join_target = None
        self._count("unregistrations")
        return Answer(body={"success": True})

    def no_route(self, call: Call) -> Answer:
        """A path that the bridge does not have."""
        return Answer(status=404, body={"error": "not found"})

    def _count(self, name: str) -> None:
        numbers = asdict(self._counts)
        self._counts = VelocityCounts(**{**numbers, name: numbers[name] + 1})


def _backend(body: JsonObject | None) -> Backend | None:
    sent = body or {}
    name, address, port = (sent.get(key) for key in ("server_name", "address", "port"))
    if not isinstance(name, str) or not isinstance(address, str) or isinstance(port, bool):
        return None
    if not name.strip() or not address.strip() or not isinstance(port, int):
        return None
    return Backend(name.strip().lower(), address.strip(), port) if 0 < port < 65536 else None


def _invalid(message: str) -> Answer:
    return Answer(status=400, body={"error": message})
