"""Operations of the platform that nobody works on any more, and ticks that see them."""

import sqlalchemy as sa

from tests.clock import ago, at
from tests.harness import Loop
from tests.queues import PROVISIONING, a_minute_passes, put_job
from zlh_dagster.sandbox.platform_rows import write_operation, write_ports, write_reservation
from zlh_dagster.schema.tables import provisioning_operation

NEW = 5900
"""A VMID without a container and without a row."""


def operation(db, operation_id):
    with db.connect() as connection:
        table = provisioning_operation
        row = connection.execute(sa.select(table).where(table.c.id == operation_id))
        return dict(row.mappings().one())


def two_ticks(loop: Loop) -> list:
    """Two minutes, as far as the jobs are concerned."""
    runs = loop.minute()
    a_minute_passes(loop.services)
    return [*runs, *loop.minute()]


def running(db, redis, *, state="gone", **columns):
    put_job(redis, "operation", "77", state)
    values = {
        "id": "op-running",
        "vmid": 5000,
        "type": "restart",
        "queue": "operation",
        "jobId": "77",
        "status": "running",
        "heartbeatAt": ago(minutes=10),
        "leaseExpiresAt": None,
        "createdAt": ago(minutes=20),
        "progressAt": ago(minutes=10),
    }
    return write_operation(db, **{**values, **at(columns)})


def queued(db, redis, *, state="gone", vmid=NEW, **columns):
    put_job(redis, PROVISIONING, "12", state)
    values = {
        "id": "op-queued",
        "vmid": vmid,
        "type": "create",
        "queue": PROVISIONING,
        "jobId": "12",
        "status": "queued",
        "createdAt": ago(minutes=16),
        "progressAt": None,
        "heartbeatAt": None,
        "leaseExpiresAt": None,
    }
    made = write_operation(db, **{**values, **at(columns)})
    if vmid is not None:
        write_reservation(db, vmid=vmid, operation_id=made)
        write_ports(db, [25601, 25602], allocatedTo=vmid)
    return made
