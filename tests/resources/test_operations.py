"""Operations are closed only while they stand as read, on SQLite, PostgreSQL and MariaDB."""

import dataclasses
from datetime import datetime, timedelta, timezone

import numpy as np
import pandas as pd
import pytest
import sqlalchemy as sa

from zlh_dagster.core.fleet import (
    OPEN_OPERATION_COLUMNS,
)
from zlh_dagster.core.repair import Status
from zlh_dagster.core.times import iso
from zlh_dagster.resources.database import DatabaseError, connect
from zlh_dagster.resources.ledger import Entry, Ledger
from zlh_dagster.resources.operations import (
    fail_provisioning,
    mark_stale,
    read_one,
    read_open,
)
from zlh_dagster.resources.reservations import Released
from zlh_dagster.schema.tables import (
    container_instance,
    platform_metadata,
    port_pool,
    provisioning_operation,
    vmid_reservation,
)
from zlh_dagster.schema.upgrade import upgrade

NOW = datetime(2030, 1, 2, 3, 4, 5, 678_901, tzinfo=timezone.utc)
LATER = NOW + timedelta(minutes=20)
ERROR = {"code": "stale_lock", "message": "Sperre verfallen – 💥"}
MINUTE = timedelta(minutes=1)


def insert(engine, table, **values) -> None:
    with engine.begin() as connection:
        connection.execute(sa.insert(table).values(values))


def operation(engine, operation_id: str = "op-1", **values) -> None:
    given = {
        "id": operation_id,
        "vmid": 5000,
        "type": "create",
        "queue": "provisioning",
        "jobId": "job-1",
        "status": "running",
        "phase": "clone",
        "progressAt": NOW,
        "heartbeatAt": NOW + MINUTE,
        "leaseExpiresAt": NOW + 2 * MINUTE,
        "createdAt": NOW - MINUTE,
        "updatedAt": NOW + MINUTE,
        "completedAt": None,
        "error": None,
    }
    insert(engine, provisioning_operation, **{**given, **values})


def reserve(engine, operation_id: str = "op-1", *, vmid: int = 5000, released=None) -> None:
    values = {"vmid": vmid, "operationId": operation_id, "reservedAt": NOW, "releasedAt": released}
    insert(engine, vmid_reservation, **values)


def port(engine, number: int, vmid: int | None = 5000) -> None:
    values = {"status": "free" if vmid is None else "allocated", "allocatedTo": vmid}
    times = {"createdAt": NOW, "updatedAt": NOW}
    insert(engine, port_pool, id=number, port=number, portType="game", **values, **times)


def container(engine, vmid: int = 5000, lifecycle: str = "active") -> None:
    insert(
        engine,
        container_instance,
        vmid=vmid,
        ctype="game",
        hostname=f"mc-{vmid}",
        lifecycle=lifecycle,
        billingStatus="active",
        createdAt=NOW,
        updatedAt=NOW,
    )


def everything(engine) -> dict[str, list[dict]]:
    """All rows of the platform's tables, to show what was not written."""
    with engine.connect() as connection:
        return {
            name: [
                dict(row)
                for row in connection.execute(sa.select(table).order_by(sa.text("1"))).mappings()
            ]
            for name, table in platform_metadata.tables.items()
        }


def differences(before, after) -> set[tuple[str, str]]:
    """Which columns of which tables changed."""
    assert {name: len(rows) for name, rows in before.items()} == {
        name: len(rows) for name, rows in after.items()
    }
    return {
        (table, column)
        for table, rows in before.items()
        for old, new in zip(rows, after[table], strict=True)
        for column in old
        if old[column] != new[column]
    }


def stale(engine, row, *, fence: int = 7) -> bool:
    return mark_stale(engine, row, error=ERROR, fencing_token=fence, now=LATER)


def fail(engine, row, *, fence: int = 7, release: bool = True) -> Released | None:
    return fail_provisioning(
        engine, row, error=ERROR, fencing_token=fence, now=LATER, release=release
    )


CLOSINGS = [stale, fail]
REFUSALS = {stale: False, fail: None}


def ledger_row(engine, fence: int) -> None:
    entry = Entry(
        action="clear_stale_operation_lock",
        level=1,
        reason="r",
        requested_by="controller",
        run_id="run",
        fencing_token=fence,
    )
    Ledger(engine).record(entry, Status.REFUSED)


