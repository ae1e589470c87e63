"""`zlh db upgrade`: the tables that this project owns."""

from typing import Any

import sqlalchemy as sa

from zlh_dagster.resources.database import connect
from zlh_dagster.schema import upgrade as schema


def upgrade(url: str) -> dict[str, Any]:
    """Creates or migrates them; returns where, and the revision.

    Raises:
        DatabaseError: If the URL is none that can be used.
        sqlalchemy.exc.SQLAlchemyError: If the database does not take it.
    """
    engine = connect(url, create=True)
    try:
        revision = schema.upgrade(engine)
    finally:
        engine.dispose()
    # What stands behind the question mark may be a password too.
    place = sa.make_url(url).set(query={}).render_as_string(hide_password=True)
    told = f"the tables in {place} are at revision {revision}"
    return {"database": place, "revision": revision, "message": told}
