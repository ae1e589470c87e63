"""Everything that the controller talks to, built from the settings when first needed."""

from functools import cached_property
from types import TracebackType

import pandas as pd
import redis
import sqlalchemy as sa
from pydantic import SecretStr

from zlh_dagster.core.model import Surface
from zlh_dagster.core.redact import Redactor
from zlh_dagster.core.repair import Severity
from zlh_dagster.resources import database
from zlh_dagster.resources.cloudflare import Cloudflare
from zlh_dagster.resources.discord import Discord
from zlh_dagster.resources.edge import EdgeSurface
from zlh_dagster.resources.incidents import Incidents
from zlh_dagster.resources.ledger import Ledger
from zlh_dagster.resources.redis import connect
from zlh_dagster.resources.settings import Settings, load_settings
from zlh_dagster.resources.snapshots import SnapshotStore
from zlh_dagster.resources.technitium import Technitium
from zlh_dagster.resources.velocity import Velocity


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
        if "engine" in self.__dict__:
            self.__dict__.pop("engine").dispose()
            self.__dict__.pop("ledger", None)
        if "redis" in self.__dict__:
            self.__dict__.pop("redis").close()
            self.__dict__.pop("incidents", None)

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
        """
        return self._given or load_settings()

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
    def snapshots(self) -> SnapshotStore:
        return SnapshotStore(str(self.settings.home / "snapshots"))

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
        return Discord(webhooks, redactor=self.redactor)

    @cached_property
    def surfaces(self) -> dict[Surface, EdgeSurface]:
        """Clients of the surfaces that are on; connections stay open between calls."""
        settings = self.settings
        clients: list[EdgeSurface] = []
        if settings.cloudflare_on:
            clients.append(
                Cloudflare(
                    base_url=settings.cloudflare_api_base,
                    token=_value(settings.cloudflare_api_token),
                    zone_id=settings.cloudflare_zone_id or "",
                )
            )
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

    def read_payloads(self) -> pd.DataFrame:
        """The platform's rows, now.

        Raises:
            DatabaseError: If the database cannot be read.
        """
        return database.read_payloads(self.engine)


def _value(secret: SecretStr | None) -> str:
    return "" if secret is None else secret.get_secret_value()
