"""What Technitium reads from the parameters of a call."""

import ipaddress
from collections.abc import Mapping

from zlh_dagster.sandbox.technitium_records import RecordData, address_data, srv_data

_DEFAULT_TTL = 3600
_TEXT_FIELDS = {"CNAME": "cname", "TXT": "text", "NS": "nameServer"}


class Refused(Exception):
    """A call that ends with ``status: error``."""


def required(fields: Mapping[str, str], name: str) -> str:
    """A parameter that must be there.

    Raises:
        Refused: If it is not.
    """
    value = fields.get(name, "").strip()
    if not value:
        raise Refused(f"Parameter '{name}' missing.")
    return value


def flag(fields: Mapping[str, str], name: str) -> bool:
    """A parameter that is true or false, and false when it is not there."""
    value = fields.get(name, "false").strip().lower()
    if value not in ("true", "false"):
        raise Refused(f"Parameter '{name}' must be true or false.")
    return value == "true"


def time_to_live(fields: Mapping[str, str]) -> int:
    """The TTL, which falls back to an hour whatever the record had before."""
    return _number(fields, "ttl", _DEFAULT_TTL, 2**31 - 1)


def domain_name(text: str) -> str:
    """A name in lower case without its final dot."""
    return text.strip().lower().rstrip(".")


def record_data(record_type: str, fields: Mapping[str, str]) -> RecordData:
    """``rData`` from the parameters of ``add``, or the old values of ``update``."""
    if record_type in ("A", "AAAA"):
        return address_data(_address(record_type, required(fields, "ipAddress")))
    if record_type == "SRV":
        return srv_data(
            priority=_number(fields, "priority", None),
            weight=_number(fields, "weight", None),
            port=_number(fields, "port", None),
            target=domain_name(required(fields, "target")),
        )
    if record_type == "MX":
        exchange = domain_name(required(fields, "exchange"))
        return (("preference", _number(fields, "preference", 1)), ("exchange", exchange))
    if record_type in _TEXT_FIELDS:
        name = _TEXT_FIELDS[record_type]
        value = required(fields, name)
        return ((name, value if record_type == "TXT" else domain_name(value)),)
    raise Refused(f"The record type '{record_type}' is not supported here.")


def new_record_data(record_type: str, fields: Mapping[str, str]) -> RecordData:
    """``rData`` from the new values of ``update``; a value left out stays as it was."""
    merged = dict(fields)
    for name, value in fields.items():
        if name.startswith("new") and value.strip():
            merged[name[3].lower() + name[4:]] = value
    return record_data(record_type, merged)


def _address(record_type: str, text: str) -> str:
    try:
        address = ipaddress.ip_address(text)
    except ValueError as error:
        raise Refused(f"Invalid IP address: {text}") from error
    if (address.version == 4) != (record_type == "A"):
        raise Refused(f"The address family of {text} does not suit an {record_type} record.")
    return str(address)


def _number(fields: Mapping[str, str], name: str, default: int | None, maximum: int = 65535) -> int:
    text = required(fields, name) if default is None else fields.get(name, str(default)).strip()
    if not text.isdecimal() or int(text) > maximum:
        raise Refused(f"Parameter '{name}' must be a number from 0 to {maximum}.")
    return int(text)
