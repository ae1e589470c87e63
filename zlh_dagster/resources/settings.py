"""All settings in one typed place; each is an environment variable or a line of ``.env``.

Names, defaults and meanings are a contract with whoever runs the controller. Nothing else in the
project reads the environment.
"""

import os
from hashlib import sha256
from ipaddress import IPv4Network, IPv6Network, ip_network
from pathlib import Path
from tempfile import gettempdir
from typing import Any, Literal

import sqlalchemy as sa
from pydantic import (
    Field,
    ModelWrapValidatorHandler,
    SecretStr,
    ValidationError,
    model_validator,
)
from pydantic_settings import BaseSettings, DotEnvSettingsSource, SettingsConfigDict

from zlh_dagster.core.desired import EdgeConfig
from zlh_dagster.core.policy import PolicyConfig
from zlh_dagster.resources.private import private_directory
from zlh_dagster.resources.settings_problems import absent, misspelt, told, unknown
from zlh_dagster.resources.settings_values import (
    DagsterDatabaseUrl,
    Deployment,
    Ipv4,
    Level2Actions,
    Networks,
    PathPart,
    PlatformDatabaseUrl,
    ProxmoxTokenId,
    ReadableFile,
    RedisUrl,
    SafeUrl,
    SecretUrl,
    SnapshotUrl,
    Token,
    Url,
    Zone,
)
from zlh_dagster.resources.urls import secrets_in, with_driver

# A Unix socket's path has 108 bytes, its end included (unix(7)).
_SOCKET_PATH_LIMIT = 100


class SettingsError(ValueError):
    """A setting is missing or malformed; the message names it and says what to do."""