# --- reading -------------------------------------------------------------------------------------


def test_only_open_operations_are_read_in_the_order_of_their_identifiers(engine):
    words = ("queued", "running", "succeeded", "failed", "stale")
    for n, status in enumerate(reversed(words)):
        operation(engine, f"op-{n}", status=status)
    frame = read_open(engine)
    assert dict(frame.dtypes.astype(str)) == OPEN_OPERATION_COLUMNS
    assert list(zip(frame["id"], frame["status"], strict=True)) == [
        ("op-3", "running"),
        ("op-4", "queued"),
    ]


def test_an_operation_is_read_as_it_stands_its_times_whole(engine):
    operation(engine)
    [row] = read_open(engine).to_dict("records")
    assert row.pop("unreadable") is None
    assert row == {
        "id": "op-1",
        "vmid": 5000,
        "type": "create",
        "queue": "provisioning",
        "jobId": "job-1",
        "status": "running",
        "phase": "clone",
        "progressAt": "2030-01-02T03:04:05.678901+00:00",
        "heartbeatAt": "2030-01-02T03:05:05.678901+00:00",
        "leaseExpiresAt": "2030-01-02T03:06:05.678901+00:00",
        "createdAt": "2030-01-02T03:03:05.678901+00:00",
        "updatedAt": "2030-01-02T03:05:05.678901+00:00",
    }
    assert read_one(engine, "op-1") == {**row, "completedAt": None, "error": None}


EMPTY = dict.fromkeys(("vmid", "jobId", "phase", "progressAt", "heartbeatAt", "leaseExpiresAt"))


def test_an_operation_that_has_nothing_yet_is_read_with_nulls(engine):
    operation(engine, status="queued", **EMPTY)
    row = read_open(engine).iloc[0]
    assert row["vmid"] is pd.NA
    assert all(row[name] is None for name in EMPTY if name != "vmid")


@pytest.mark.parametrize("status", ["queued", "running"])
def test_an_operation_that_names_no_vmid_has_the_one_reserved_for_it(engine, status):
    operation(engine, status=status, vmid=None)
    reserve(engine, vmid=5900)
    reserve(engine, vmid=5901, released=NOW)
    reserve(engine, "op-2", vmid=5902)
    row = read_open(engine).iloc[0]
    assert (row["vmid"], row["unreadable"]) == (5900, None)


UNCLEAR = "vmid: 5000 in the row, 5900 reserved for it"


@pytest.mark.parametrize(
    ("kind", "status", "why"),
    [
        ("create", "queued", UNCLEAR),
        ("create", "running", None),
        ("restart", "queued", None),
    ],
)
def test_another_vmid_than_the_reserved_one_matters_where_it_would_be_given_back(
    engine, kind, status, why
):
    operation(engine, type=kind, status=status)
    reserve(engine, vmid=5900)
    row = read_open(engine).iloc[0]
    assert (row["vmid"], row["unreadable"]) == (5000, why)


def test_an_unknown_operation_is_none_and_no_operations_are_an_empty_frame(engine):
    assert read_one(engine, "nobody") is None
    assert read_open(engine).empty


def test_a_missing_table_is_an_error_and_not_an_idle_platform(empty_engine):
    for read in (read_open, lambda engine: read_one(engine, "op-1")):
        with pytest.raises(DatabaseError, match="ProvisioningOperation"):
            read(empty_engine)


@pytest.fixture
def loose(tmp_path):
    """SQLite keeps whatever it is given."""
    engine = connect(f"sqlite:///{tmp_path / 'p.db'}", create=True)
    platform_metadata.create_all(engine)
    upgrade(engine)
    operation(engine)
    operation(engine, "op-2", vmid=5001)
    yield engine
    engine.dispose()


def spoil(engine, column: str, cell: str) -> None:
    with engine.begin() as connection:
        change = f'UPDATE "ProvisioningOperation" SET "{column}" = {cell} WHERE id = \'op-1\''
        connection.execute(sa.text(change))


def test_a_time_of_whole_seconds_is_read(loose):
    spoil(loose, "heartbeatAt", "'2030-01-01 00:00:00'")
    assert read_open(loose)["heartbeatAt"][0] == "2030-01-01T00:00:00.000000+00:00"


