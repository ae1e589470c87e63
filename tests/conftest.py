"""What tests of the whole program share: a real Redis, a pretend edge, a platform database."""

import fcntl
import shutil
import subprocess
import tempfile
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path

import dagster as dg
import pytest
import redis
import sqlalchemy as sa
from click.testing import Result
from rich.console import Console
from typer.testing import CliRunner

from tests.harness import Loop
from zlh_dagster.cli import main
from zlh_dagster.cli.home import claim
from zlh_dagster.resources import database, http, publisher
from zlh_dagster.resources.redis import connect, server_program
from zlh_dagster.resources.services import Services
from zlh_dagster.resources.settings import Settings, load_settings
from zlh_dagster.sandbox.fleet import create_platform_tables, write_fleet
from zlh_dagster.sandbox.publish import publish_database
from zlh_dagster.sandbox.server import Sandbox
from zlh_dagster.schema.upgrade import upgrade
from zlh_dagster.sensors import drift

SERVERS = 8
_HERE = Path(__file__).parent
_DEPLOYMENTS = (_HERE / "stack", _HERE / "faults")
_EARLY = (*_DEPLOYMENTS, _HERE / "model")
_REDIS_SECONDS = 10


def pytest_itemcollected(item: pytest.Item) -> None:
    """Tests that start whole deployments run one after the other: each is many processes.

    The demo goes beside them: it waits for two full minutes, and little else.
    """
    if _below(item, _DEPLOYMENTS):
        group = "demo" if item.path.stem == "test_demo" else "deployments"
        item.add_marker(pytest.mark.xdist_group(group))


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Those that take longest come first: deployments, which mostly wait, and the model."""
    items.sort(key=lambda item: not _below(item, _EARLY))


def _below(item: pytest.Item, folders: tuple[Path, ...]) -> bool:
    return any(item.path.is_relative_to(folder) for folder in folders)


@pytest.fixture(autouse=True)
def no_settings_of_the_developer(monkeypatch: pytest.MonkeyPatch) -> None:
    """No test reads a setting from the environment or the ``.env`` of whoever runs it."""
    for name in Settings.model_fields:
        monkeypatch.delenv(name.upper(), raising=False)
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setitem(Settings.model_config, "env_file", None)
    monkeypatch.setattr(load_settings, "__defaults__", (None,))


@pytest.fixture(scope="session")
def redis_server() -> Iterator[str]:
    """URL of a Redis of our own, on a Unix socket."""
    # A socket's path must be short, which pytest's own directories are not.
    folder = Path(tempfile.mkdtemp(prefix="zlh-redis-"))
    socket = folder / "redis.sock"
    command = [server_program(), "--port", "0", "--unixsocket", str(socket), "--dir", str(folder)]
    process = subprocess.Popen(
        [*command, "--save", "", "--appendonly", "no", "--daemonize", "no"],
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    url = f"unix://{socket}"
    try:
        with connect(url) as client:
            give_up = time.monotonic() + _REDIS_SECONDS
            while True:
                try:
                    client.ping()
                    break
                except redis.RedisError:
                    if process.poll() is not None or time.monotonic() > give_up:
                        raise
                    time.sleep(0.02)
        yield url
    finally:
        process.terminate()
        process.wait(_REDIS_SECONDS)
        shutil.rmtree(folder, ignore_errors=True)


@pytest.fixture
def redis_url(redis_server: str) -> str:
    """URL of an empty Redis."""
    with connect(redis_server) as client:
        client.flushall()
    return redis_server


@pytest.fixture(scope="session")
def running_sandbox() -> Iterator[Sandbox]:
    with Sandbox() as sandbox:
        yield sandbox


@pytest.fixture
def sandbox(running_sandbox: Sandbox) -> Sandbox:
    """A pretend edge on which nothing was published and nothing happened yet."""
    running_sandbox.reset()
    return running_sandbox


@dataclass
class Platform:
    """A platform database of eight servers, published in the sandbox as its rows ask."""

    url: str
    engine: sa.Engine
    sandbox: Sandbox
    redis_url: str
    home: Path
    opened: list[Services] = field(default_factory=list)

    def environment(self, **overrides: str | None) -> dict[str, str]:
        """Settings of a live controller; an override of ``None`` leaves a setting out."""
        given = {
            **self.sandbox.environment(),
            "ZLH_DATABASE_URL": self.url,
            "ZLH_REDIS_URL": self.redis_url,
            "DAGSTER_HOME": str(self.home),
            "ZLH_REPAIR_MODE": "live",
            **overrides,
        }
        return {name: value for name, value in given.items() if value is not None}

    def settings(self, **overrides: str | None) -> Settings:
        with pytest.MonkeyPatch.context() as patch:
            for name, value in self.environment(**overrides).items():
                patch.setenv(name, value)
            return load_settings(env_file=None)

    def services(self, **overrides: str | None) -> Services:
        """A controller's services, closed when the test ends."""
        services = Services(self.settings(**overrides))
        self.opened.append(services)
        return services


