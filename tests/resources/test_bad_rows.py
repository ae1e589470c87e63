"""One bad cell costs its own server the observation, whatever the cell, and no other server's."""

import pytest
import sqlalchemy as sa

from tests.core.builders import EDGE
from zlh_dagster.core.desired import desired_edge
from zlh_dagster.core.guards import (
    changed_refusal,
    edge_refusals,
    guard_reason,
    operation_refusal,
    row_of,
    suspended_refusal,
)
from zlh_dagster.core.model import Action
from zlh_dagster.core.repair import RepairRequest
from zlh_dagster.resources.database import connect, read_payloads
from zlh_dagster.sandbox.fleet import create_platform_tables, write_fleet

BAD = {
    "lastBackupAt": ("'0000-00-00 00:00:00'", "5", "'2030-13-01 00:00:00'", "x'ff'"),
    "createdAt": ("'x'", "12345", "'9999-12-31 23:59:59-05:00'", "''"),
    "hostname": ("CAST(x'6d63ff' AS TEXT)", "x'6d63'"),
    "payload": ("CAST(x'7bff7d' AS TEXT)",),
    "allocatedPorts": ("CAST(x'7bff7d' AS TEXT)",),
    "ip": ("CAST(x'31ff' AS TEXT)",),
    "ctype": ("CAST(x'67ff' AS TEXT)",),
    "lifecycle": ("CAST(x'67ff' AS TEXT)",),
    "billingStatus": ("CAST(x'67ff' AS TEXT)",),
    "maintenanceReason": ("CAST(x'67ff' AS TEXT)",),
    "backupEveryHours": ("'often'", "1.5", "9223372036854775807"),
}
CELLS = [(column, cell) for column, cells in BAD.items() for cell in cells]


@pytest.fixture
def fleet(tmp_path):
    """SQLite keeps whatever it is given."""
    engine = connect(f"sqlite:///{tmp_path / 'p.db'}", create=True)
    create_platform_tables(engine)
    write_fleet(engine, servers=3)
    yield engine
    engine.dispose()


def spoil(engine, column: str, cell: str, vmid: int = 5001) -> None:
    with engine.begin() as connection:
        change = f'UPDATE "ContainerInstance" SET "{column}" = {cell} WHERE vmid = {vmid}'
        connection.execute(sa.text(change))


@pytest.mark.parametrize(("column", "cell"), CELLS)
def test_a_cell_that_cannot_be_read_costs_only_its_own_server(fleet, column, cell):
    before = desired_edge(read_payloads(fleet), EDGE)
    spoil(fleet, column, cell)
    frame = read_payloads(fleet)
    assert list(frame["vmid"]) == [5000, 5001, 5002, 6000]
    made = desired_edge(frame, EDGE)
    others = before.records[before.records["vmid"] != 5001].reset_index(drop=True)
    assert made.records.equals(others)
    assert list(made.invalid["vmid"]) == [5001]
    assert made.invalid["reason"][0].startswith(f"{column}: ")


@pytest.mark.parametrize(("column", "cell"), CELLS)
def test_every_guard_refuses_a_server_with_such_a_cell(fleet, column, cell):
    good = row_of(read_payloads(fleet), 5001)
    spoil(fleet, column, cell)
    frame = read_payloads(fleet)
    bad = row_of(frame, 5001)
    assert guard_reason(bad).startswith(f"row_unusable: {column}: ")
    assert changed_refusal(good, bad).code == "row_unusable"
    made = desired_edge(frame, EDGE)
    [refused] = edge_refusals(
        [RepairRequest(5001, Action.EDGE_REPUBLISH)],
        payloads=frame,
        desired=made.records,
        invalid=made.invalid,
    ).values()
    assert refused.code == "row_unusable"
    for action in (Action.CLEAR_STALE_OPERATION_LOCK, Action.FAIL_STUCK_PROVISIONING):
        assert operation_refusal(RepairRequest(5001, action), frame).code == "row_unusable"
    stop = RepairRequest(5001, Action.STOP_SUSPENDED_WORKLOAD)
    assert suspended_refusal(stop, frame).code == "row_unusable"


def test_all_that_is_wrong_with_a_row_is_told_with_column_and_value(fleet):
    spoil(fleet, "createdAt", "'x'")
    spoil(fleet, "backupEveryHours", "'often'")
    [reason] = desired_edge(read_payloads(fleet), EDGE).invalid["reason"]
    assert reason == "backupEveryHours: 'often' is not an integer of 32 bits; createdAt: 'x' is" + (
        " not a time"
    )


def test_a_payload_is_not_quoted(fleet):
    spoil(fleet, "payload", "CAST(x'736563726574ff' AS TEXT)")
    [reason] = desired_edge(read_payloads(fleet), EDGE).invalid["reason"]
    assert reason == "payload: is not text"


def test_a_bad_cell_of_a_dev_container_is_told_as_well(fleet):
    spoil(fleet, "createdAt", "'x'", vmid=6000)
    assert list(desired_edge(read_payloads(fleet), EDGE).invalid["vmid"]) == [6000]


def loose(engine, vmid: str) -> None:
    """A platform whose own table takes any VMID, with a bad one in the second row."""
    with engine.begin() as connection:
        for statement in (
            'CREATE TABLE other AS SELECT * FROM "ContainerInstance"',
            'DROP TABLE "ContainerInstance"',
            'ALTER TABLE other RENAME TO "ContainerInstance"',
            f'UPDATE "ContainerInstance" SET vmid = {vmid} WHERE vmid = 5001',
        ):
            connection.execute(sa.text(statement))


@pytest.mark.parametrize("vmid", ["'abc'", "NULL", "1.5", "x'00'", "9223372036854775807"])
def test_a_row_without_a_readable_vmid_is_told_and_is_nobodys(fleet, vmid):
    """Its host name stays taken, and no server counts as one without a row on its account."""
    loose(fleet, vmid)
    frame = read_payloads(fleet)
    assert sorted(frame["vmid"].dropna()) == [5000, 5002, 6000]
    made = desired_edge(frame, EDGE)
    assert set(made.records["vmid"]) == {5000, 5002}
    [reason] = made.invalid["reason"]
    assert reason.startswith("vmid: ")
    assert made.invalid["vmid"].isna().all()
    action = Action.FAIL_STUCK_PROVISIONING
    assert operation_refusal(RepairRequest(5900, action), frame).code == "row_unusable"
    assert operation_refusal(RepairRequest(5000, action), frame).code == "lifecycle"
