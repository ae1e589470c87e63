"""What should be true, read from each kind of database; one broken row costs only itself."""

import json
from datetime import datetime, timedelta, timezone
from types import MappingProxyType

import pytest
import sqlalchemy as sa

from zlh_dagster.core.desired import EdgeConfig, desired_edge
from zlh_dagster.core.guards import changed_refusal, row_of
from zlh_dagster.resources.database import (
    PAYLOAD_COLUMNS,
    DatabaseError,
    connect,
    read_payloads,
)
from zlh_dagster.sandbox.fleet import write_fleet
from zlh_dagster.sandbox.platform_rows import change_server
from zlh_dagster.schema.tables import UtcDateTime, container_instance, repair_event

EDGE = EdgeConfig(zone="example.gg", cloudflare_ip="203.0.113.10")
NOW = datetime(2030, 1, 2, 3, 4, 5, 678_901, tzinfo=timezone.utc)
ROW = MappingProxyType(
    {
        "ctype": "game",
        "ip": "10.60.0.1",
        "allocatedPorts": {"game": [25565]},
        "payload": {"game": "minecraft"},
        "lifecycle": "active",
        "billingStatus": "active",
        "maintenanceReason": None,
        "createdAt": NOW,
        "updatedAt": NOW,
    }
)


def write(engine, *rows: dict) -> None:
    with engine.begin() as connection:
        for n, row in enumerate(rows):
            given = {**ROW, "vmid": 5000 + n, "hostname": f"mc-{5000 + n}", **row}
            connection.execute(sa.insert(container_instance).values(given))


def spoil(engine, vmid: int, text: str) -> None:
    """Puts text that is no JSON into one row's payload, as another program could."""
    with engine.begin() as connection:
        if engine.dialect.name == "postgresql":
            # A JSON column would refuse it; an API may keep its payloads in a text column.
            alter = 'ALTER TABLE "ContainerInstance" ALTER COLUMN payload TYPE text'
            connection.execute(sa.text(alter))
        if engine.dialect.name in ("mysql", "mariadb"):
            connection.execute(sa.text("SET check_constraint_checks = 0"))
        table = engine.dialect.identifier_preparer.quote("ContainerInstance")
        statement = sa.text(f"UPDATE {table} SET payload = :text WHERE vmid = :vmid")
        connection.execute(statement, {"text": text, "vmid": vmid})
        if engine.dialect.name in ("mysql", "mariadb"):
            connection.execute(sa.text("SET check_constraint_checks = 1"))


def test_a_fleet_is_read_in_vmid_order_with_its_json_as_text(engine):
    write_fleet(engine, servers=8)
    frame = read_payloads(engine)
    assert list(frame.columns) == list(PAYLOAD_COLUMNS)
    assert list(frame["vmid"]) == [*range(5000, 5008), 6000]
    row = frame.to_dict("records")[0]
    assert json.loads(row["payload"])["game"] == "minecraft"
    assert json.loads(row["allocatedPorts"]) == {"game": [25565]}
    assert row["maintenanceReason"] is None
    assert len(desired_edge(frame, EDGE).records) == 16


def test_one_server_can_be_asked_for(engine):
    write_fleet(engine, servers=8)
    assert list(read_payloads(engine, [5003, 5001, 1]).loc[:, "vmid"]) == [5001, 5003]
    assert read_payloads(engine, []).empty


def test_the_row_of_a_server_is_the_same_alone_and_among_others(engine):
    """Before each write the row is compared with what was read of the whole fleet."""
    write_fleet(engine, servers=3)
    change_server(
        engine,
        5001,
        ip=None,
        allocatedPorts=None,
        payload=None,
        lastBackupAt=None,
        backupEveryHours=None,
        maintenanceReason="x",
    )
    fleet = read_payloads(engine)
    for vmid in fleet["vmid"]:
        among, alone = row_of(fleet, vmid), row_of(read_payloads(engine, [vmid]), vmid)
        assert among == alone
        assert changed_refusal(among, alone) is None
    assert row_of(fleet, 5001)["backupEveryHours"] is None
    assert row_of(fleet, 5002)["backupEveryHours"] == 24


def test_an_empty_platform_is_a_frame_without_rows(engine):
    frame = read_payloads(engine)
    assert frame.empty
    assert list(frame.columns) == list(PAYLOAD_COLUMNS)


@pytest.mark.parametrize("text", ["", '{"game": "minecraft"'])
def test_broken_json_in_one_row_costs_only_that_row(engine, text):
    write(engine, {}, {}, {})
    spoil(engine, 5001, text)
    made = desired_edge(read_payloads(engine), EDGE)
    assert set(made.records["vmid"]) == {5000, 5002}
    assert list(made.invalid["vmid"]) == [5001]
    assert made.invalid["reason"][0].startswith("payload: ")


def test_null_in_either_of_its_spellings_is_null_or_refused(engine):
    """A JSON column can hold SQL's null and JSON's; neither is a payload."""
    write(engine, {"payload": sa.null(), "allocatedPorts": sa.null()}, {"payload": None}, {})
    made = desired_edge(read_payloads(engine), EDGE)
    assert set(made.records["vmid"]) == {5002}
    assert list(made.invalid["vmid"]) == [5000, 5001]


