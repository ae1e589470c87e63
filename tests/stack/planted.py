"""Secrets that stand nowhere else, and the search for them and their parts."""

import contextlib
import json
import secrets
from collections.abc import Iterable, Iterator
from hashlib import sha256
from pathlib import Path

import httpx
import sqlalchemy as sa

from zlh_dagster.resources.redis import connect
from zlh_dagster.sandbox.config import SandboxConfig

PART = 12
"""So many characters of a secret in a row are a leak, too."""

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
    """The settings with a token at the end of each address that is a secret."""
    addressed = [n for n in environment if n.startswith("DISCORD_WEBHOOK_")]
    return {
        name: f"{environment[name]}/{secrets.token_hex(20)}"
        for name in (*addressed, "ZLH_HEARTBEAT_URL")
    }


def secrets_of(environment: dict[str, str]) -> dict[str, str]:
    """What must stand nowhere, by the name of its setting."""
    found = {}
    for name, value in environment.items():
        if name.startswith("DISCORD_WEBHOOK_") or name == "ZLH_HEARTBEAT_URL":
            found[name] = value.rpartition("/")[2]
        elif name.endswith(("_TOKEN", "_SECRET")):
            found[name] = value
    found["digest of ZPACK_SECRET"] = sha256(environment["ZPACK_SECRET"].encode()).hexdigest()
    return found


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
    """Every file below a directory: logs, databases, snapshots, sockets' neighbours."""
    for path in sorted(directory.rglob("*")):
        with contextlib.suppress(OSError):
            if path.is_file():
                yield str(path), path.read_bytes()


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
            yield f"table {table.name}", "\n".join(map(str, found)).encode()
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
