"""The operator's pauses, for a Redis that forgets them."""

import sqlalchemy as sa
from alembic import op

from zlh_dagster.schema.tables import UtcDateTime

revision = "0002"
down_revision = "0001"

TABLE = "RepairPause"


def upgrade() -> None:
    op.create_table(
        TABLE,
        sa.Column("scope", sa.String(64), primary_key=True),
        sa.Column("reason", sa.Text, nullable=False),
        sa.Column("since", UtcDateTime, nullable=False),
        sa.Column("until", UtcDateTime, nullable=True),
        mysql_charset="utf8mb4",
        mariadb_charset="utf8mb4",
    )


def downgrade() -> None:
    op.drop_table(TABLE)
