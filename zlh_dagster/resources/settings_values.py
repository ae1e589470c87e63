"""What each kind of setting may hold, as types of which one field is one setting."""

import re
from collections.abc import Callable
from ipaddress import IPv4Address, ip_network
from pathlib import Path
from typing import Annotated, Any
from urllib.parse import urlsplit

import sqlalchemy as sa
from fsspec import available_protocols, get_filesystem_class
from pydantic import AfterValidator, BeforeValidator, SecretStr
from pydantic_settings import NoDecode
from sqlalchemy.exc import ArgumentError

from zlh_dagster.core.guards import NAMED_BY_OPERATOR
from zlh_dagster.core.model import Action
from zlh_dagster.resources.urls import check_redis_url, check_url, with_driver

_ZONE = re.compile(
    r"(?:[a-z0-9](?:[a-z0-9-]{0,61}[a-z0-9])?\.)+[a-z0-9](?:[a-z0-9-]{0,61}[a-z0-9])?"
)
_DEPLOYMENT = re.compile(r"[a-z0-9](?:[a-z0-9-]{0,38}[a-z0-9])?")
_HEADER_VALUE = re.compile(r"[!-~]+")
_PROXMOX_TOKEN_ID = re.compile(r"[!-~]+@[!-~]+![!-~]+")
_PATH_PART = re.compile(r"[A-Za-z0-9](?:[A-Za-z0-9._-]*[A-Za-z0-9])?")
_DATABASES = frozenset({"sqlite", "postgresql", "mysql", "mariadb"})


def _split(value: Any) -> Any:
    if isinstance(value, str):
        return tuple(part.strip() for part in value.split(",") if part.strip())
    return value


def _level2_actions(value: tuple[str, ...]) -> tuple[str, ...]:
    allowed = [a.value for a in Action if a.level == NAMED_BY_OPERATOR and a.built]
    for name in value:
        if name not in allowed:
            raise ValueError(
                f"{name!r} is no level-2 action that can be switched on; known: "
                + ", ".join(allowed)
            )
    return value


def _networks(value: tuple[str, ...]) -> tuple[str, ...]:
    for network in value:
        ip_network(network)
    return value


def _zone(value: str) -> str:
    zone = value.strip().lower().removesuffix(".")
    if not value.isascii() or not _ZONE.fullmatch(zone):
        raise ValueError("must be a zone name such as example.gg")
    return zone


def _deployment(value: str) -> str:
    if not _DEPLOYMENT.fullmatch(value):
        raise ValueError("must be up to 40 of a-z, 0-9 and -, as in zlh-main")
    return value


def _path_part(value: str) -> str:
    part = value.strip()
    if not _PATH_PART.fullmatch(part):
        raise ValueError("must be letters, digits, '.', '_' and '-', for it is part of a URL")
    return part


def _token_id(value: str) -> str:
    token_id = value.strip()
    if not _PROXMOX_TOKEN_ID.fullmatch(token_id):
        raise ValueError("must be user@realm!name in printable ASCII without spaces")
    return token_id


def _ipv4(value: str) -> str:
    return str(IPv4Address(value.strip()))


def _readable_file(value: Path) -> Path:
    if not value.expanduser().is_file():
        raise ValueError(f"no file at {value}")
    return value.expanduser()


def _http_or_https(value: str) -> str:
    return check_url(value, http_anywhere=True)


def _https_or_loopback(value: str) -> str:
    return check_url(value, http_anywhere=False)


def _secret_url(value: str) -> str:
    check_url(value, http_anywhere=False)
    # As it was given: what its service makes of a last slash is not known here.
    return value


def _token(value: str) -> str:
    if not _HEADER_VALUE.fullmatch(value):
        raise ValueError("must be printable ASCII without spaces, for it travels in a header")
    return value


def _platform_database(value: str) -> str:
    try:
        backend = sa.make_url(with_driver(value)).get_backend_name()
        urlsplit(value)
    except (ArgumentError, ValueError):
        raise ValueError("is not a database URL") from None
    if backend not in _DATABASES:
        raise ValueError("must begin with sqlite://, postgresql:// or mariadb://")
    return value


def _dagster_database(value: str) -> str:
    url = with_driver(value)
    try:
        backend = sa.make_url(url).get_backend_name()
    except ArgumentError:
        backend = ""
    if backend != "postgresql":
        raise ValueError("must be a URL that begins with postgresql://; unset it for SQLite")
    return url


def _file_system(value: str) -> str:
    url = value.rstrip("/")
    protocol = url.partition("://")[0] if "://" in url else "file"
    if protocol not in available_protocols():
        raise ValueError(f"{protocol}:// is no file system that fsspec knows")
    try:
        get_filesystem_class(protocol)
    except ImportError as error:
        raise ValueError(f"{protocol}:// needs a package that is not here: {error}") from error
    return url


def _secretly(check: Callable[[str], str]) -> AfterValidator:
    """A check of what a secret holds, without the blanks around it."""

    def checked(value: SecretStr) -> SecretStr:
        return SecretStr(check(value.get_secret_value().strip()))

    return AfterValidator(checked)


_Listed = Annotated[tuple[str, ...], NoDecode, BeforeValidator(_split)]
"""Names with commas between them."""

Level2Actions = Annotated[_Listed, AfterValidator(_level2_actions)]
Networks = Annotated[_Listed, AfterValidator(_networks)]
Zone = Annotated[str, AfterValidator(_zone)]
Deployment = Annotated[str, AfterValidator(_deployment)]
PathPart = Annotated[str, AfterValidator(_path_part)]
ProxmoxTokenId = Annotated[str, AfterValidator(_token_id)]
Ipv4 = Annotated[str, AfterValidator(_ipv4)]
ReadableFile = Annotated[Path, AfterValidator(_readable_file)]
Url = Annotated[str, AfterValidator(_http_or_https)]
SafeUrl = Annotated[str, AfterValidator(_https_or_loopback)]
"""A URL below which secrets travel: HTTPS, but on this machine."""

Token = Annotated[SecretStr, _secretly(_token)]
SecretUrl = Annotated[SecretStr, _secretly(_secret_url)]
PlatformDatabaseUrl = Annotated[SecretStr, _secretly(_platform_database)]
DagsterDatabaseUrl = Annotated[SecretStr, _secretly(_dagster_database)]
RedisUrl = Annotated[SecretStr, _secretly(check_redis_url)]
SnapshotUrl = Annotated[SecretStr, _secretly(_file_system)]
