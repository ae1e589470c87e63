"""Everything that the controller talks to, built from the settings when first needed."""

from collections.abc import Iterable
from datetime import datetime, timezone
from functools import cached_property
from types import TracebackType
from typing import TypeVar

import pandas as pd
import redis
import sqlalchemy as sa
from pydantic import SecretStr

from zlh_dagster.core.messages import Links
from zlh_dagster.core.model import Surface, rows_of
from zlh_dagster.core.redact import Redactor
from zlh_dagster.core.rules import Severity
from zlh_dagster.core.watch import with_jobs
from zlh_dagster.resources import database, operations
from zlh_dagster.resources.agent_calls import AgentCalls
from zlh_dagster.resources.bullmq import read_jobs
from zlh_dagster.resources.cloudflare import Cloudflare
from zlh_dagster.resources.dead_jobs import DeadJobs
from zlh_dagster.resources.discord import Discord
from zlh_dagster.resources.edge import EdgeSurface
from zlh_dagster.resources.figures import Figures
from zlh_dagster.resources.gate import Gate
from zlh_dagster.resources.http import Incomplete
from zlh_dagster.resources.incidents import Incidents
from zlh_dagster.resources.leader import Leadership, deployment_id
from zlh_dagster.resources.ledger import Ledger
from zlh_dagster.resources.messages import Messages
from zlh_dagster.resources.pauses import Pauses
from zlh_dagster.resources.private import keep_private
from zlh_dagster.resources.proxmox import Proxmox
from zlh_dagster.resources.pulse import Pulse
from zlh_dagster.resources.redis import connect
from zlh_dagster.resources.settings import Settings, load_settings
from zlh_dagster.resources.snapshots import SnapshotStore
from zlh_dagster.resources.technitium import Technitium
from zlh_dagster.resources.velocity import Velocity

_AnyCloudflare = TypeVar("_AnyCloudflare", bound=Cloudflare)

_OVER_REDIS = (
    "incidents",
    "messages",
    "gate",
    "dead_jobs",
    "figures",
    "leadership",
    "pulse",
)
"""What is built over the connection to Redis."""


