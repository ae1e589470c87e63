"""The repair ledger."""

import sqlalchemy as sa
from alembic import op

from zlh_dagster.schema.tables import UtcDateTime

revision = "0001"
down_revision = None

TABLE = "RepairEvent"


def upgrade() -> None:
    op.create_table(
        TABLE,
        sa.Column("id", sa.String(64), primary_key=True),
        sa.Column("vmid", sa.Integer, nullable=True),
        sa.Column("surface", sa.String(64), nullable=True),
        sa.Column("action", sa.String(64), nullable=False),
        sa.Column("level", sa.Integer, nullable=False),
        sa.Column("status", sa.String(64), nullable=False),
        sa.Column("reason", sa.Text, nullable=False),
        sa.Column("requestedBy", sa.String(64), nullable=False),
        sa.Column("runId", sa.String(64), nullable=False),
        sa.Column("fencingToken", sa.BigInteger, nullable=False),
        sa.Column("before", sa.JSON, nullable=True),
        sa.Column("after", sa.JSON, nullable=True),
        sa.Column("error", sa.JSON, nullable=True),
        sa.Column("createdAt", UtcDateTime, nullable=False),
        sa.Column("finishedAt", UtcDateTime, nullable=True),
        mysql_charset="utf8mb4",
        mariadb_charset="utf8mb4",
    )
    op.create_index("RepairEvent_vmid_createdAt_idx", TABLE, ["vmid", "createdAt"])
    op.create_index("RepairEvent_status_idx", TABLE, ["status"])
    op.create_index("RepairEvent_fencingToken_idx", TABLE, ["fencingToken"])


def downgrade() -> None:
    op.drop_table(TABLE)
