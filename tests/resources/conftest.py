from collections.abc import Iterator

import pytest
import sqlalchemy as sa

from tests.resources.clients import make_client
from tests.resources.databases import empty_database, mariadb, postgresql
from zlh_dagster.resources import database
from zlh_dagster.sandbox.fleet import create_platform_tables
from zlh_dagster.schema.upgrade import upgrade


@pytest.fixture
def client(platform):
    """Makes clients of the published edge; they are closed when the test ends."""
    made = []

    def make(surface, **options):
        made.append(make_client(platform.sandbox, surface, **options))
        return made[-1]

    yield make
    for one in made:
        one.close()


@pytest.fixture
def no_pauses(monkeypatch):
    """Retries follow at once, and nothing is waited for long."""
    monkeypatch.setattr("zlh_dagster.resources.http._BACKOFF_SECONDS", 0.001)
    for module in ("cloudflare", "technitium", "velocity"):
        monkeypatch.setattr(f"zlh_dagster.resources.{module}.READ_TIMEOUT", 0.25)
        monkeypatch.setattr(f"zlh_dagster.resources.{module}.WRITE_TIMEOUT", 0.25)


@pytest.fixture(scope="session")
def postgresql_server() -> Iterator[str]:
    with postgresql() as url:
        yield url


@pytest.fixture(scope="session")
def mariadb_server() -> Iterator[str]:
    with mariadb() as url:
        yield url


@pytest.fixture(params=["sqlite", "postgresql", "mariadb"])
def database_url(request, tmp_path) -> Iterator[str]:
    """URL of an empty database, of each kind in turn."""
    if request.param == "sqlite":
        yield f"sqlite:///{tmp_path / 'empty.db'}"
        return
    with empty_database(request.getfixturevalue(f"{request.param}_server")) as url:
        yield url


@pytest.fixture
def empty_engine(database_url) -> Iterator[sa.Engine]:
    engine = database.connect(database_url, create=True)
    yield engine
    engine.dispose()


@pytest.fixture
def engine(empty_engine) -> sa.Engine:
    """A database with the platform's tables and this project's own."""
    create_platform_tables(empty_engine)
    upgrade(empty_engine)
    return empty_engine
