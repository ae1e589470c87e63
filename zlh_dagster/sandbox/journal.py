"""Every request that reached a pretend provider, in the order of arrival."""

import threading
from dataclasses import asdict, dataclass, replace
from itertools import count

from zlh_dagster.sandbox.clock import utc_text
from zlh_dagster.sandbox.exchange import JsonObject

SURFACES = ("cloudflare", "technitium", "velocity", "discord", "heartbeat", "proxmox", "agents")

_KEPT = 100_000


@dataclass(frozen=True, slots=True)
class JournalEntry:
    """One request; ``status`` stays empty while it is open and when it got no answer.

    A request to an agent has the VMID of its container.
    """

    n: int
    at: str
    surface: str
    method: str
    path: str
    query: str
    write: bool
    status: int | None
    fault: str | None
    vmid: int | None = None

    def to_json(self) -> JsonObject:
        """The entry as the control API shows it."""
        return asdict(self)


class Journal:
    """The last requests, and counts of all since the last clearing."""

    def __init__(self, lock: threading.RLock) -> None:
        self._lock = lock
        self._numbers = count(1)
        self._entries: dict[int, JournalEntry] = {}
        self._counts: dict[tuple[str, bool], int] = {}

    def begin(
        self,
        *,
        surface: str,
        method: str,
        path: str,
        query: str,
        write: bool,
        vmid: int | None = None,
    ) -> int:
        """Note a request that has just arrived, and give it its number."""
        with self._lock:
            n = next(self._numbers)
            self._entries[n] = JournalEntry(
                n=n,
                at=utc_text(),
                surface=surface,
                method=method,
                path=path,
                query=query,
                write=write,
                status=None,
                fault=None,
                vmid=vmid,
            )
            self._counts[surface, write] = self._counts.get((surface, write), 0) + 1
            if len(self._entries) > _KEPT:
                del self._entries[next(iter(self._entries))]
            return n

    def finish(self, n: int, *, status: int | None, fault: str | None) -> None:
        """Note how a request was answered, unless it was cleared away meanwhile."""
        with self._lock:
            if n in self._entries:
                self._entries[n] = replace(self._entries[n], status=status, fault=fault)

    def entries(self, surface: str | None = None) -> list[JournalEntry]:
        """The requests so far, of one surface or of all."""
        with self._lock:
            return [e for e in self._entries.values() if surface in (None, e.surface)]

    def counts(self) -> dict[str, dict[str, int]]:
        """Reads and writes of every surface since the last clearing."""
        with self._lock:
            return {
                surface: {
                    "reads": self._counts.get((surface, False), 0),
                    "writes": self._counts.get((surface, True), 0),
                }
                for surface in SURFACES
            }

    def clear(self) -> None:
        """Forget all requests; numbers go on counting."""
        with self._lock:
            self._entries.clear()
            self._counts.clear()
