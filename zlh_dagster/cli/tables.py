"""`zlh db upgrade`: the tables that this project owns."""

from typing import Any

import sqlalchemy as sa

from zlh_dagster.resources.database import connect
from zlh_dagster.resources.settings import Settings
from zlh_dagster.schema import upgrade as schema


def upgrade(settings: Settings) -> dict[str, Any]:
    """Creates or migrates them; returns where, and the revision.

    A SQLite file is made only where no database was named: a mistyped name makes none.

    Raises:
        DatabaseError: If the URL is none that can be used, or names a file that is not there.
        sqlalchemy.exc.SQLAlchemyError: If the database does not take it.
    """
    url = settings.database_url
    engine = connect(url, create=settings.zlh_database_url is None)
    try:
        revision = schema.upgrade(engine)
    finally:
        engine.dispose()
    # What stands behind the question mark may be a password too.
    place = sa.make_url(url).set(query={}).render_as_string(hide_password=True)
    told = f"the tables in {place} are at revision {revision}"
    if settings.zlh_database_url is None:
        told += (
            ". ZLH_DATABASE_URL is not set: set it to the platform's database and run this again"
        )
    return {"database": place, "revision": revision, "message": told}
