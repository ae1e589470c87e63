"""The checks of `zlh doctor`, one for each outside system; none of them writes anywhere."""

import os
from collections.abc import Iterable
from functools import partial
from pathlib import Path

import sqlalchemy as sa
from sqlalchemy.exc import SQLAlchemyError

from zlh_dagster.cli.doctor import Check, Finding, State
from zlh_dagster.cli.text import counted
from zlh_dagster.core.fleet import OPEN_OPERATION_COLUMNS, Answer
from zlh_dagster.core.model import UNREADABLE, Surface
from zlh_dagster.core.rules import Severity
from zlh_dagster.resources import rows
from zlh_dagster.resources.agents import probe
from zlh_dagster.resources.bullmq import QUEUES, read_jobs
from zlh_dagster.resources.cloudflare import Cloudflare
from zlh_dagster.resources.database import PAYLOAD_COLUMNS, DatabaseError, explain
from zlh_dagster.resources.http import EdgeError, ServerFailed, Unauthorized, Unreachable
from zlh_dagster.resources.redis import RedisUnavailable, server_facts
from zlh_dagster.resources.services import Services
from zlh_dagster.resources.settings import Settings, SettingsError, slips
from zlh_dagster.resources.shards import to_ask
from zlh_dagster.resources.technitium import Technitium
from zlh_dagster.schema.tables import (
    container_instance,
    port_pool,
    provisioning_operation,
    vmid_reservation,
)
from zlh_dagster.schema.upgrade import current, head

AGENTS_ASKED = 50
READ_BY_OTHERS = 0o044
ROWS_READ = 100

_READ = {
    container_instance: PAYLOAD_COLUMNS,
    provisioning_operation: (*OPEN_OPERATION_COLUMNS, "completedAt", "error"),
    vmid_reservation: ("vmid", "operationId", "releasedAt"),
    port_pool: ("port", "status", "allocatedTo", "updatedAt"),
}
"""The columns of each table that something is decided by, or that are written."""

_LET_IN = {
    Surface.CLOUDFLARE: "CLOUDFLARE_API_TOKEN needs Zone:DNS:Read on the zone; Edit, to repair",
    Surface.TECHNITIUM: "make a token of a user who has View on the zone; Modify, to repair",
    Surface.VELOCITY: (
        "ZPACK_SECRET must be the one that the bridge plugin has, VELOCITY_URL where that listens"
    ),
}
_SETTINGS_OF = {
    Surface.CLOUDFLARE: ("CLOUDFLARE_API_TOKEN", "CLOUDFLARE_ZONE_ID"),
    Surface.TECHNITIUM: ("TECHNITIUM_API_TOKEN", "TECHNITIUM_API_URL (it ends before /api)"),
    Surface.VELOCITY: ("ZPACK_SECRET", "VELOCITY_URL (it ends before /zpack)"),
}
_ITS_OWN_ERROR = "it is there and answers with an error of its own: see its state or its log"


def checks_of(services: Services) -> list[Check]:
    """All checks of a deployment whose settings are in order."""
    shared = ["redis", "surfaces", "discord"]
    if _missing_file(services) is None:
        shared.append("engine")
    for name in shared:  # built once, before several threads ask for them
        getattr(services, name)
    return [
        _names,
        _file,
        partial(_mode, services),
        partial(_home, services),
        partial(_snapshots, services),
        partial(_platform, services),
        partial(_tables, services),
        partial(_redis, services),
        *(partial(_surface, services, surface) for surface in Surface),
        partial(_proxmox, services),
        partial(_agents, services),
        *(partial(_discord, services, severity) for severity in Severity),
        partial(_heartbeat, services),
    ]


def bad_settings(error: SettingsError) -> list[Finding]:
    """Settings that cannot be used, for which no system was tried."""
    todo = "correct them in .env or the environment; docs/settings.md has each"
    tried = "read the environment and .env"
    return [Finding("settings", State.PROBLEM, tried, str(error), todo), *_names(), *_file()]


def _names() -> Iterable[Finding]:
    for name, meant in slips().items():
        got, todo = "no setting has that name", "docs/settings.md has every name; remove this one"
        if meant is not None:
            got += f"; {meant} has one nearly the same"
            todo = f"write {meant}, if that is meant"
        yield Finding(name, State.NOTE, "read the names in the environment and .env", got, todo)