class Services:
    """The outside systems of one deployment.

    Args:
        settings: Taken as they are, or read from the environment when first needed.
    """

    def __init__(self, settings: Settings | None = None) -> None:
        self._given = settings

    def close(self) -> None:
        """Closes whatever was opened; the services can be used again afterwards."""
        for client in self.__dict__.pop("surfaces", {}).values():
            client.close()
        proxmox = self.__dict__.pop("proxmox", None)
        if proxmox is not None:
            proxmox.close()
        if "engine" in self.__dict__:
            self.__dict__.pop("engine").dispose()
            self.__dict__.pop("ledger", None)
            self.__dict__.pop("gate", None)
        if "redis" in self.__dict__:
            self.__dict__.pop("redis").close()
            for name in _OVER_REDIS:
                self.__dict__.pop(name, None)

    def warm(self) -> None:
        """Builds what several threads are about to use, so that none of it is built twice."""
        for name in ("engine", "redis", "surfaces", "gate", "dead_jobs"):
            getattr(self, name)

    def __enter__(self) -> "Services":
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()

    @cached_property
    def settings(self) -> Settings:
        """The settings.

        Raises:
            SettingsError: If one is missing or malformed.
            NotPrivate: If ``$DAGSTER_HOME`` is in another user's hands.
        """
        if self._given is not None:
            return self._given
        settings = load_settings()
        keep_private(settings.home)
        return settings

    @cached_property
    def engine(self) -> sa.Engine:
        return database.connect(self.settings.database_url)

    @cached_property
    def ledger(self) -> Ledger:
        return Ledger(self.engine)

    @cached_property
    def redis(self) -> "redis.Redis":
        return connect(self.settings.redis_url)

    @cached_property
    def incidents(self) -> Incidents:
        return Incidents(self.redis)

    @cached_property
    def messages(self) -> Messages:
        return Messages(self.redis)

    @cached_property
    def gate(self) -> Gate:
        return Gate(
            self.redis,
            pauses=Pauses(self.redis, self.engine),
            failures_to_open=self.settings.zlh_surface_failures_to_open,
            open_seconds=self.settings.zlh_surface_open_seconds,
        )

    @cached_property
    def dead_jobs(self) -> DeadJobs:
        return DeadJobs(self.redis)

    @cached_property
    def figures(self) -> Figures:
        return Figures(self.redis)

    @cached_property
    def leadership(self) -> Leadership:
        return Leadership(
            self.redis,
            home=self.settings.home,
            deployment=self.settings.zlh_deployment,
            seconds=self.settings.zlh_lease_seconds,
            mode=self.settings.zlh_repair_mode,
        )

    @cached_property
    def deployment(self) -> str:
        """This deployment's identity."""
        return deployment_id(self.settings.home, self.settings.zlh_deployment)

    @cached_property
    def pulse(self) -> Pulse:
        return Pulse(self.redis, self.deployment)

    @cached_property
    def snapshots(self) -> SnapshotStore:
        return SnapshotStore(self.settings.snapshot_url)

    @cached_property
    def agent_rounds(self) -> SnapshotStore:
        """Answers of agents that are asked in shards, a folder for each round."""
        return SnapshotStore(f"{self.settings.snapshot_url}/agents")

    @cached_property
    def redactor(self) -> Redactor:
        return Redactor(self.settings.secrets())

    @cached_property
    def discord(self) -> Discord:
        webhooks = {
            severity: value.get_secret_value()
            for severity in Severity
            if (value := getattr(self.settings, f"discord_webhook_{severity.value}")) is not None
        }
        links = Links(web=self.settings.zlh_web_url, runbook=self.settings.zlh_runbook_url)
        return Discord(webhooks, redactor=self.redactor, links=links)

    @cached_property
    def surfaces(self) -> dict[Surface, EdgeSurface]:
        """Clients of the surfaces that are on; connections stay open between calls."""
        settings = self.settings
        clients: list[EdgeSurface] = []
        if settings.cloudflare_on:
            clients.append(self.cloudflare_as(Cloudflare))
        if settings.technitium_on:
            clients.append(
                Technitium(
                    base_url=settings.technitium_api_url or "",
                    token=_value(settings.technitium_api_token),
                    zone=settings.zlh_zone or "",
                )
            )
        if settings.velocity_on:
            clients.append(
                Velocity(base_url=settings.velocity_url or "", secret=_value(settings.zpack_secret))
            )
        return {client.surface: client for client in clients}

    def cloudflare_as(self, kind: type[_AnyCloudflare]) -> _AnyCloudflare:
        """A client of Cloudflare of its own, which its caller closes."""
        settings = self.settings
        return kind(
            base_url=settings.cloudflare_api_base,
            token=_value(settings.cloudflare_api_token),
            zone_id=settings.cloudflare_zone_id or "",
        )

    @cached_property
    def proxmox(self) -> Proxmox | None:
        """The client of Proxmox, or ``None`` while it is off."""
        settings = self.settings
        if settings.proxmox_url is None:
            return None
        return Proxmox(
            base_url=settings.proxmox_url,
            node=settings.proxmox_node or "",
            token_id=settings.proxmox_token_id or "",
            token_secret=_value(settings.proxmox_token_secret),
            ca_file=settings.proxmox_ca_file,
        )

    @cached_property
    def agent(self) -> AgentCalls:
        return AgentCalls(port=self.settings.zlh_agent_port, networks=self.settings.agent_networks)

    def read_operations(self) -> pd.DataFrame:
        """All open operations with the state of their queue jobs, and since when those are dead.

        Raises:
            DatabaseError: If the database cannot be read.
            EdgeError: If the queues are not there.
            RedisUnavailable: If Redis does not answer.
        """
        return self.dead_jobs.look(self._operations(), now=datetime.now(timezone.utc))

    def count_operations(self) -> pd.DataFrame:
        """The same, counted as one tick's read of dead jobs; raises the same."""
        return self.dead_jobs.count(self._operations(), now=datetime.now(timezone.utc))

    def _operations(self) -> pd.DataFrame:
        frame = operations.read_open(self.engine)
        placed = frame[frame["queue"].notna()]
        jobs = [(row["queue"], row["jobId"]) for row in rows_of(placed) if row["jobId"] is not None]
        unnamed = placed.loc[placed["jobId"].isna(), "queue"].tolist()
        prefix = self.settings.zlh_bullmq_prefix
        try:
            read = read_jobs(self.redis, prefix=prefix, jobs=jobs, queues=unnamed)
        except Incomplete as error:
            if self.settings.zlh_redis_url is None:
                raise Incomplete(_OWN_REDIS) from error
            raise
        return with_jobs(frame, read.states, queued=read.queued, unclear=read.unclear)

    def read_payloads(self, vmids: Iterable[int] | None = None) -> pd.DataFrame:
        """The platform's rows, now: those of some servers, or all.

        Raises:
            DatabaseError: If the database cannot be read.
        """
        return database.read_payloads(self.engine, vmids)


_OWN_REDIS = (
    "ZLH_REDIS_URL is not set, and the embedded Redis knows nothing of the platform's queues: the"
    " state of the open operations is not known"
)


def _value(secret: SecretStr | None) -> str:
    return "" if secret is None else secret.get_secret_value()