@pytest.mark.parametrize(
    ("column", "cell"),
    [
        ("heartbeatAt", "'soon'"),
        ("leaseExpiresAt", "12345"),
        ("updatedAt", "'0000-00-00 00:00:00'"),
        ("vmid", "'abc'"),
        ("jobId", "CAST(x'31ff' AS TEXT)"),
        ("queue", "CAST(x'31ff' AS TEXT)"),
        ("phase", "x'31'"),
    ],
)
def test_a_cell_that_cannot_be_read_costs_only_its_own_operation(loose, column, cell):
    other = read_open(loose).iloc[1].to_dict()
    spoil(loose, column, cell)
    frame = read_open(loose)
    assert list(frame["id"]) == ["op-1", "op-2"]
    assert frame["unreadable"][0].startswith(f"{column}: ")
    assert frame["unreadable"][1] is None
    assert frame.iloc[1].to_dict() == other
    assert read_one(loose, "op-1")["status"] == "running"


@pytest.mark.parametrize("close", CLOSINGS)
def test_an_operation_whose_row_went_bad_is_not_closed(loose, close):
    row = read_one(loose, "op-1")
    spoil(loose, "heartbeatAt", "'soon'")
    assert close(loose, row) is REFUSALS[close]
    assert close(loose, read_one(loose, "op-1")) is REFUSALS[close]
    assert read_one(loose, "op-1")["status"] == "running"


# --- closing -------------------------------------------------------------------------------------


@pytest.mark.parametrize("status", ["queued", "running"])
def test_a_stale_operation_is_closed_with_its_error_and_nothing_else_changes(engine, status):
    operation(engine, status=status)
    operation(engine, "op-2")
    reserve(engine)
    port(engine, 25565)
    before = everything(engine)
    row = read_open(engine).to_dict("records")[0]
    assert stale(engine, row) is True
    after = read_one(engine, "op-1")
    assert (after["status"], after["error"]) == ("stale", ERROR)
    assert after["completedAt"] == after["updatedAt"] == iso(LATER)
    written = {"status", "error", "completedAt", "updatedAt"}
    assert differences(before, everything(engine)) == {
        ("ProvisioningOperation", column) for column in written
    }
    assert read_one(engine, "op-2")["status"] == "running"


@pytest.mark.parametrize("close", CLOSINGS)
def test_an_operation_is_closed_once(engine, close):
    operation(engine)
    row = read_one(engine, "op-1")
    assert close(engine, row)
    after = everything(engine)
    assert close(engine, row) == REFUSALS[close]
    assert close(engine, read_one(engine, "op-1")) == REFUSALS[close]
    assert everything(engine) == after


@pytest.mark.parametrize("close", CLOSINGS)
@pytest.mark.parametrize("null", [None, np.nan, pd.NA, pd.NaT])
def test_a_row_of_nulls_is_closed_whatever_kind_of_null_it_came_back_with(engine, close, null):
    operation(engine, status="queued", **EMPTY)
    row = {name: null if cell is None else cell for name, cell in read_one(engine, "op-1").items()}
    assert close(engine, row)


def test_a_row_that_went_through_a_file_is_closed_all_the_same(engine, tmp_path):
    operation(engine)
    operation(engine, "op-2", **EMPTY)
    read_open(engine).to_parquet(tmp_path / "f.parquet")
    rows = pd.read_parquet(tmp_path / "f.parquet").to_dict("records")
    assert [stale(engine, row) for row in rows] == [True, True]


MOVED = [
    {"status": "queued"},
    {"status": "succeeded"},
    {"jobId": "job-2"},
    {"jobId": None},
    {"progressAt": None},
    *(
        {name: NOW + timedelta(hours=1, microseconds=1)}
        for name in ("progressAt", "heartbeatAt", "leaseExpiresAt", "updatedAt")
    ),
    {"heartbeatAt": NOW + MINUTE + timedelta(microseconds=1)},
    {"updatedAt": NOW + MINUTE - timedelta(microseconds=1)},
]


@pytest.mark.parametrize("close", CLOSINGS)
@pytest.mark.parametrize("moved", MOVED)
def test_an_operation_that_moved_meanwhile_is_left_alone(engine, close, moved):
    operation(engine)
    reserve(engine)
    port(engine, 25565)
    row = read_one(engine, "op-1")
    with engine.begin() as connection:
        connection.execute(sa.update(provisioning_operation).values(moved))
    before = everything(engine)
    assert close(engine, row) == REFUSALS[close]
    assert everything(engine) == before


