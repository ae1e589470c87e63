"""Records of the pretend Cloudflare zone, and the table that holds them."""

import threading
import uuid
from collections.abc import Iterable
from dataclasses import dataclass

from zlh_dagster.sandbox.clock import utc_text
from zlh_dagster.sandbox.exchange import JsonObject

PROXIABLE = frozenset({"A", "AAAA", "CNAME"})


@dataclass(frozen=True, slots=True)
class SrvData:
    """The parts of an SRV record."""

    priority: int
    weight: int
    port: int
    target: str

    def content(self) -> str:
        """What listings show as content: everything but the priority, between tabs."""
        return f"{self.weight}\t{self.port}\t{self.target}"

    def to_json(self) -> JsonObject:
        """The ``data`` object."""
        return {
            "port": self.port,
            "priority": self.priority,
            "target": self.target,
            "weight": self.weight,
        }


@dataclass(frozen=True, slots=True, kw_only=True)
class CloudflareRecord:
    """One DNS record, as stored."""

    id: str
    name: str
    type: str
    content: str
    ttl: int = 1
    proxied: bool = False
    priority: int | None = None
    data: SrvData | None = None
    comment: str | None = None
    created_on: str
    modified_on: str

    def identity(self) -> tuple[str, str, str, SrvData | None]:
        """What makes two records the same one to Cloudflare."""
        return self.name, self.type, self.content, self.data

    def to_json(self) -> JsonObject:
        """The record as Cloudflare shows it."""
        shown: JsonObject = {
            "id": self.id,
            "name": self.name,
            "type": self.type,
            "content": self.content,
            "proxiable": self.type in PROXIABLE,
            "proxied": self.proxied,
            "ttl": self.ttl,
            "settings": {},
            "meta": {},
            "comment": self.comment,
            "tags": [],
            "created_on": self.created_on,
            "modified_on": self.modified_on,
        }
        if self.priority is not None:
            shown["priority"] = self.priority
        if self.data is not None:
            shown["data"] = self.data.to_json()
        return shown


def new_record(
    name: str,
    record_type: str,
    content: str = "",
    *,
    ttl: int = 1,
    proxied: bool = False,
    priority: int | None = None,
    data: SrvData | None = None,
    comment: str | None = None,
) -> CloudflareRecord:
    """A record with a fresh identifier, made now."""
    now = utc_text()
    return CloudflareRecord(
        id=uuid.uuid4().hex,
        name=name,
        type=record_type,
        content=content if data is None else data.content(),
        ttl=ttl,
        proxied=proxied,
        priority=priority if data is None else data.priority,
        data=data,
        comment=comment,
        created_on=now,
        modified_on=now,
    )


@dataclass(frozen=True, slots=True)
class CloudflareCheckpoint:
    """All records at one moment."""

    by_id: dict[str, CloudflareRecord]
    by_name: dict[str, tuple[str, ...]]


class CloudflareTable:
    """Records in the order of their making, found by identifier or by name."""

    def __init__(self, lock: threading.RLock) -> None:
        self._lock = lock
        self._by_id: dict[str, CloudflareRecord] = {}
        self._by_name: dict[str, tuple[str, ...]] = {}

    def __len__(self) -> int:
        return len(self._by_id)

    def records(self) -> list[CloudflareRecord]:
        """A copy of the whole zone."""
        with self._lock:
            return list(self._by_id.values())

    def get(self, record_id: str) -> CloudflareRecord | None:
        """The record with that identifier."""
        with self._lock:
            return self._by_id.get(record_id)

    def named(self, name: str) -> list[CloudflareRecord]:
        """Every record of one name."""
        with self._lock:
            return [self._by_id[record_id] for record_id in self._by_name.get(name, ())]

    def put(self, record: CloudflareRecord) -> None:
        """Add a record, or replace the one with its identifier."""
        with self._lock:
            old = self._by_id.get(record.id)
            if old is not None and old.name != record.name:
                self._forget_name(old)
                old = None
            if old is None:
                self._by_name[record.name] = (*self._by_name.get(record.name, ()), record.id)
            self._by_id[record.id] = record

    def put_all(self, records: Iterable[CloudflareRecord]) -> None:
        """Add many records."""
        with self._lock:
            for record in records:
                self.put(record)

    def remove(self, record_id: str) -> None:
        """Take a record out of the zone."""
        with self._lock:
            self._forget_name(self._by_id.pop(record_id))

    def checkpoint(self) -> CloudflareCheckpoint:
        """Remember all records, to go back to them."""
        with self._lock:
            return CloudflareCheckpoint(dict(self._by_id), dict(self._by_name))

    def restore(self, checkpoint: CloudflareCheckpoint) -> None:
        """Go back to what was remembered."""
        with self._lock:
            self._by_id = dict(checkpoint.by_id)
            self._by_name = dict(checkpoint.by_name)

    def clear(self) -> None:
        """Empty the zone."""
        with self._lock:
            self._by_id.clear()
            self._by_name.clear()

    def _forget_name(self, record: CloudflareRecord) -> None:
        left = tuple(i for i in self._by_name[record.name] if i != record.id)
        if left:
            self._by_name[record.name] = left
        else:
            del self._by_name[record.name]
