"""The platform behind the edge: its fleet on the node, and rows of its other tables."""

from datetime import datetime, timedelta, timezone

import httpx
import pytest
import sqlalchemy as sa

from zlh_dagster.sandbox.fleet import create_platform_tables, write_fleet
from zlh_dagster.sandbox.platform_rows import (
    WrongRow,
    change_server,
    write_operation,
    write_ports,
    write_reservation,
)
from zlh_dagster.sandbox.publish import publish_database
from zlh_dagster.sandbox.server import Sandbox
from zlh_dagster.schema.tables import (
    container_instance,
    port_pool,
    provisioning_operation,
    vmid_reservation,
)


@pytest.fixture
def url(tmp_path):
    return f"sqlite:///{tmp_path / 'platform.db'}"


@pytest.fixture
def engine(url):
    engine = sa.create_engine(url)
    create_platform_tables(engine)
    write_fleet(engine, servers=5, loopback=True)
    yield engine
    engine.dispose()


def _rows(engine, table):
    with engine.connect() as connection:
        return [dict(row) for row in connection.execute(sa.select(table)).mappings()]


def _server(engine, vmid):
    [row] = [row for row in _rows(engine, container_instance) if row["vmid"] == vmid]
    return row


def _ago(time, **parts):
    return abs(datetime.now(timezone.utc) - time - timedelta(**parts)) < timedelta(seconds=30)


def test_every_server_of_the_fleet_runs_and_its_agent_answers(edge, engine):
    """At the address of the database; so do dev containers, and infrastructure has no agent."""
    publish_database(edge.sandbox.edge, engine)
    listed = {row["vmid"]: row for row in edge.proxmox().json()["data"]}
    rows = _rows(engine, container_instance)
    for row in rows:
        assert listed[row["vmid"]]["status"] == "running"
        status = edge.agent("/status", address=row["ip"]).json()
        assert (status["vmid"], status["state"]) == (row["vmid"], "running")
    assert len(rows) == 6
    assert {name["name"] for vmid, name in listed.items() if vmid >= 9000} == {
        "velocity",
        "traefik",
        "technitium",
    }
    assert len(listed) == 9


def test_backends_are_at_the_addresses_of_the_fleet(edge, engine):
    """Registered and listening at one address."""
    publish_database(edge.sandbox.edge, engine)
    backends = {b.name: (b.address, b.port) for b in edge.sandbox.edge.velocity.backends()}
    assert backends["mc-5000"] == ("127.60.0.1", 25565)
    assert _server(engine, 5000)["ip"] == "127.60.0.1"


def test_an_operation_is_queued_just_now_unless_told_otherwise(engine):
    """Each with an identifier of its own."""
    first, second = write_operation(engine), write_operation(engine, vmid=5001, jobId="7")
    rows = {row["id"]: row for row in _rows(engine, provisioning_operation)}
    assert set(rows) == {first, second}
    assert (rows[second]["vmid"], rows[second]["jobId"]) == (5001, "7")
    row = rows[first]
    assert (row["type"], row["queue"], row["status"]) == ("create", "provisioning", "queued")
    assert _ago(row["createdAt"])
    assert row["updatedAt"] == row["createdAt"]


def test_times_are_seconds_from_now_or_text_or_datetimes(engine):
    """Naive ones are taken as UTC."""
    write_operation(
        engine,
        id="op-1",
        status="running",
        createdAt=-1200,
        heartbeatAt=datetime(2024, 5, 1, 12, tzinfo=timezone.utc),
        leaseExpiresAt="2024-05-01T12:01:00Z",
        progressAt="2024-05-01T12:02:00",
    )
    [row] = _rows(engine, provisioning_operation)
    assert _ago(row["createdAt"], minutes=20)
    assert row["updatedAt"] == row["createdAt"] or _ago(row["updatedAt"], minutes=20)
    assert row["heartbeatAt"].isoformat() == "2024-05-01T12:00:00+00:00"
    assert row["leaseExpiresAt"].isoformat() == "2024-05-01T12:01:00+00:00"
    assert row["progressAt"].isoformat() == "2024-05-01T12:02:00+00:00"