@pytest.mark.parametrize("close", CLOSINGS)
@pytest.mark.parametrize("name", ["jobId", "progressAt", "heartbeatAt", "leaseExpiresAt"])
def test_what_was_null_when_read_must_still_be_null(engine, close, name):
    operation(engine, **{name: None})
    row = read_one(engine, "op-1")
    with engine.begin() as connection:
        value = "job-1" if name == "jobId" else NOW
        connection.execute(sa.update(provisioning_operation).values({name: value}))
    assert close(engine, row) == REFUSALS[close]


@pytest.mark.parametrize("close", CLOSINGS)
def test_an_operation_that_is_gone_is_no_success(engine, close):
    operation(engine)
    row = read_one(engine, "op-1")
    with engine.begin() as connection:
        connection.execute(sa.delete(provisioning_operation))
    assert close(engine, row) == REFUSALS[close]


@pytest.mark.parametrize("close", CLOSINGS)
def test_a_higher_fencing_token_in_the_ledger_forbids_it(engine, close):
    operation(engine)
    reserve(engine)
    row = read_one(engine, "op-1")
    ledger_row(engine, 8)
    before = everything(engine)
    assert close(engine, row, fence=7) == REFUSALS[close]
    assert everything(engine) == before
    assert close(engine, row, fence=8), "its own rows do not stand in the way"


@pytest.mark.parametrize("close", CLOSINGS)
def test_without_a_ledger_nothing_is_written(engine, close):
    operation(engine)
    row = read_one(engine, "op-1")
    with engine.begin() as connection:
        quoted = engine.dialect.identifier_preparer.quote("RepairEvent")
        connection.execute(sa.text(f"DROP TABLE {quoted}"))
    before = everything(engine)
    with pytest.raises(DatabaseError, match="RepairEvent"):
        close(engine, row)
    assert everything(engine) == before


@pytest.mark.parametrize("close", CLOSINGS)
@pytest.mark.parametrize("digits", [0, 3])
def test_columns_of_the_platform_with_fewer_digits_are_closed_too(engine, close, digits):
    """As an API's own schema has them; what is compared is what was read."""
    if engine.dialect.name == "sqlite":
        pytest.skip("SQLite keeps the digits it is given")
    preparer = engine.dialect.identifier_preparer
    table = preparer.quote("ProvisioningOperation")
    with engine.begin() as connection:
        for name in ("progressAt", "heartbeatAt", "leaseExpiresAt", "updatedAt", "completedAt"):
            column = preparer.quote(name)
            if engine.dialect.name == "postgresql":
                change = f"ALTER COLUMN {column} TYPE timestamptz({digits})"
            else:
                change = f"MODIFY {column} DATETIME({digits}) NULL"
            connection.execute(sa.text(f"ALTER TABLE {table} {change}"))
    operation(engine)
    row = read_one(engine, "op-1")
    assert row["heartbeatAt"] != iso(NOW + MINUTE), "the database kept fewer digits"
    assert close(engine, row)


def test_an_error_from_a_lost_database_is_told_without_its_data(engine, tmp_path):
    operation(engine)
    row = read_one(engine, "op-1")
    gone = connect(f"sqlite:///{tmp_path / 'gone' / 'p.db'}")
    for close in CLOSINGS:
        with pytest.raises(DatabaseError) as failed:
            close(gone, row)
        assert "job-1" not in str(failed.value)
    gone.dispose()


# --- giving back ---------------------------------------------------------------------------------


@pytest.fixture
def stuck(engine):
    """A create that never began: its VMID reserved, two ports held, others held by others."""
    operation(engine, status="queued", phase=None)
    reserve(engine)
    for number, vmid in ((25565, 5000), (25566, 5000), (25567, 5001), (25568, None)):
        port(engine, number, vmid)
    return read_one(engine, "op-1")


def held_ports(engine) -> list[int]:
    return [row["port"] for row in everything(engine)["PortPool"] if row["status"] == "allocated"]


def reservation(engine) -> dict:
    return everything(engine)["VmidReservation"][0]