def test_text_beyond_ascii_is_read_as_it_was_written(engine):
    reason = "Platte getauscht – 日本 💥"
    write(engine, {"maintenanceReason": reason, "payload": {"game": "rust", "motd": "ü💥"}})
    row = read_payloads(engine).to_dict("records")[0]
    assert row["maintenanceReason"] == reason
    assert json.loads(row["payload"])["motd"] == "ü💥"


def test_a_missing_table_is_told_and_is_not_an_empty_platform(empty_engine):
    with pytest.raises(DatabaseError, match=r"^platform database: .*ContainerInstance"):
        read_payloads(empty_engine)


def test_a_read_sees_what_was_written_a_moment_ago(engine):
    """Guards are read again within one run: nothing may stand in a cache or an old transaction."""
    write(engine, {})
    assert read_payloads(engine)["lifecycle"][0] == "active"
    with engine.begin() as connection:
        connection.execute(sa.update(container_instance).values(lifecycle="suspended"))
    assert read_payloads(engine)["lifecycle"][0] == "suspended"


# --- timestamps ----------------------------------------------------------------------------------


def test_timestamps_come_back_aware_in_utc_to_the_microsecond(engine):
    east = timezone(timedelta(hours=9, minutes=30))
    for moment in (NOW, NOW.astimezone(east)):
        with engine.begin() as connection:
            connection.execute(sa.delete(container_instance))
        write(engine, {"createdAt": moment, "lastBackupAt": None})
        with engine.connect() as connection:
            columns = container_instance.c
            created, backup = connection.execute(
                sa.select(columns.createdAt, columns.lastBackupAt)
            ).one()
        assert (created, created.tzinfo, backup) == (NOW, timezone.utc, None)


def test_timestamps_compare_in_the_database(engine):
    write(engine, {"createdAt": NOW})
    query = sa.select(sa.func.count()).select_from(container_instance)
    with engine.connect() as connection:
        for edge, found in ((NOW, 1), (NOW + timedelta(microseconds=1), 0)):
            where = container_instance.c.createdAt >= edge
            assert connection.execute(query.where(where)).scalar_one() == found


def test_a_timestamp_without_a_zone_is_refused():
    with pytest.raises(ValueError, match="has no time zone"):
        UtcDateTime().process_bind_param(datetime(2030, 1, 1), None)


# --- connecting ----------------------------------------------------------------------------------


@pytest.mark.parametrize("url", ["", "nonsense", "postgresql", "://", "oracle://x/y", "x+y://z"])
def test_a_url_that_leads_nowhere_names_the_setting(url):
    with pytest.raises(DatabaseError, match="ZLH_DATABASE_URL"):
        connect(url)


def test_a_driver_that_is_absent_names_the_setting_and_no_password():
    with pytest.raises(DatabaseError, match="ZLH_DATABASE_URL: postgresql") as failed:
        connect("postgresql+pg8000://zlh:hunter22@db/zlh")
    assert "hunter22" not in str(failed.value)


def test_the_directory_of_a_sqlite_file_is_made_for_its_owner_alone(tmp_path):
    engine = connect(f"sqlite:///{tmp_path}/a/b/platform.db", create=True)
    with engine.connect():
        pass
    engine.dispose()
    assert (tmp_path / "a/b").stat().st_mode & 0o077 == 0


def test_who_only_looks_makes_no_sqlite_file(tmp_path):
    """An empty file would afterwards pass for a database that is there."""
    engine = connect(f"sqlite:///{tmp_path}/a/platform.db")
    with pytest.raises(sa.exc.OperationalError, match=f"no file at {tmp_path}/a/platform.db"):
        engine.connect()
    with pytest.raises(DatabaseError, match="no file at"):
        read_payloads(engine)
    assert list(tmp_path.iterdir()) == []


def test_a_directory_that_cannot_be_made_is_told(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(DatabaseError, match="cannot be made for the database"):
        connect(f"sqlite:///{tmp_path}/file/x/platform.db", create=True)


def test_a_locked_sqlite_file_is_waited_for_a_few_seconds_and_no_longer(tmp_path, monkeypatch):
    monkeypatch.setattr("zlh_dagster.resources.database._BUSY_SECONDS", 0.2)
    url = f"sqlite:///{tmp_path}/platform.db"
    first, second = connect(url, create=True), connect(url)
    repair_event.create(first)
    with first.begin() as connection:
        connection.exec_driver_sql('DELETE FROM "RepairEvent"')
        with pytest.raises(sa.exc.OperationalError, match="locked"), second.begin() as other:
            other.exec_driver_sql('DELETE FROM "RepairEvent"')
    for engine in (first, second):
        engine.dispose()


def test_a_server_that_hangs_up_between_two_reads_is_noticed(engine):
    """A pooled connection that the server closed must not cost a tick."""
    write(engine, {})
    assert len(read_payloads(engine)) == 1
    if engine.dialect.name == "sqlite":
        return
    admin = connect(engine.url.render_as_string(hide_password=False))
    with admin.connect() as connection:
        if engine.dialect.name == "postgresql":
            kill = "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE datname ="
            kill += " current_database() AND pid <> pg_backend_pid()"
            connection.execute(sa.text(kill))
        else:
            mine = connection.execute(sa.text("SELECT CONNECTION_ID()")).scalar_one()
            for row in connection.execute(sa.text("SHOW PROCESSLIST")).all():
                if row[0] != mine and row[3] == engine.url.database:
                    connection.execute(sa.text(f"KILL {row[0]}"))
    admin.dispose()
    assert len(read_payloads(engine)) == 1