def _file() -> Iterable[Finding]:
    """The file of the settings holds every secret, and a copy of the example is open to all."""
    path = Path(str(Settings.model_config["env_file"]))
    if path.is_file() and path.stat().st_mode & READ_BY_OTHERS:
        got, todo = "others than its owner may read it, and it holds secrets", f"chmod 600 {path}"
        yield Finding(path.name, State.NOTE, "looked who may read it", got, todo)


def _mode(services: Services) -> Iterable[Finding]:
    settings = services.settings
    got = "live: repairs are made" if settings.live else "dry-run: repairs are only recorded"
    yield Finding("ZLH_REPAIR_MODE", State.OK, "read the settings", got)


def _home(services: Services) -> Iterable[Finding]:
    home = services.settings.home
    there = next(path for path in (home, *home.parents) if path.exists())
    tried = f"looked whether {home} can be written"
    if os.access(there, os.W_OK | os.X_OK):
        yield Finding("DAGSTER_HOME", State.OK, tried, "yes")
    else:
        todo = "give it to the user who runs the controller, or set another directory"
        yield Finding("DAGSTER_HOME", State.PROBLEM, tried, f"{there} is not writable", todo)


def _snapshots(services: Services) -> Iterable[Finding]:
    """Only where they are elsewhere: at home they are as writable as that is."""
    if services.settings.zlh_snapshot_url is None:
        return
    name, tried = "ZLH_SNAPSHOT_URL", "listed what is there"
    try:
        there = services.snapshots.ready()
    except Exception as error:  # noqa: BLE001 - each file system has errors of its own
        got = services.redactor.text(f"{type(error).__name__}: {error}")
        todo = "every tick writes there: see to its address, its rights and its credentials"
        yield Finding(name, State.PROBLEM, tried, got, todo)
        return
    if there:
        yield Finding(name, State.OK, tried, "there are snapshots")
    else:
        got = "nothing, or no such place: whether it can be written shows with the first tick"
        todo = "right before the first tick; after it, see whether what the address names exists"
        yield Finding(name, State.NOTE, tried, got, todo)


def _platform(services: Services) -> Iterable[Finding]:
    name, tried = "ZLH_DATABASE_URL", "read the platform's four tables"
    missing = _missing_file(services)
    if missing is not None:
        todo = "set ZLH_DATABASE_URL to the platform's database"
        yield Finding(name, State.PROBLEM, "looked for the file", f"no file at {missing}", todo)
        return
    counts = []
    for table, names in _READ.items():
        query = sa.select(sa.func.count()).select_from(table)
        columns = [table.c[name] for name in names if name in table.c]
        try:
            with services.engine.connect() as connection:
                counts.append(f"{connection.execute(query).scalar_one()} in {table.name}")
            some = rows.fetch(services.engine, rows.select(columns).limit(ROWS_READ), columns)
        except SQLAlchemyError as error:
            todo = f"check the URL, and that its user may SELECT from {table.name}"
            yield Finding(name, State.PROBLEM, tried, explain(error), todo)
            return
        # A broken row costs itself alone; where all are, it is the column's type.
        if some and all(row[UNREADABLE] for row in some):
            got = f"no row of {table.name} can be read: {some[0][UNREADABLE]}"
            todo = "docs/migrating.md has the type of each column"
            yield Finding(name, State.PROBLEM, f"read {counted(len(some), 'row')}", got, todo)
            return
    yield Finding(name, State.OK, tried, ", ".join(counts))


def _missing_file(services: Services) -> Path | None:
    url = sa.make_url(services.settings.database_url)
    if url.get_backend_name() != "sqlite" or url.database in (None, "", ":memory:"):
        return None
    path = Path(url.database or "")
    return None if path.is_file() else path


def _tables(services: Services) -> Iterable[Finding]:
    name, tried = "ledger", "read the revision of the controller's own tables"
    if _missing_file(services) is not None:
        return
    try:
        found = current(services.engine)
    except SQLAlchemyError as error:
        yield Finding(name, State.PROBLEM, tried, explain(error))
        return
    if found == head():
        yield Finding(name, State.OK, tried, f"{found}, the newest")
    else:
        # Who only looks needs none of them.
        serious = State.NOTE if found is None and not services.settings.live else State.PROBLEM
        got = "they are not there" if found is None else f"{found}, and the newest is {head()}"
        yield Finding(name, serious, tried, got, "run `zlh db upgrade` before `zlh up`")


