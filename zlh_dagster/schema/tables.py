"""The tables of the platform database, in SQLAlchemy Core.

The platform's API owns all of them but ``RepairEvent``, ``RepairPause`` and ``DailyFigure``. Names
are camelCase and therefore quoted; timestamps are UTC. The same definitions serve SQLite,
PostgreSQL and MariaDB.
"""

from datetime import datetime, timezone

import sqlalchemy as sa
from sqlalchemy.dialects import mysql
from sqlalchemy.engine import Dialect


class UtcDateTime(sa.TypeDecorator[datetime]):
    """A UTC timestamp: aware in Python, without a zone in the database.

    MariaDB's ``DATETIME`` keeps whole seconds unless told otherwise, so it gets six digits.
    """

    impl = sa.DateTime
    cache_ok = True

    def load_dialect_impl(self, dialect: Dialect) -> sa.types.TypeEngine[datetime]:
        if dialect.name in ("mysql", "mariadb"):
            return dialect.type_descriptor(mysql.DATETIME(fsp=6))
        return dialect.type_descriptor(sa.DateTime())

    def process_bind_param(self, value: datetime | None, dialect: Dialect) -> datetime | None:
        if value is None:
            return None
        if value.tzinfo is None:
            raise ValueError(f"{value!r} has no time zone; timestamps here are aware and in UTC")
        return value.astimezone(timezone.utc).replace(tzinfo=None)

    def process_result_value(self, value: datetime | None, dialect: Dialect) -> datetime | None:
        if value is None:
            return None
        if value.tzinfo is None:
            return value.replace(tzinfo=timezone.utc)
        return value.astimezone(timezone.utc)


platform_metadata = sa.MetaData()
"""Tables that the platform's API owns."""

own_metadata = sa.MetaData()
"""Tables that this project owns and migrates."""

# MariaDB cannot index or key a TEXT column without a length.
_KEY = sa.String(64)
_WORD = sa.String(64)

container_instance = sa.Table(
    "ContainerInstance",
    platform_metadata,
    sa.Column("vmid", sa.Integer, primary_key=True, autoincrement=False),
    sa.Column("customerId", sa.Text, nullable=True),
    sa.Column("ctype", _WORD, nullable=False),
    sa.Column("hostname", sa.Text, nullable=False),
    sa.Column("ip", sa.Text, nullable=True),
    sa.Column("allocatedPorts", sa.JSON, nullable=True),
    sa.Column("payload", sa.JSON, nullable=True),
    sa.Column("agentState", _WORD, nullable=True),
    sa.Column("agentLastSeen", UtcDateTime, nullable=True),
    sa.Column("lifecycle", _WORD, nullable=False),
    sa.Column("billingStatus", _WORD, nullable=False),
    sa.Column("maintenanceReason", sa.Text, nullable=True),
    sa.Column("lastBackupAt", UtcDateTime, nullable=True),
    sa.Column("backupEveryHours", sa.Integer, nullable=True),
    sa.Column("createdAt", UtcDateTime, nullable=False),
    sa.Column("updatedAt", UtcDateTime, nullable=False),
)

provisioning_operation = sa.Table(
    "ProvisioningOperation",
    platform_metadata,
    sa.Column("id", _KEY, primary_key=True),
    sa.Column("vmid", sa.Integer, nullable=True),
    sa.Column("type", _WORD, nullable=False),
    sa.Column("queue", _WORD, nullable=False),
    sa.Column("jobId", sa.Text, nullable=True),
    sa.Column("status", _WORD, nullable=False),
    sa.Column("phase", sa.Text, nullable=True),
    sa.Column("progressAt", UtcDateTime, nullable=True),
    sa.Column("heartbeatAt", UtcDateTime, nullable=True),
    sa.Column("leaseExpiresAt", UtcDateTime, nullable=True),
    sa.Column("createdAt", UtcDateTime, nullable=False),
    sa.Column("updatedAt", UtcDateTime, nullable=False),
    sa.Column("completedAt", UtcDateTime, nullable=True),
    sa.Column("error", sa.JSON(none_as_null=True), nullable=True),
)

vmid_reservation = sa.Table(
    "VmidReservation",
    platform_metadata,
    sa.Column("vmid", sa.Integer, primary_key=True, autoincrement=False),
    sa.Column("operationId", _KEY, nullable=False),
    sa.Column("reservedAt", UtcDateTime, nullable=False),
    sa.Column("releasedAt", UtcDateTime, nullable=True),
)

port_pool = sa.Table(
    "PortPool",
    platform_metadata,
    sa.Column("id", sa.Integer, primary_key=True),
    sa.Column("port", sa.Integer, nullable=False, unique=True),
    sa.Column("portType", _WORD, nullable=False),
    sa.Column("status", _WORD, nullable=False),
    sa.Column("allocatedTo", sa.Integer, nullable=True),
    sa.Column("createdAt", UtcDateTime, nullable=False),
    sa.Column("updatedAt", UtcDateTime, nullable=False),
)

repair_event = sa.Table(
    "RepairEvent",
    own_metadata,
    sa.Column("id", _KEY, primary_key=True),
    sa.Column("vmid", sa.Integer, nullable=True),
    sa.Column("surface", _WORD, nullable=True),
    sa.Column("action", _WORD, nullable=False),
    sa.Column("level", sa.Integer, nullable=False),
    sa.Column("status", _WORD, nullable=False),
    sa.Column("reason", sa.Text, nullable=False),
    sa.Column("requestedBy", _WORD, nullable=False),
    sa.Column("runId", _KEY, nullable=False),
    sa.Column("fencingToken", sa.BigInteger, nullable=False),
    sa.Column("before", sa.JSON(none_as_null=True), nullable=True),
    sa.Column("after", sa.JSON(none_as_null=True), nullable=True),
    sa.Column("error", sa.JSON(none_as_null=True), nullable=True),
    sa.Column("createdAt", UtcDateTime, nullable=False),
    sa.Column("finishedAt", UtcDateTime, nullable=True),
    sa.Index("RepairEvent_vmid_createdAt_idx", "vmid", "createdAt"),
    sa.Index("RepairEvent_status_idx", "status"),
    sa.Index("RepairEvent_fencingToken_idx", "fencingToken"),
    # A reason may quote what a customer typed; in a latin1 table the row, and with it the repair,
    # would be refused.
    mysql_charset="utf8mb4",
    mariadb_charset="utf8mb4",
)

repair_pause = sa.Table(
    "RepairPause",
    own_metadata,
    sa.Column("scope", _KEY, primary_key=True),
    sa.Column("reason", sa.Text, nullable=False),
    sa.Column("since", UtcDateTime, nullable=False),
    sa.Column("until", UtcDateTime, nullable=True),
    mysql_charset="utf8mb4",
    mariadb_charset="utf8mb4",
)

daily_figure = sa.Table(
    "DailyFigure",
    own_metadata,
    sa.Column("day", sa.Date, primary_key=True),
    sa.Column("name", _WORD, primary_key=True),
    sa.Column("value", sa.Double, nullable=False),
    mysql_charset="utf8mb4",
    mariadb_charset="utf8mb4",
)