def test_failing_it_gives_back_its_vmid_and_ports_and_writes_nothing_else(engine, stuck):
    before = everything(engine)
    assert fail(engine, stuck) == Released(5000, (25565, 25566))
    after = read_one(engine, "op-1")
    assert (after["status"], after["error"]) == ("failed", ERROR)
    assert after["completedAt"] == after["updatedAt"] == iso(LATER)
    assert differences(before, everything(engine)) == {
        *(("ProvisioningOperation", n) for n in ("status", "error", "completedAt", "updatedAt")),
        ("VmidReservation", "releasedAt"),
        *(("PortPool", n) for n in ("status", "allocatedTo", "updatedAt")),
    }
    assert reservation(engine)["releasedAt"] == LATER
    assert held_ports(engine) == [25567]
    freed = everything(engine)["PortPool"][0]
    assert (freed["status"], freed["allocatedTo"], freed["updatedAt"]) == ("free", None, LATER)


def test_without_leave_to_release_it_is_only_failed(engine, stuck):
    assert fail(engine, stuck, release=False) == Released()
    assert read_one(engine, "op-1")["status"] == "failed"
    assert reservation(engine)["releasedAt"] is None
    assert held_ports(engine) == [25565, 25566, 25567]


@pytest.mark.parametrize("lifecycle", ["active", "suspended", "deleting", "a new word"])
def test_a_container_of_that_vmid_keeps_what_it_may_be_using(engine, stuck, lifecycle):
    container(engine, lifecycle=lifecycle)
    assert fail(engine, stuck) == Released()
    assert read_one(engine, "op-1")["status"] == "failed"
    assert reservation(engine)["releasedAt"] is None
    assert held_ports(engine) == [25565, 25566, 25567]


def test_a_container_that_is_still_being_provisioned_keeps_nothing(engine, stuck):
    container(engine, lifecycle="provisioning")
    container(engine, 5001)
    assert fail(engine, stuck) == Released(5000, (25565, 25566))


def test_a_vmid_reserved_for_another_operation_keeps_its_ports(engine, stuck):
    with engine.begin() as connection:
        connection.execute(sa.update(vmid_reservation).values(operationId="op-2"))
    assert fail(engine, stuck) == Released()
    assert reservation(engine)["releasedAt"] is None
    assert held_ports(engine) == [25565, 25566, 25567]


def test_without_a_reservation_the_ports_are_given_back(engine, stuck):
    with engine.begin() as connection:
        connection.execute(sa.delete(vmid_reservation))
    assert fail(engine, stuck) == Released(None, (25565, 25566))


def test_a_reservation_that_was_released_before_keeps_its_time(engine, stuck):
    with engine.begin() as connection:
        connection.execute(sa.update(vmid_reservation).values(releasedAt=NOW))
    assert fail(engine, stuck) == Released(None, (25565, 25566))
    assert reservation(engine)["releasedAt"] == NOW


def test_an_operation_without_a_vmid_has_nothing_to_give_back(engine, stuck):
    operation(engine, "op-2", vmid=None)
    assert fail(engine, read_one(engine, "op-2")) == Released()
    assert held_ports(engine) == [25565, 25566, 25567]


def test_an_operation_for_which_another_vmid_is_reserved_is_not_failed(engine, stuck):
    reserve(engine, vmid=5900)
    before = everything(engine)
    assert fail(engine, stuck) is None
    assert everything(engine) == before


def test_an_operation_that_moved_gives_nothing_back(engine, stuck):
    assert fail(engine, {**stuck, "updatedAt": iso(NOW)}) is None
    assert reservation(engine)["releasedAt"] is None
    assert held_ports(engine) == [25565, 25566, 25567]


def test_when_giving_back_fails_the_operation_is_not_failed_either(engine, stuck):
    with engine.begin() as connection:
        quoted = engine.dialect.identifier_preparer.quote("PortPool")
        connection.execute(sa.text(f"DROP TABLE {quoted}"))
    with pytest.raises(DatabaseError, match="PortPool"):
        fail(engine, stuck)
    assert read_one(engine, "op-1")["status"] == "queued"
    with engine.connect() as connection:
        found = connection.execute(sa.select(vmid_reservation.c.releasedAt)).scalar_one()
    assert found is None


def test_what_was_released_is_a_value():
    assert dataclasses.is_dataclass(Released)
    with pytest.raises(dataclasses.FrozenInstanceError):
        Released().vmid = 1