def _redis(services: Services) -> Iterable[Finding]:
    settings, name = services.settings, "ZLH_REDIS_URL"
    if settings.zlh_redis_url is None:
        got = "not set: `zlh up` brings a Redis of its own, which has no queues of the platform"
        yield Finding(name, State.OFF, "read the settings", got)
        if not settings.socket("redis").exists():
            return
        name = "embedded Redis"
    tried = "asked for its version and how it evicts"
    try:
        facts = server_facts(services.redis)
    except RedisUnavailable as error:
        yield Finding(name, State.PROBLEM, tried, str(error), "check the URL and its password")
        return
    if facts.eviction == "noeviction":
        yield Finding(name, State.OK, tried, f"Redis {facts.version}, evicts nothing")
    else:
        got = (
            f"Redis {facts.version} evicts ({facts.eviction}): lease, breakers and jobs may vanish"
        )
        yield Finding(name, State.PROBLEM, tried, got, "set maxmemory-policy noeviction")
    if settings.zlh_redis_url is not None:
        yield _queues(services)


def _queues(services: Services) -> Finding:
    prefix = services.settings.zlh_bullmq_prefix
    name, tried = "ZLH_BULLMQ_PREFIX", f"looked for the queues {' and '.join(QUEUES)} of {prefix}"
    try:
        queued = read_jobs(services.redis, prefix=prefix, jobs=(), queues=QUEUES).queued
    except (EdgeError, RedisUnavailable) as error:
        todo = "give the Redis and the prefix that the platform's API uses"
        return Finding(name, State.PROBLEM, tried, str(error), todo)
    return Finding(
        name, State.OK, tried, ", ".join(f"{counted(n, 'job')} in {q}" for q, n in queued.items())
    )


def _surface(services: Services, surface: Surface) -> Iterable[Finding]:
    client = services.surfaces.get(surface)
    secret, place = _SETTINGS_OF[surface]
    if client is None:
        yield Finding(surface.value, State.OFF, "read the settings", f"{secret} is not set")
        return
    tried = "listed everything"
    try:
        names = client.list_records()["name"]
    except EdgeError as error:
        yield Finding(surface.value, State.PROBLEM, tried, str(error), _to_read(surface, error))
        return
    zone = services.settings.zlh_zone or ""
    if surface is Surface.CLOUDFLARE and not names.str.endswith(zone).any():
        got = f"{counted(len(names), 'record')}, none of them in {zone}: {names.iloc[0]} is one"
        todo = f"ZLH_ZONE and {place} are of different zones"
        yield Finding(surface.value, State.PROBLEM, tried, got, todo)
        return
    what = "registration" if surface is Surface.VELOCITY else "record"
    yield Finding(surface.value, State.OK, tried, counted(len(names), what))
    if isinstance(client, Cloudflare | Technitium):
        yield _to_write(services, surface.value, client)


def _to_read(surface: Surface, error: EdgeError) -> str:
    """What to do when a surface could not be listed."""
    if isinstance(error, Unauthorized):
        return _LET_IN[surface]
    if isinstance(error, ServerFailed):
        return _ITS_OWN_ERROR
    secret, place = _SETTINGS_OF[surface]
    if isinstance(error, Unreachable):
        address = "CLOUDFLARE_API_BASE" if surface is Surface.CLOUDFLARE else place
        return f"check {address}, and that it can be reached from here"
    return f"check {place} and {secret}"


def _to_write(services: Services, name: str, client: Cloudflare | Technitium) -> Finding:
    """Whether repairs would be let in; a token that only reads is right for a dry run."""
    tried = "asked what the token may do"
    serious = State.PROBLEM if services.settings.live else State.NOTE
    try:
        rights = client.rights()
    except EdgeError as error:
        return Finding(name, State.NOTE, tried, f"not known: {error}")
    if rights.missing:
        got = f"it lacks {', '.join(rights.missing)}: it may look, not repair"
        return Finding(name, serious, tried, got, "give it that right before ZLH_REPAIR_MODE=live")
    if rights.unknown:
        return Finding(name, State.NOTE, tried, f"not known: {rights.unknown}")
    return Finding(name, State.OK, tried, "it may repair")


