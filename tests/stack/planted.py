"""Secrets that stand nowhere else, and the search for them and their parts."""

import base64
import binascii
import contextlib
import json
import secrets
import sqlite3
import zlib
from collections.abc import Iterable, Iterator
from hashlib import sha256
from pathlib import Path
from typing import Any, get_args
from urllib.parse import parse_qs, urlsplit

import httpx
import pandas as pd
import pyarrow as pa
import sqlalchemy as sa
from pydantic import SecretStr

from zlh_dagster.resources.redis import connect
from zlh_dagster.resources.settings import Settings
from zlh_dagster.sandbox.config import SandboxConfig

PART = 12
"""So many characters of a secret in a row are a leak, too."""


def _is_secret(kind: Any) -> bool:
    """Whether a type is that of a secret, or one with checks, or none."""
    return kind is SecretStr or any(map(_is_secret, get_args(kind)))


SECRET_SETTINGS = {
    name.upper() for name, field in Settings.model_fields.items() if _is_secret(field.annotation)
}
NOT_PLANTED = {"ZLH_SNAPSHOT_URL": "a directory here, the address of which has no room for one"}

_UNUSED = "planted"
"""A parameter of a database's URL that its driver takes and nobody reads."""

_SQLITE = b"SQLite format 3\0"
_RUNS = """{
  instance { info }
  runsOrError { ... on Runs { results {
    runId jobName status runConfigYaml tags { key value }
    eventConnection { events { ... on MessageEvent { message } ... on ErrorEvent { error {
      message stack causes { message stack } } } } }
  } } }
  sensorsOrError(repositorySelector: {
    repositoryName: "__repository__", repositoryLocationName: "zlh"
  }) { ... on Sensors { results { name sensorState { ticks { skipReason error { message } } } } } }
}"""


def planted_config() -> SandboxConfig:
    """An edge whose tokens were made just now."""
    return SandboxConfig(
        cloudflare_token=secrets.token_hex(20),
        technitium_token=secrets.token_hex(20),
        zpack_secret=secrets.token_hex(20),
        proxmox_token_secret=secrets.token_hex(20),
    )


def with_tokens(environment: dict[str, str]) -> dict[str, str]:
    """The settings with a token in each address that is a secret."""
    planted = {}
    for name in SECRET_SETTINGS - set(NOT_PLANTED):
        scheme, colon, rest = environment.get(name, "").partition("://")
        token = secrets.token_hex(20)
        if not colon:
            continue
        if scheme == "sqlite":
            planted[name] = f"{scheme}://{rest}?{_UNUSED}={token}"
        elif scheme.startswith("http"):
            planted[name] = f"{scheme}://{rest}/{token}"
        else:
            user, _, place = rest.rpartition("@")
            planted[name] = f"{scheme}://{user.rstrip(':')}:{token}@{place}"
    return planted


def secrets_of(environment: dict[str, str]) -> dict[str, str]:
    """What must stand nowhere, by the name of its setting."""
    found = {name: _secret_in(name, value) for name, value in environment.items()}
    found = {name: secret for name, secret in found.items() if secret}
    found["digest of ZPACK_SECRET"] = sha256(environment["ZPACK_SECRET"].encode()).hexdigest()
    return found


def _secret_in(name: str, value: str) -> str | None:
    """What of a setting's value is secret."""
    if "://" not in value:
        return value if name in SECRET_SETTINGS else None
    address = urlsplit(value)
    if address.password:
        return address.password
    if address.scheme.startswith("http") and name in SECRET_SETTINGS:
        return address.path.rpartition("/")[2]
    return next(iter(parse_qs(address.query).get(_UNUSED, [])), None)


def leaks(environment: dict[str, str], places: Iterable[tuple[str, bytes]]) -> list[str]:
    """Where a secret, or a part of one, stands."""
    parts = {
        name: [secret[i : i + PART].encode() for i in range(len(secret) - PART + 1)]
        for name, secret in secrets_of(environment).items()
    }
    return [
        f"{name} stands in {where}"
        for where, text in places
        for name, windows in parts.items()
        if any(window in text for window in windows)
    ]


def files(directory: Path) -> Iterator[tuple[str, bytes]]:
    """Every file below a directory, unpacked: logs, databases, snapshots."""
    for path in sorted(directory.rglob("*")):
        with contextlib.suppress(FileNotFoundError):
            if path.is_file():
                content = path.read_bytes()
                # What a fault left half written is searched as it is.
                with contextlib.suppress(sqlite3.DatabaseError, pa.ArrowInvalid):
                    content += _packed_in(path, content)
                yield str(path), content


def _packed_in(path: Path, content: bytes) -> bytes:
    """What cannot be read in a file's own bytes, because it is compressed there."""
    if path.suffix == ".parquet":
        return pd.read_parquet(path).to_json().encode()
    if not content.startswith(_SQLITE):
        return b""
    with contextlib.closing(sqlite3.connect(f"file:{path}?mode=ro", uri=True)) as connection:
        names = connection.execute("SELECT name FROM sqlite_master WHERE type = 'table'").fetchall()
        return b"\n".join(
            _unpacked(value)
            for (name,) in names
            for row in connection.execute(f'SELECT * FROM "{name}"')
            for value in row
        )


def _unpacked(value: Any) -> bytes:
    """A value of a row as it is, and as it was before it was compressed."""
    raw = bytes(value) if isinstance(value, (bytes, memoryview)) else str(value).encode()
    layers = [raw]
    with contextlib.suppress(binascii.Error):
        layers.append(base64.b64decode(raw, validate=True))
    for layer in tuple(layers):
        with contextlib.suppress(zlib.error):
            layers.append(zlib.decompress(layer))
    return b"\n".join(layers)


def redis_keys(url: str) -> Iterator[tuple[str, bytes]]:
    """Every key of Redis with its name."""
    with connect(url) as client:
        client.config_set("rdbcompression", "no")  # what DUMP gives is searched
        for key in client.scan_iter():
            with contextlib.suppress(Exception):
                yield f"Redis: {key}", str(key).encode() + (client.dump(key) or b"")


def rows(url: str) -> Iterator[tuple[str, bytes]]:
    """Every row of a database."""
    engine = sa.create_engine(url)
    tables = sa.MetaData()
    tables.reflect(engine)
    with engine.connect() as connection:
        for table in tables.sorted_tables:
            found = connection.execute(sa.select(table)).all()
            yield f"table {table.name}", b"\n".join(_unpacked(v) for row in found for v in row)
    engine.dispose()


def web_pages(base: str) -> Iterator[tuple[str, bytes]]:
    """What the web server tells: runs with config, tags and events, sensors, the instance."""
    answer = httpx.post(f"{base}/graphql", json={"query": _RUNS}, timeout=60)
    said = answer.json()
    assert "errors" not in said, said
    assert said["data"]["runsOrError"]["results"], "no run is shown"
    yield "GraphQL", json.dumps(said, ensure_ascii=False).encode()
    for page in ("", "runs", "server_info", "assets", "automation", "config"):
        yield f"page /{page}", httpx.get(f"{base}/{page}", timeout=60).content