def test_reservations_and_ports_are_written(engine):
    """Ports are allocated when somebody has them."""
    write_reservation(engine, vmid=5009, operation_id="op-1", reservedAt=-60)
    write_ports(engine, [25565, 25566])
    write_ports(engine, [25570], allocatedTo=5009)
    [reservation] = _rows(engine, vmid_reservation)
    assert (reservation["operationId"], reservation["releasedAt"]) == ("op-1", None)
    assert _ago(reservation["reservedAt"], minutes=1)
    assert [(p["port"], p["status"], p["allocatedTo"]) for p in _rows(engine, port_pool)] == [
        (25565, "free", None),
        (25566, "free", None),
        (25570, "allocated", 5009),
    ]


def test_a_server_is_changed_column_by_column(engine):
    """And is then the newest."""
    before = _server(engine, 5001)
    change_server(
        engine, 5001, billingStatus="suspended", maintenanceReason="disk", lastBackupAt=-90_000
    )
    after = _server(engine, 5001)
    assert (after["billingStatus"], after["maintenanceReason"]) == ("suspended", "disk")
    assert _ago(after["lastBackupAt"], hours=25)
    assert after["updatedAt"] > before["updatedAt"]
    same = ("hostname", "ip", "lifecycle", "backupEveryHours")
    assert all(after[name] == before[name] for name in same)
    change_server(engine, 5001, maintenanceReason=None, lastBackupAt=None)
    assert _server(engine, 5001)["lastBackupAt"] is None


@pytest.mark.parametrize(
    ("write", "part"),
    [
        (lambda e: write_operation(e, colour="red"), "no column 'colour' in ProvisioningOperation"),
        (lambda e: write_operation(e, createdAt="yesterday"), "createdAt cannot be 'yesterday'"),
        (lambda e: write_operation(e, createdAt=True), "ISO 8601"),
        (lambda e: change_server(e, 5000, ctypes="game"), "no column 'ctypes'"),
        (lambda e: change_server(e, 5099, lifecycle="active"), "no server 5099"),
        (lambda e: write_ports(e, [1, 1]), "PortPool"),
    ],
)
def test_a_row_that_cannot_be_is_refused(engine, write, part):
    """The message says what there is; nothing was written."""
    with pytest.raises(WrongRow, match=part):
        write(engine)
    assert _rows(engine, provisioning_operation) == _rows(engine, port_pool) == []


def test_rows_are_written_over_the_control_api(engine, url):
    """With the same names and the same checks."""
    with Sandbox(database_url=url) as sandbox:
        base = f"{sandbox.url}/sandbox/platform"
        body = {"vmid": 5008, "status": "queued", "createdAt": -1200}
        operation = httpx.post(f"{base}/operations", json=body).json()["id"]
        body = {"vmid": 5008, "operationId": operation}
        assert httpx.post(f"{base}/reservations", json=body).is_success
        body = {"ports": [25570, 25571], "allocatedTo": 5008}
        assert httpx.post(f"{base}/ports", json=body).is_success
        assert httpx.put(f"{base}/servers/5000", json={"lifecycle": "deleting"}).is_success
        for method, path, refused, part in (
            ("POST", "operations", {"engine": 1}, "no column 'engine'"),
            ("POST", "reservations", {"vmid": 1}, "operationId is needed"),
            ("POST", "reservations", {"vmid": 5008, "operationId": "x"}, "VmidReservation"),
            ("POST", "ports", {"ports": 5}, "ports is needed"),
            ("PUT", "servers/5099", {}, "no server 5099"),
            ("PUT", "servers/5000", [], "JSON object"),
        ):
            response = httpx.request(method, f"{base}/{path}", json=refused)
            assert response.status_code == 400
            assert part in response.json()["error"]
    assert [row["id"] for row in _rows(engine, provisioning_operation)] == [operation]
    assert [row["operationId"] for row in _rows(engine, vmid_reservation)] == [operation]
    assert [row["port"] for row in _rows(engine, port_pool)] == [25570, 25571]
    assert _server(engine, 5000)["lifecycle"] == "deleting"


def test_rows_need_a_database(edge):
    """A sandbox without one says so."""
    response = edge.control("POST", "platform/operations", {})
    assert response.status_code == 400
    assert "database" in response.json()["error"]