def _proxmox(services: Services) -> Iterable[Finding]:
    name, tried = "proxmox", "listed the containers"
    todo = "check PROXMOX_URL, PROXMOX_NODE and that it can be reached from here"
    try:
        client = services.proxmox
        if client is None:
            yield Finding(name, State.OFF, "read the settings", "PROXMOX_URL is not set")
            return
        rights = client.rights()
        if rights.missing:
            got = f"the token lacks {', '.join(rights.missing)}: its list is empty or cut short"
            todo = "give the role PVEAuditor on /vms to the token, and to its user"
            yield Finding(name, State.PROBLEM, "asked what the token may do", got, todo)
            return
        found = client.list_containers()
    except SettingsError as error:
        yield Finding(name, State.PROBLEM, "read the certificates", str(error))
        return
    except Unauthorized as error:
        todo = "PROXMOX_TOKEN_ID is user@realm!name, PROXMOX_TOKEN_SECRET what came with it"
        yield Finding(name, State.PROBLEM, tried, str(error), todo)
        return
    except ServerFailed as error:
        # It answers like that of a node that it does not know, too.
        todo = f"{_ITS_OWN_ERROR}, and whether it has the node that PROXMOX_NODE names"
        yield Finding(name, State.PROBLEM, tried, str(error), todo)
        return
    except EdgeError as error:
        yield Finding(name, State.PROBLEM, tried, str(error), todo)
        return
    node = services.settings.proxmox_node
    yield Finding(name, State.OK, tried, f"{counted(len(found), 'container')} on {node}")


def _agents(services: Services) -> Iterable[Finding]:
    settings, name = services.settings, "agents"
    if not settings.proxmox_on:
        got = "without Proxmox nothing follows from an agent that is silent"
        yield Finding(name, State.OFF, "read the settings", got)
        return
    if _missing_file(services) is not None:
        return
    try:
        asked = to_ask(services.read_payloads()).head(AGENTS_ASKED)
    except DatabaseError:
        return
    tried = f"asked {counted(len(asked), 'agent')} on port {settings.zlh_agent_port}"
    answers = probe(
        list(zip(asked["vmid"], asked["ip"], strict=True)),
        port=settings.zlh_agent_port,
        networks=settings.agent_networks,
        with_state=(),
    )
    well = answers[answers["answer"] == Answer.HEALTHY.value]
    got = f"{len(well)} of {len(answers)} are well"
    if len(well) == len(answers):
        yield Finding(name, State.OK, tried, got)
        return
    first = answers[answers["answer"] != Answer.HEALTHY.value].iloc[0]
    got += f"; {first['vmid']}: {first['answer']}, {first['detail']}"
    # Some may be down; all of them is a port, a firewall or a network that is not allowed.
    state = State.NOTE if len(well) else State.PROBLEM
    yield Finding(name, state, tried, got, "see ZLH_AGENT_PORT, ZLH_AGENT_NETWORKS, the firewall")


def _discord(services: Services, severity: Severity) -> Iterable[Finding]:
    name, tried = f"DISCORD_WEBHOOK_{severity.name}", "read the webhook, posted nothing"
    if not services.discord.takes(severity):
        yield Finding(name, State.OFF, "read the settings", "not set: that level is only logged")
        return
    problem = services.discord.problem(severity)
    if problem is None:
        yield Finding(name, State.OK, tried, "it is there")
    else:
        todo = "make a webhook in the channel's settings and set its URL"
        yield Finding(name, State.PROBLEM, tried, problem, todo)


def _heartbeat(services: Services) -> Iterable[Finding]:
    if services.settings.zlh_heartbeat_url is None:
        got = "not set: nobody outside hears when this machine is gone"
        yield Finding("ZLH_HEARTBEAT_URL", State.OFF, "read the settings", got)
    else:
        got = "set; not called, for a call would count as a heartbeat"
        yield Finding("ZLH_HEARTBEAT_URL", State.OK, "read the settings", got)
