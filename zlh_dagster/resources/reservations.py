"""VMIDs and ports that an operation holds, given back when nothing uses them."""

from dataclasses import dataclass
from datetime import datetime
from typing import Any

import sqlalchemy as sa

from zlh_dagster.schema.tables import container_instance, port_pool, vmid_reservation


@dataclass(frozen=True, slots=True)
class Released:
    """What failing an operation gave back.

    Attributes:
        vmid: The VMID whose reservation was released, or ``None``.
        ports: The ports that are free again.
    """

    vmid: int | None = None
    ports: tuple[int, ...] = ()

    def to_json(self) -> dict[str, Any]:
        """What was released, for the ledger."""
        return {"vmid": self.vmid, "ports": list(self.ports)}

    def describe(self) -> str:
        """``released VMID 5900, ports 25601, 25602``, for people; empty when nothing was."""
        what = [] if self.vmid is None else [f"VMID {self.vmid}"]
        if self.ports:
            what.append("ports " + ", ".join(str(port) for port in self.ports))
        return f"released {', '.join(what)}" if what else ""


def release_vmid(
    connection: sa.Connection, *, vmid: int, operation: str, now: datetime
) -> Released:
    """Gives back what an operation held, in the transaction that closes it.

    Args:
        connection: In that transaction.
        vmid: The operation's VMID.
        operation: The operation's identifier.
        now: Time of the release.

    Returns:
        What was given back: nothing when the platform has a container of that VMID that is past
        ``provisioning``; no port either when the VMID is reserved for another operation.
    """
    reserved, ports = vmid_reservation.c, port_pool.c
    # Each statement checks again what it relies on; the first also locks the reservation's row.
    unused = ~sa.exists().where(
        container_instance.c.vmid == vmid, container_instance.c.lifecycle != "provisioning"
    )
    ours = ~sa.exists().where(reserved.vmid == vmid, reserved.operationId != operation)
    given_back = changed(
        connection,
        sa.update(vmid_reservation)
        .where(
            reserved.vmid == vmid,
            reserved.operationId == operation,
            reserved.releasedAt.is_(None),
            unused,
        )
        .values(releasedAt=now),
    )
    held = sa.select(ports.id, ports.port).where(ports.allocatedTo == vmid, unused, ours)
    found = connection.execute(held.order_by(ports.port).with_for_update()).all()
    freed = 0
    if found:
        freed = changed(
            connection,
            sa.update(port_pool)
            .where(ports.id.in_([row.id for row in found]), ports.allocatedTo == vmid, unused, ours)
            .values(status="free", allocatedTo=None, updatedAt=now),
        )
    return Released(vmid if given_back else None, tuple(row.port for row in found) if freed else ())


def changed(connection: sa.Connection, statement: sa.Update) -> int:
    """Runs an update and returns how many rows it matched."""
    return int(connection.execute(statement).rowcount)
