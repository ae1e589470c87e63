"""Creating and migrating the tables that this project owns."""

from pathlib import Path

import sqlalchemy as sa
from alembic import command
from alembic.config import Config
from alembic.migration import MigrationContext
from alembic.script import ScriptDirectory

from zlh_dagster.schema.tables import own_metadata

VERSION_TABLE = "zlh_alembic_version"


class NotUpgraded(Exception):
    """The tables cannot be migrated as they are; the message says what to do."""


def upgrade(engine: sa.Engine) -> str:
    """Brings the tables to the newest revision; nothing happens when they are there.

    Args:
        engine: The platform database. Tables of the platform's API are not touched.

    Returns:
        The revision that the database is at now.

    Raises:
        NotUpgraded: If tables are there and their revision is not known.
    """
    if current(engine) is None:
        _refuse_tables(engine)
    config = _config()
    with engine.begin() as connection:
        config.attributes["connection"] = connection
        command.upgrade(config, "head")
    return current(engine) or "none"


def _refuse_tables(engine: sa.Engine) -> None:
    """Without a revision they would be made anew, over those that are there."""
    there = sorted(set(own_metadata.tables) & set(sa.inspect(engine).get_table_names()))
    if there:
        raise NotUpgraded(
            f"{', '.join(there)}: they are there, but not their revision in {VERSION_TABLE}: put"
            " that table back from the same dump (docs/deployment.md: Dump and restore); or, if an"
            " upgrade was interrupted and they are empty, drop them"
        )


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
