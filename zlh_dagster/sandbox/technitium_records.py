"""Records of the pretend Technitium zone, and the table that holds them."""

import threading
from collections.abc import Iterable
from dataclasses import dataclass

from zlh_dagster.sandbox.exchange import JsonObject

RecordData = tuple[tuple[str, str | int], ...]
"""Names and values of ``rData``, in order."""

RecordKey = tuple[str, str, RecordData]
"""Name, type and data: no two records of a zone agree in all three."""


@dataclass(frozen=True, slots=True)
class TechnitiumRecord:
    """One DNS record, as stored."""

    name: str
    type: str
    data: RecordData
    ttl: int = 3600
    disabled: bool = False
    comments: str = ""

    def key(self) -> RecordKey:
        """What tells this record from all others."""
        return self.name, self.type, self.data

    def to_json(self) -> JsonObject:
        """The record as Technitium lists it."""
        shown: JsonObject = {
            "disabled": self.disabled,
            "name": self.name,
            "type": self.type,
            "ttl": self.ttl,
            "rData": dict(self.data),
            "dnssecStatus": "Unknown",
            "lastUsedOn": "0001-01-01T00:00:00",
        }
        if self.comments:
            shown["comments"] = self.comments
        return shown


def address_data(address: str) -> RecordData:
    """``rData`` of an A record."""
    return (("ipAddress", address),)


def srv_data(*, priority: int, weight: int, port: int, target: str) -> RecordData:
    """``rData`` of an SRV record."""
    return (("priority", priority), ("weight", weight), ("port", port), ("target", target))


def zone_head(zone: str) -> list[TechnitiumRecord]:
    """What a signed zone has at its apex before anybody adds to it."""
    soa: RecordData = (
        ("primaryNameServer", f"ns1.{zone}"),
        ("responsiblePerson", f"hostmaster.{zone}"),
        ("serial", 1),
        ("refresh", 900),
        ("retry", 300),
        ("expire", 604800),
        ("minimum", 900),
    )
    key: RecordData = (
        ("flags", "SecureEntryPoint, ZoneKey"),
        ("protocol", 3),
        ("algorithm", "ECDSAP256SHA256"),
        ("publicKey", "c2FuZGJveCBrZXkgb2YgYSBwcmV0ZW5kIHpvbmU="),
        ("computedKeyTag", 41213),
    )
    return [
        TechnitiumRecord(zone, "SOA", soa, ttl=900),
        TechnitiumRecord(zone, "NS", (("nameServer", f"ns1.{zone}"),)),
        TechnitiumRecord(zone, "DNSKEY", key),
    ]


class TechnitiumTable:
    """Records in the order of their making, found by key or by name."""

    def __init__(self, lock: threading.RLock, zone: str) -> None:
        self._lock = lock
        self._zone = zone
        self._records: dict[RecordKey, TechnitiumRecord] = {}
        self._by_name: dict[str, tuple[RecordKey, ...]] = {}
        self.put_all(zone_head(zone))

    def __len__(self) -> int:
        return len(self._records)

    def records(self) -> list[TechnitiumRecord]:
        """A copy of the whole zone, its head included."""
        with self._lock:
            return list(self._records.values())

    def get(self, key: RecordKey) -> TechnitiumRecord | None:
        """The record with that name, type and data."""
        with self._lock:
            return self._records.get(key)

    def named(self, name: str) -> list[TechnitiumRecord]:
        """Every record of one name."""
        with self._lock:
            return [self._records[key] for key in self._by_name.get(name, ())]

    def put(self, record: TechnitiumRecord) -> None:
        """Add a record, or replace the one with its key."""
        with self._lock:
            key = record.key()
            if key not in self._records:
                self._by_name[record.name] = (*self._by_name.get(record.name, ()), key)
            self._records[key] = record

    def put_all(self, records: Iterable[TechnitiumRecord]) -> None:
        """Add many records."""
        with self._lock:
            for record in records:
                self.put(record)

    def remove(self, key: RecordKey) -> None:
        """Take a record out of the zone."""
        with self._lock:
            del self._records[key]
            left = tuple(other for other in self._by_name[key[0]] if other != key)
            if left:
                self._by_name[key[0]] = left
            else:
                del self._by_name[key[0]]

    def checkpoint(self) -> dict[RecordKey, TechnitiumRecord]:
        """Remember all records, to go back to them."""
        with self._lock:
            return dict(self._records)

    def restore(self, checkpoint: dict[RecordKey, TechnitiumRecord]) -> None:
        """Go back to what was remembered."""
        with self._lock:
            self._records.clear()
            self._by_name.clear()
            self.put_all(checkpoint.values())

    def clear(self) -> None:
        """Empty the zone down to its head."""
        with self._lock:
            self.restore({})
            self.put_all(zone_head(self._zone))