class Settings(BaseSettings):
    """The controller's settings, named as in the environment, in lower case."""

    model_config = SettingsConfigDict(
        env_file=".env", env_ignore_empty=True, extra="ignore", hide_input_in_errors=True
    )

    zlh_repair_mode: Literal["dry-run", "live"] = "dry-run"
    zlh_level2_actions: Level2Actions = ()

    zlh_database_url: PlatformDatabaseUrl | None = None
    zlh_redis_url: RedisUrl | None = None
    zlh_bullmq_prefix: str = "bull"
    zlh_dagster_database_url: DagsterDatabaseUrl | None = None
    zlh_deployment: Deployment | None = None
    zlh_snapshot_url: SnapshotUrl | None = None

    zlh_zone: Zone | None = None
    cloudflare_api_token: Token | None = None
    cloudflare_zone_id: PathPart | None = None
    cloudflare_api_base: SafeUrl = "https://api.cloudflare.com/client/v4"
    cloudflare_edge_ip: Ipv4 | None = None
    technitium_api_url: Url | None = None
    technitium_api_token: Token | None = None
    velocity_edge_ip: Ipv4 | None = None
    traefik_edge_ip: Ipv4 | None = None
    velocity_url: Url | None = None
    zpack_secret: SecretStr | None = None
    proxmox_url: SafeUrl | None = None
    proxmox_node: PathPart | None = None
    proxmox_token_id: ProxmoxTokenId | None = None
    proxmox_token_secret: Token | None = None
    proxmox_ca_file: ReadableFile | None = None

    dagster_home: Path = Path(".zlh")
    zlh_web_host: str = "127.0.0.1"
    zlh_web_port: int = Field(default=3000, ge=1, le=65535)
    zlh_web_url: Url | None = None
    zlh_runbook_url: Url | None = None
    zlh_run_launcher: Literal["celery", "default"] = "celery"
    zlh_agent_port: int = Field(default=18888, ge=1, le=65535)
    zlh_agent_shard_size: int = Field(default=10_000, ge=1)
    zlh_agent_networks: Networks = (
        "10.0.0.0/8",
        "172.16.0.0/12",
        "192.168.0.0/16",
        "127.0.0.0/8",
        "fc00::/7",
        "::1/128",
    )

    discord_webhook_critical: SecretUrl | None = None
    discord_webhook_warning: SecretUrl | None = None
    discord_webhook_repair: SecretUrl | None = None
    discord_webhook_info: SecretUrl | None = None
    zlh_heartbeat_url: SecretUrl | None = None

    zlh_max_repairs_per_server_hour: int = Field(default=3, ge=1)
    zlh_mass_drift_fraction: float = Field(default=0.2, ge=0, le=1)
    zlh_mass_drift_min: int = Field(default=5, ge=0)
    zlh_surface_failures_to_open: int = Field(default=5, ge=1)
    zlh_surface_open_seconds: int = Field(default=900, ge=1)
    zlh_lease_seconds: int = Field(default=60, ge=30)
    zlh_retention_hours: int = Field(default=24, ge=1)

    @model_validator(mode="wrap")
    @classmethod
    def _all_at_once(cls, data: Any, handler: ModelWrapValidatorHandler["Settings"]) -> "Settings":
        """What is malformed and what is absent are told together: both are corrected in one go."""
        problems, made = [], None
        try:
            made = handler(data)
        except ValidationError as error:
            problems = [told(detail) for detail in error.errors(include_input=False)]
        problems += absent({name for name, value in data.items() if value is not None})
        if made is None or problems:
            raise ValueError("; ".join(problems))
        return made

    @property
    def live(self) -> bool:
        return self.zlh_repair_mode == "live"

    @property
    def cloudflare_on(self) -> bool:
        return self.cloudflare_api_token is not None

    @property
    def technitium_on(self) -> bool:
        return self.technitium_api_url is not None

    @property
    def velocity_on(self) -> bool:
        return self.velocity_url is not None

    @property
    def proxmox_on(self) -> bool:
        return self.proxmox_url is not None

    @property
    def agent_networks(self) -> tuple[IPv4Network | IPv6Network, ...]:
        """Networks in which agents may be called."""
        return tuple(ip_network(network) for network in self.zlh_agent_networks)

    @property
    def home(self) -> Path:
        """State directory, absolute."""
        return self.dagster_home.expanduser().absolute()

    @property
    def database_url(self) -> str:
        """SQLAlchemy URL with the driver that this project installs."""
        if self.zlh_database_url is None:
            return f"sqlite:///{self.home / 'platform.db'}"
        return with_driver(self.zlh_database_url.get_secret_value())

    @property
    def dagster_database_url(self) -> str | None:
        """SQLAlchemy URL of Dagster's own storage, or ``None`` while that is SQLite."""
        url = self.zlh_dagster_database_url
        return None if url is None else url.get_secret_value()

    @property
    def snapshot_url(self) -> str:
        """Where snapshots are, as fsspec takes it: a named deployment has a folder of its own.

        What no run of one's own has made is deleted after a day, so that two must not share one.
        """
        if self.zlh_snapshot_url is None:
            return str(self.home / "snapshots")
        url = self.zlh_snapshot_url.get_secret_value()
        return url if self.zlh_deployment is None else f"{url}/{self.zlh_deployment}"

    def socket(self, name: str) -> Path:
        """Path of a Unix socket of this deployment, the same for all of its processes.

        Raises:
            NotPrivate: If another user could have put a socket of their own there.
        """
        path = self.home / f"{name}.sock"
        if len(os.fsencode(path)) <= _SOCKET_PATH_LIMIT:
            return path
        short = sha256(os.fsencode(self.home)).hexdigest()[:16]
        folder = Path(gettempdir()) / f"zlh-{os.getuid()}-{short}"
        return private_directory(folder) / f"{name}.sock"

    @property
    def redis_url(self) -> str:
        """URL of Redis: the configured one, else the embedded server's socket."""
        if self.zlh_redis_url is not None:
            return self.zlh_redis_url.get_secret_value()
        return f"unix://{self.socket('redis')}"

    @property
    def edge(self) -> EdgeConfig:
        """Where servers are published, as the core wants it."""
        return EdgeConfig(
            zone=self.zlh_zone,
            cloudflare_ip=self.cloudflare_edge_ip if self.cloudflare_on else None,
            velocity_ip=self.velocity_edge_ip if self.technitium_on else None,
            traefik_ip=self.traefik_edge_ip if self.technitium_on else None,
            velocity=self.velocity_on,
        )

    @property
    def policy(self) -> PolicyConfig:
        return PolicyConfig(
            mass_drift_fraction=self.zlh_mass_drift_fraction,
            mass_drift_min=self.zlh_mass_drift_min,
        )

    def environment(self) -> dict[str, str]:
        """Every setting as an environment variable, paths absolute.

        For child processes: Dagster's own commands read the ``.env`` of their working directory
        and let it overrule the environment, so they get all of this and a directory of their own.
        """
        given = {name: getattr(self, name) for name in type(self).model_fields}
        given["dagster_home"] = self.home
        if self.zlh_database_url is not None:
            url = sa.make_url(self.zlh_database_url.get_secret_value())
            if url.get_backend_name() == "sqlite" and url.database not in (None, "", ":memory:"):
                url = url.set(database=str(Path(url.database or "").absolute()))
            given["zlh_database_url"] = url.render_as_string(hide_password=False)
        if self.proxmox_ca_file is not None:
            given["proxmox_ca_file"] = self.proxmox_ca_file.absolute()
        return {name.upper(): _text(value) for name, value in given.items() if value is not None}

    def secrets(self) -> tuple[str, ...]:
        """Every secret value, for redaction; the secret parts of a URL on their own too."""
        values = []
        for name in type(self).model_fields:
            value = getattr(self, name)
            if isinstance(value, SecretStr):
                values.append(value.get_secret_value())
                if name.endswith("_url") or name.startswith("discord_webhook_"):
                    values += secrets_in(values[-1])
        if self.zpack_secret is not None:
            # What travels is its digest, which opens the bridge just as well.
            values.append(sha256(self.zpack_secret.get_secret_value().encode()).hexdigest())
        return tuple(value for value in values if value)


def load_settings(env_file: Path | str | None = ".env") -> Settings:
    """Reads the environment and ``.env``.

    Raises:
        SettingsError: One line that names each setting that is missing or malformed.
    """
    try:
        return Settings(_env_file=env_file)  # type: ignore[call-arg]
    except ValidationError as error:
        raise SettingsError("; ".join(map(told, error.errors(include_input=False)))) from None


def slips() -> dict[str, str | None]:
    """Names that are none of settings, and of those that are nearly one, which.

    A setting that is misspelt is none, and nothing else would say so. The environment has names of
    other programs too; whatever stands in ``.env`` and begins like a setting is meant as one.
    """
    listed = DotEnvSettingsSource(Settings).env_vars
    known = [name.upper() for name in Settings.model_fields]
    return {
        **dict.fromkeys(unknown(listed, known)),
        **misspelt((*os.environ, *listed), known),
    }


def _text(value: Any) -> str:
    """A setting as the environment spells it."""
    if isinstance(value, SecretStr):
        return value.get_secret_value()
    return ",".join(value) if isinstance(value, tuple) else str(value)
