"""What Cloudflare accepts as a record, and what it makes of it."""

import ipaddress
import uuid
from typing import Any

from zlh_dagster.sandbox.clock import utc_text
from zlh_dagster.sandbox.cloudflare_records import (
    PROXIABLE,
    CloudflareRecord,
    CloudflareTable,
    SrvData,
)
from zlh_dagster.sandbox.exchange import JsonObject

_TYPES = frozenset({"A", "AAAA", "CNAME", "MX", "TXT", "NS", "SRV", "CAA", "PTR"})
_ADDRESSES = frozenset({"A", "AAAA"})
_COMMENT_MAX = 100
_AUTOMATIC_TTL = 1


class Refused(Exception):
    """A call that Cloudflare turns down, with its code and HTTP status."""

    def __init__(self, code: int, message: str, *, status: int = 400) -> None:
        super().__init__(message)
        self.code = code
        self.message = message
        self.status = status


def normal_name(name: str, zone: str) -> str:
    """Lower case, no final dot, and below the zone whatever was asked for."""
    lowered = name.strip().lower().rstrip(".")
    if lowered in ("@", zone):
        return zone
    return lowered if lowered.endswith(f".{zone}") else f"{lowered}.{zone}"


def build_record(
    body: JsonObject, *, zone: str, old: CloudflareRecord | None = None
) -> CloudflareRecord:
    """A valid record from a request body.

    Args:
        body: The fields that were sent.
        zone: The zone it is for.
        old: The record that is being patched; what the body leaves out comes from there.

    Raises:
        Refused: If Cloudflare would not take it.
    """
    record_type = _record_type(body.get("type", old.type if old else None))
    changed_type = old is not None and old.type != record_type
    name = body.get("name", old.name if old else None)
    if not isinstance(name, str) or not name.strip():
        raise Refused(1004, "DNS Validation Error: a record needs a name.")
    data = _srv_data(body, old) if record_type == "SRV" else None
    if data is not None:
        content = data.content()
    else:
        sent = body.get("content", old.content if old and not changed_type else None)
        content = _content(record_type, sent)
    proxied = body.get("proxied", old.proxied if old else False)
    if not isinstance(proxied, bool):
        raise Refused(1004, "DNS Validation Error: proxied must be true or false.")
    if proxied and record_type not in PROXIABLE:
        raise Refused(9004, "This record type cannot be proxied.")
    ttl = _ttl(body.get("ttl", old.ttl if old else _AUTOMATIC_TTL))
    now = utc_text()
    return CloudflareRecord(
        id=old.id if old else uuid.uuid4().hex,
        name=normal_name(name, zone),
        type=record_type,
        content=content,
        ttl=_AUTOMATIC_TTL if proxied else ttl,
        proxied=proxied,
        priority=_priority(record_type, body, old) if data is None else data.priority,
        data=data,
        comment=_comment(body.get("comment", old.comment if old else None)),
        created_on=old.created_on if old else now,
        modified_on=now,
    )


def refuse_conflicts(table: CloudflareTable, record: CloudflareRecord) -> None:
    """Turn a record down that cannot stand beside those of its name.

    Raises:
        Refused: For an identical record, and for a CNAME beside an address or another CNAME.
    """
    for other in table.named(record.name):
        if other.id == record.id:
            continue
        if other.identity() == record.identity():
            raise Refused(81058, "An identical record already exists.")
        kinds = {other.type, record.type}
        if "CNAME" in kinds and kinds <= PROXIABLE:
            raise Refused(81053, "An A, AAAA, or CNAME record with that host already exists.")


def _record_type(value: Any) -> str:
    if not isinstance(value, str) or value.upper() not in _TYPES:
        raise Refused(1004, f"DNS Validation Error: {value!r:.40} is no record type.")
    return value.upper()


def _content(record_type: str, value: Any) -> str:
    if not isinstance(value, str) or not value.strip():
        raise Refused(1004, f"DNS Validation Error: content of a {record_type} record is missing.")
    if record_type not in _ADDRESSES:
        return value.strip().rstrip(".") if record_type != "TXT" else value
    wanted = ipaddress.IPv4Address if record_type == "A" else ipaddress.IPv6Address
    version = 4 if record_type == "A" else 6
    try:
        return str(wanted(value.strip()))
    except ValueError as error:
        raise Refused(
            9005, f"Content for {record_type} record must be a valid IPv{version} address."
        ) from error


def _priority(record_type: str, body: JsonObject, old: CloudflareRecord | None) -> int | None:
    if record_type != "MX":
        return None
    value: Any = body.get("priority", old.priority if old else None)
    if not _is_number(value, 0, 65535):
        raise Refused(1004, "DNS Validation Error: an MX record needs a priority.")
    return int(value)


def _srv_data(body: JsonObject, old: CloudflareRecord | None) -> SrvData:
    data = body.get("data")
    if data is None and old is not None and old.data is not None:
        return old.data
    if not isinstance(data, dict):
        raise Refused(1004, "DNS Validation Error: data of an SRV record is missing.")
    for key in ("priority", "weight", "port"):
        if not _is_number(data.get(key), 0, 65535):
            raise Refused(1004, f"DNS Validation Error: SRV data.{key} must be 0 to 65535.")
    target = data.get("target")
    if not isinstance(target, str) or not target.strip("."):
        raise Refused(1004, "DNS Validation Error: SRV data.target is missing.")
    return SrvData(data["priority"], data["weight"], data["port"], target.lower().rstrip("."))


def _ttl(value: Any) -> int:
    if value == _AUTOMATIC_TTL or _is_number(value, 60, 86400):
        return int(value)
    raise Refused(9021, "Invalid TTL. Must be between 60 and 86400 seconds, or 1 for Automatic.")


def _comment(value: Any) -> str | None:
    if value is None or value == "":
        return None
    if not isinstance(value, str):
        raise Refused(1004, "DNS Validation Error: comment must be text.")
    if len(value) > _COMMENT_MAX:
        raise Refused(1004, f"DNS Validation Error: comment is over {_COMMENT_MAX} characters.")
    return value


def _is_number(value: Any, low: int, high: int) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and low <= value <= high
