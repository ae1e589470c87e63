"""The containers of the pretend Proxmox node, each with the agent that lives in it."""

import threading
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field, replace
from typing import Any

from zlh_dagster.sandbox.exchange import JsonObject
from zlh_dagster.sandbox.options import Option

STATUSES = ("running", "stopped", "unknown")

AGENT_MODES = (
    "healthy",
    "unhealthy",
    "silent",
    "refused",
    "slow",
    "dripping",
    "html",
    "truncated",
    "redirect",
    "huge",
)

STOP_EFFECTS = ("server", "container", "nothing")


class UnknownContainer(Exception):
    """A container, or a change to one, that was asked for and does not exist."""


@dataclass(frozen=True, slots=True)
class Agent:
    """How the agent in a container behaves.

    Attributes:
        mode: One of ``AGENT_MODES``.
        state: The server's state, as ``/status`` tells it.
        seconds: What ``slow`` waits before it answers, and ``dripping`` between two bytes.
        stop: What ``/stop`` ends: the server in the container, the container with it, or nothing.
        stop_seconds: How long the state is ``stopping`` before it is ``stopped``.
    """

    mode: str = "healthy"
    state: str = "running"
    seconds: float = 1.0
    stop: str = "server"
    stop_seconds: float = 0.1


@dataclass(frozen=True, slots=True)
class Container:
    """One container of the node; ``address`` is where its agent is."""

    vmid: int
    name: str
    address: str | None = None
    status: str = "running"
    lock: str | None = None
    agent: Agent = field(default_factory=Agent)

    @property
    def reachable(self) -> bool:
        """Whether something listens at the agent's port."""
        here = self.address is not None and self.status != "stopped"
        return here and self.agent.mode != "refused"


CONTAINER_OPTIONS: Mapping[str, Option] = {
    "name": Option((str,), None),
    "address": Option((str, type(None)), None),
    "status": Option((str,), "running", STATUSES),
    "lock": Option((str, type(None)), None),
}

AGENT_OPTIONS: Mapping[str, Option] = {
    "mode": Option((str,), "healthy", AGENT_MODES),
    "state": Option((str,), "running"),
    "seconds": Option((int, float), 1.0),
    "stop": Option((str,), "server", STOP_EFFECTS),
    "stop_seconds": Option((int, float), 0.1),
}

Watcher = Callable[[int, Container | None], None]


class ContainerTable:
    """Containers by VMID."""

    def __init__(self, lock: threading.RLock) -> None:
        self._lock = lock
        self._containers: dict[int, Container] = {}
        self._watcher: Watcher | None = None

    def __len__(self) -> int:
        return len(self._containers)

    def containers(self) -> list[Container]:
        """Every container, in order of VMID."""
        with self._lock:
            return [self._containers[vmid] for vmid in sorted(self._containers)]

    def get(self, vmid: int) -> Container | None:
        """The container of that VMID, if there is one."""
        return self._containers.get(vmid)

    def watch(self, watcher: Watcher | None) -> None:
        """Tell one watcher of every container there is, and of every change from now on."""
        with self._lock:
            self._watcher = watcher
            for vmid in self._containers:
                self._tell(vmid)

    def put(self, container: Container) -> None:
        """Add a container, or replace the one of its VMID."""
        with self._lock:
            self._containers[container.vmid] = container
            self._tell(container.vmid)

    def put_all(self, containers: Iterable[Container]) -> None:
        """Add or replace several containers."""
        with self._lock:
            for container in containers:
                self.put(container)

    def remove(self, vmid: int) -> None:
        """Take a container away.

        Raises:
            UnknownContainer: If there is none of that VMID.
        """
        with self._lock:
            self._known(vmid)
            del self._containers[vmid]
            self._tell(vmid)

    def change(self, vmid: int, /, **options: Any) -> Container:
        """Change a container's status, lock, name or address; a lock of ``None`` clears it.

        Raises:
            UnknownContainer: If there is none, or no such option or value.
        """
        _check("a container", CONTAINER_OPTIONS, options)
        with self._lock:
            self.put(replace(self._known(vmid), **options))
            return self._containers[vmid]

    def change_agent(self, vmid: int, /, **options: Any) -> Agent:
        """Change how the agent of a container behaves; see :class:`Agent`.

        Raises:
            UnknownContainer: If there is none, or no such option or value.
        """
        _check("an agent", AGENT_OPTIONS, options)
        with self._lock:
            container = self._known(vmid)
            self.put(replace(container, agent=replace(container.agent, **options)))
            return self._containers[vmid].agent

    def begin_stop(self, vmid: int) -> bool:
        """Turn the state of a running server to ``stopping``, if its agent does what it says."""
        with self._lock:
            agent = self._known(vmid).agent
            if agent.stop == "nothing" or agent.state in ("stopping", "stopped"):
                return False
            self.change_agent(vmid, state="stopping")
            return True

    def finish_stop(self, vmid: int) -> None:
        """Turn ``stopping`` to ``stopped``, unless something else happened meanwhile."""
        with self._lock:
            container = self._containers.get(vmid)
            if container is None or container.agent.state != "stopping":
                return
            self.change_agent(vmid, state="stopped")
            if container.agent.stop == "container":
                self.change(vmid, status="stopped")

    def clear(self) -> None:
        """Take all containers away."""
        with self._lock:
            gone = list(self._containers)
            self._containers.clear()
            for vmid in gone:
                self._tell(vmid)

    def counts(self) -> JsonObject:
        """How many containers there are, and how many of them run."""
        with self._lock:
            running = sum(c.status == "running" for c in self._containers.values())
            return {"containers": len(self._containers), "running": running}

    def _known(self, vmid: int) -> Container:
        container = self._containers.get(vmid)
        if container is None:
            raise UnknownContainer(f"no container {vmid}")
        return container

    def _tell(self, vmid: int) -> None:
        if self._watcher is not None:
            self._watcher(vmid, self._containers.get(vmid))


def _check(what: str, known: Mapping[str, Option], options: Mapping[str, Any]) -> None:
    for name, value in options.items():
        if name not in known:
            raise UnknownContainer(f"no option {name!r} of {what}; there are: {', '.join(known)}")
        if not known[name].accepts(value):
            words = known[name].words
            hint = f"; it can be: {', '.join(words)}" if words else ""
            raise UnknownContainer(f"option {name!r} of {what} cannot be {value!r}{hint}")
