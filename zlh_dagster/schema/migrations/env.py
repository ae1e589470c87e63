"""Alembic's environment: migrates the tables that this project owns, over a given connection."""

from alembic import context

from zlh_dagster.schema.tables import own_metadata
from zlh_dagster.schema.upgrade import VERSION_TABLE

connection = context.config.attributes["connection"]
context.configure(
    connection=connection,
    target_metadata=own_metadata,
    version_table=VERSION_TABLE,
    compare_type=True,
)
with context.begin_transaction():
    context.run_migrations()
