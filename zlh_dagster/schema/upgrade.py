"""Creating and migrating the tables that this project owns."""

from pathlib import Path

import sqlalchemy as sa
from alembic import command
from alembic.config import Config
from alembic.migration import MigrationContext
from alembic.script import ScriptDirectory

VERSION_TABLE = "zlh_alembic_version"


def upgrade(engine: sa.Engine) -> str:
    """Brings the tables to the newest revision; nothing happens when they are there.

    Args:
        engine: The platform database. Tables of the platform's API are not touched.

    Returns:
        The revision that the database is at now.
    """
    config = _config()
    with engine.begin() as connection:
        config.attributes["connection"] = connection
        command.upgrade(config, "head")
    return current(engine) or "none"


def current(engine: sa.Engine) -> str | None:
    """The revision that the database is at, or ``None`` when nothing was created yet."""
    with engine.connect() as connection:
        context = MigrationContext.configure(connection, opts={"version_table": VERSION_TABLE})
        return context.get_current_revision()


def head() -> str:
    """The newest revision that this program knows."""
    return ScriptDirectory.from_config(_config()).get_current_head() or "none"


def _config() -> Config:
    config = Config()
    config.set_main_option("script_location", str(Path(__file__).parent / "migrations"))
    return config
