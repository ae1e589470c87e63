"""All settings in one typed place; each is an environment variable or a line of ``.env``.

Names, defaults and meanings are a contract with whoever runs the controller. Nothing else in the
project reads the environment.
"""

import os
import re
from hashlib import sha256
from ipaddress import IPv4Address, IPv4Network, IPv6Network, ip_network
from pathlib import Path
from tempfile import gettempdir
from typing import Annotated, Any, Literal
from urllib.parse import urlsplit

import sqlalchemy as sa
from fsspec import available_protocols, get_filesystem_class
from pydantic import (
    Field,
    ModelWrapValidatorHandler,
    SecretStr,
    ValidationError,
    field_validator,
    model_validator,
)
from pydantic_settings import BaseSettings, DotEnvSettingsSource, NoDecode, SettingsConfigDict
from sqlalchemy.exc import ArgumentError

from zlh_dagster.core.desired import EdgeConfig
from zlh_dagster.core.guards import NAMED_BY_OPERATOR
from zlh_dagster.core.model import Action
from zlh_dagster.core.policy import PolicyConfig
from zlh_dagster.resources.private import private_directory
from zlh_dagster.resources.settings_problems import absent, misspelt, told, unknown
from zlh_dagster.resources.urls import check_redis_url, check_url, secrets_in, with_driver

# A Unix socket's path has 108 bytes, its end included (unix(7)).
_SOCKET_PATH_LIMIT = 100
_ZONE = re.compile(
    r"(?:[a-z0-9](?:[a-z0-9-]{0,61}[a-z0-9])?\.)+[a-z0-9](?:[a-z0-9-]{0,61}[a-z0-9])?"
)
_DEPLOYMENT = re.compile(r"[a-z0-9](?:[a-z0-9-]{0,38}[a-z0-9])?")
_HEADER_VALUE = re.compile(r"[!-~]+")
_PROXMOX_TOKEN_ID = re.compile(r"[!-~]+@[!-~]+![!-~]+")
_PATH_PART = re.compile(r"[A-Za-z0-9](?:[A-Za-z0-9._-]*[A-Za-z0-9])?")
_DATABASES = frozenset({"sqlite", "postgresql", "mysql", "mariadb"})


class SettingsError(ValueError):
    """A setting is missing or malformed; the message names it and says what to do."""