@pytest.fixture(scope="session")
def fleet_database(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A SQLite file with all tables and a fleet, to be copied."""
    path = tmp_path_factory.mktemp("fleet") / "platform.db"
    engine = database.connect(f"sqlite:///{path}", create=True)
    create_platform_tables(engine)
    upgrade(engine)
    write_fleet(engine, servers=SERVERS, loopback=True)
    engine.dispose()
    return path


@pytest.fixture
def platform(
    fleet_database: Path, tmp_path: Path, sandbox: Sandbox, redis_url: str
) -> Iterator[Platform]:
    path = tmp_path / "platform.db"
    shutil.copyfile(fleet_database, path)
    url = f"sqlite:///{path}"
    engine = database.connect(url)
    publish_database(sandbox.edge, engine)
    made = Platform(url, engine, sandbox, redis_url, tmp_path / "home")
    yield made
    for services in made.opened:
        services.close()
    engine.dispose()


@pytest.fixture
def zlh(platform: Platform, monkeypatch: pytest.MonkeyPatch) -> Callable[..., Result]:
    """The command, in this process, on the platform's environment."""
    for name, value in platform.environment().items():
        monkeypatch.setenv(name, value)
    monkeypatch.setattr(main, "_out", Console(highlight=False, soft_wrap=True, width=200))

    def run(*arguments: str) -> Result:
        result = CliRunner().invoke(main.app, list(arguments))
        if result.exception is not None and not isinstance(result.exception, SystemExit):
            raise result.exception
        return result

    return run


@pytest.fixture
def daemon(platform: Platform) -> Iterator[None]:
    """Holds what a daemon holds for as long as it lives."""
    with claim(platform.home, fcntl.LOCK_EX, "daemon"):
        yield


@pytest.fixture
def instance(monkeypatch: pytest.MonkeyPatch) -> Iterator[dg.DagsterInstance]:
    """Dagster's storage in memory; as many attempts as ever, with less time between them.

    The sensor waits for no tick: none comes by itself.
    """
    monkeypatch.setattr(http, "_BACKOFF_SECONDS", 0.01)
    monkeypatch.setattr(publisher, "VERIFY_PAUSES", (0.0, 0.01, 0.05))
    monkeypatch.setattr(drift, "WAIT_SECONDS", 0.0)
    with dg.DagsterInstance.ephemeral() as instance:
        yield instance


@pytest.fixture
def through_dagster(monkeypatch: pytest.MonkeyPatch) -> None:
    """Every minute's tick is a run of its own."""
    monkeypatch.setattr(Loop, "through_dagster", True)


@pytest.fixture
def loop(platform: Platform, instance: dg.DagsterInstance) -> Loop:
    """A controller in live mode over the sandbox, its edge as the payloads ask."""
    return Loop(platform.services(), instance)