class Settings(BaseSettings):
    """The controller's settings, named as in the environment, in lower case."""

    model_config = SettingsConfigDict(
        env_file=".env", env_ignore_empty=True, extra="ignore", hide_input_in_errors=True
    )

    zlh_repair_mode: Literal["dry-run", "live"] = "dry-run"
    zlh_level2_actions: Annotated[tuple[str, ...], NoDecode] = ()

    zlh_database_url: SecretStr | None = None
    zlh_redis_url: SecretStr | None = None
    zlh_bullmq_prefix: str = "bull"
    zlh_dagster_database_url: SecretStr | None = None
    zlh_deployment: str | None = None
    zlh_snapshot_url: SecretStr | None = None

    zlh_zone: str | None = None
    cloudflare_api_token: SecretStr | None = None
    cloudflare_zone_id: str | None = None
    cloudflare_api_base: str = "https://api.cloudflare.com/client/v4"
    cloudflare_edge_ip: str | None = None
    technitium_api_url: str | None = None
    technitium_api_token: SecretStr | None = None
    velocity_edge_ip: str | None = None
    traefik_edge_ip: str | None = None
    velocity_url: str | None = None
    zpack_secret: SecretStr | None = None
    proxmox_url: str | None = None
    proxmox_node: str | None = None
    proxmox_token_id: str | None = None
    proxmox_token_secret: SecretStr | None = None
    proxmox_ca_file: Path | None = None

    dagster_home: Path = Path(".zlh")
    zlh_web_host: str = "127.0.0.1"
    zlh_web_port: int = Field(default=3000, ge=1, le=65535)
    zlh_web_url: str | None = None
    zlh_runbook_url: str | None = None
    zlh_run_launcher: Literal["celery", "default"] = "celery"
    zlh_agent_port: int = Field(default=18888, ge=1, le=65535)
    zlh_agent_shard_size: int = Field(default=10_000, ge=1)
    zlh_agent_networks: Annotated[tuple[str, ...], NoDecode] = (
        "10.0.0.0/8",
        "172.16.0.0/12",
        "192.168.0.0/16",
        "127.0.0.0/8",
        "fc00::/7",
        "::1/128",
    )

    discord_webhook_critical: SecretStr | None = None
    discord_webhook_warning: SecretStr | None = None
    discord_webhook_repair: SecretStr | None = None
    discord_webhook_info: SecretStr | None = None
    zlh_heartbeat_url: SecretStr | None = None

    zlh_max_repairs_per_server_hour: int = Field(default=3, ge=1)
    zlh_mass_drift_fraction: float = Field(default=0.2, ge=0, le=1)
    zlh_mass_drift_min: int = Field(default=5, ge=0)
    zlh_surface_failures_to_open: int = Field(default=5, ge=1)
    zlh_surface_open_seconds: int = Field(default=900, ge=1)
    zlh_lease_seconds: int = Field(default=60, ge=30)
    zlh_retention_hours: int = Field(default=24, ge=1)

    @field_validator("zlh_level2_actions", "zlh_agent_networks", mode="before")
    @classmethod
    def _split(cls, value: Any) -> Any:
        if isinstance(value, str):
            return tuple(part.strip() for part in value.split(",") if part.strip())
        return value

    @field_validator("proxmox_ca_file")
    @classmethod
    def _readable(cls, value: Path | None) -> Path | None:
        if value is not None and not value.expanduser().is_file():
            raise ValueError(f"no file at {value}")
        return None if value is None else value.expanduser()

    @field_validator("zlh_agent_networks")
    @classmethod
    def _networks(cls, value: tuple[str, ...]) -> tuple[str, ...]:
        for network in value:
            ip_network(network)
        return value

    @field_validator("zlh_level2_actions")
    @classmethod
    def _level2(cls, value: tuple[str, ...]) -> tuple[str, ...]:
        allowed = [a.value for a in Action if a.level == NAMED_BY_OPERATOR and a.built]
        for name in value:
            if name not in allowed:
                raise ValueError(
                    f"{name!r} is no level-2 action that can be switched on; known: "
                    + ", ".join(allowed)
                )
        return value

    @field_validator("zlh_zone")
    @classmethod
    def _zone(cls, value: str | None) -> str | None:
        if value is None:
            return None
        zone = value.strip().lower().removesuffix(".")
        if not value.isascii() or not _ZONE.fullmatch(zone):
            raise ValueError("must be a zone name such as example.gg")
        return zone

    @field_validator("zlh_database_url")
    @classmethod
    def _database(cls, value: SecretStr | None) -> SecretStr | None:
        if value is None:
            return None
        url = value.get_secret_value().strip()
        try:
            backend = sa.make_url(with_driver(url)).get_backend_name()
            urlsplit(url)
        except (ArgumentError, ValueError):
            raise ValueError("is not a database URL") from None
        if backend not in _DATABASES:
            raise ValueError("must begin with sqlite://, postgresql:// or mariadb://")
        return SecretStr(url)

    @field_validator("zlh_redis_url")
    @classmethod
    def _redis(cls, value: SecretStr | None) -> SecretStr | None:
        return None if value is None else SecretStr(check_redis_url(value.get_secret_value()))

    @field_validator("zlh_dagster_database_url")
    @classmethod
    def _dagster_database(cls, value: SecretStr | None) -> SecretStr | None:
        if value is None:
            return None
        url = with_driver(value.get_secret_value().strip())
        try:
            backend = sa.make_url(url).get_backend_name()
        except ArgumentError:
            backend = ""
        if backend != "postgresql":
            raise ValueError("must be a URL that begins with postgresql://; unset it for SQLite")
        return SecretStr(url)

    @field_validator("zlh_deployment")
    @classmethod
    def _deployment(cls, value: str | None) -> str | None:
        if value is not None and not _DEPLOYMENT.fullmatch(value):
            raise ValueError("must be up to 40 of a-z, 0-9 and -, as in zlh-main")
        return value

    @field_validator("zlh_snapshot_url")
    @classmethod
    def _snapshot_url(cls, value: SecretStr | None) -> SecretStr | None:
        if value is None:
            return None
        url = value.get_secret_value().strip().rstrip("/")
        protocol = url.partition("://")[0] if "://" in url else "file"
        if protocol not in available_protocols():
            raise ValueError(f"{protocol}:// is no file system that fsspec knows")
        try:
            get_filesystem_class(protocol)
        except ImportError as error:
            raise ValueError(f"{protocol}:// needs a package that is not here: {error}") from error
        return SecretStr(url)

    @field_validator("cloudflare_api_token", "technitium_api_token", "proxmox_token_secret")
    @classmethod
    def _token(cls, value: SecretStr | None) -> SecretStr | None:
        if value is None:
            return None
        token = value.get_secret_value().strip()
        if not _HEADER_VALUE.fullmatch(token):
            raise ValueError("must be printable ASCII without spaces, for it travels in a header")
        return SecretStr(token)

    @field_validator("proxmox_token_id")
    @classmethod
    def _token_id(cls, value: str | None) -> str | None:
        if value is None:
            return None
        token_id = value.strip()
        if not _PROXMOX_TOKEN_ID.fullmatch(token_id):
            raise ValueError("must be user@realm!name in printable ASCII without spaces")
        return token_id

    @field_validator("cloudflare_zone_id", "proxmox_node")
    @classmethod
    def _path_part(cls, value: str | None) -> str | None:
        if value is None:
            return None
        part = value.strip()
        if not _PATH_PART.fullmatch(part):
            raise ValueError("must be letters, digits, '.', '_' and '-', for it is part of a URL")
        return part

    @field_validator("cloudflare_edge_ip", "velocity_edge_ip", "traefik_edge_ip")
    @classmethod
    def _ipv4(cls, value: str | None) -> str | None:
        return None if value is None else str(IPv4Address(value.strip()))

    @field_validator("cloudflare_api_base", "proxmox_url")
    @classmethod
    def _https_or_loopback(cls, value: str | None) -> str | None:
        return None if value is None else check_url(value, http_anywhere=False)

    @field_validator("technitium_api_url", "velocity_url", "zlh_web_url", "zlh_runbook_url")
    @classmethod
    def _http_or_https(cls, value: str | None) -> str | None:
        return None if value is None else check_url(value, http_anywhere=True)

    @field_validator(
        "discord_webhook_critical",
        "discord_webhook_warning",
        "discord_webhook_repair",
        "discord_webhook_info",
        "zlh_heartbeat_url",
    )
    @classmethod
    def _secret_url(cls, value: SecretStr | None) -> SecretStr | None:
        if value is None:
            return None
        url = value.get_secret_value().strip()
        check_url(url, http_anywhere=False)
        return SecretStr(url)

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
