"""Whatever one row, job or entry holds: only the documented errors, and the others as ever."""

import contextlib
import json
from typing import Any

import pyarrow as pa
import pytest
import sqlalchemy as sa
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tests.core.builders import EDGE, container, platform
from zlh_dagster.core.desired import DESIRED_COLUMNS, desired_edge
from zlh_dagster.core.fleet import JobState
from zlh_dagster.core.names import (
    InvalidServer,
    container_address,
    game_of,
    game_port,
    host_label,
    service_of,
)
from zlh_dagster.resources.bullmq import read_jobs
from zlh_dagster.resources.database import PAYLOAD_COLUMNS, connect, read_payloads
from zlh_dagster.resources.operations import read_open
from zlh_dagster.resources.redis import connect as connect_redis
from zlh_dagster.resources.table import RedisTable
from zlh_dagster.sandbox.fleet import create_platform_tables, write_fleet
from zlh_dagster.sandbox.platform_rows import write_operation

many = settings(
    max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
cells = (
    st.none()
    | st.integers(min_value=-(2**63), max_value=2**63 - 1)
    | st.floats(allow_nan=False)
    | st.text(st.characters(exclude_categories=["Cs"]), max_size=20)
    | st.binary(max_size=12)
    | st.sampled_from(["0000-00-00 00:00:00", "9999-12-31 23:59:59-23:59", "soon", "{}", "null"])
)
values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=20),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=8), inner),
    max_leaves=4,
)
COLUMNS = [name for name in PAYLOAD_COLUMNS if name not in ("vmid", "unreadable")]


def loosen(engine, table: str) -> None:
    """The table without types and constraints, as SQLite lets anybody declare it."""
    with engine.begin() as connection:
        names = [row[1] for row in connection.execute(sa.text(f'PRAGMA table_info("{table}")'))]
        listed = ", ".join(f'"{name}"' for name in names)
        for statement in (
            f'ALTER TABLE "{table}" RENAME TO strict',
            f'CREATE TABLE "{table}" ({listed})',
            f'INSERT INTO "{table}" SELECT * FROM strict',
        ):
            connection.execute(sa.text(statement))


@pytest.fixture
def fleet(tmp_path):
    engine = connect(f"sqlite:///{tmp_path / 'p.db'}", create=True)
    create_platform_tables(engine)
    write_fleet(engine, servers=3)
    loosen(engine, "ContainerInstance")
    yield engine
    engine.dispose()


@many
@given(column=st.sampled_from(COLUMNS), cell=cells, as_text=st.booleans())
def test_any_cell_of_a_server_changes_nothing_of_the_others(fleet, column, cell, as_text):
    good = desired_edge(read_payloads(fleet), EDGE).records
    with fleet.begin() as connection:
        kept = sa.text(f'SELECT "{column}" FROM "ContainerInstance" WHERE vmid = 5001')
        before = connection.execute(kept).scalar_one()
    value = "CAST(:cell AS TEXT)" if as_text and isinstance(cell, bytes) else ":cell"
    change = f'UPDATE "ContainerInstance" SET "{column}" = {value} WHERE vmid = 5001'
    try:
        with fleet.begin() as connection:
            connection.execute(sa.text(change), {"cell": cell})
        frame = read_payloads(fleet)
        assert list(frame["vmid"]) == [5000, 5001, 5002, 6000]
        pa.Table.from_pandas(frame)  # what was taken can also be kept
        made = desired_edge(frame, EDGE)
        if not set(made.invalid["vmid"]) - {5001}:
            others = made.records[made.records["vmid"] != 5001].reset_index(drop=True)
            assert others.equals(good[good["vmid"] != 5001].reset_index(drop=True))
    finally:
        with fleet.begin() as connection:
            back = f'UPDATE "ContainerInstance" SET "{column}" = :cell WHERE vmid = 5001'
            connection.execute(sa.text(back), {"cell": before})


@many
@given(column=st.sampled_from(["vmid", "queue", "jobId", "phase", "heartbeatAt"]), cell=cells)
def test_any_cell_of_an_operation_changes_nothing_of_the_others(tmp_path, column, cell):
    engine = connect(f"sqlite:///{tmp_path / 'o.db'}", create=True)
    with engine.begin() as connection:
        for name in sa.inspect(connection).get_table_names():
            connection.execute(sa.text(f'DROP TABLE "{name}"'))
    create_platform_tables(engine)
    for name in ("op-1", "op-2"):
        write_operation(engine, id=name, vmid=5000, jobId="1")
    loosen(engine, "ProvisioningOperation")
    other = read_open(engine).iloc[1].to_dict()
    with engine.begin() as connection:
        change = f'UPDATE "ProvisioningOperation" SET "{column}" = :cell WHERE id = \'op-1\''
        connection.execute(sa.text(change), {"cell": cell})
    frame = read_open(engine)
    engine.dispose()
    assert list(frame["id"]) == ["op-1", "op-2"]
    assert frame.iloc[1].to_dict() == other
    pa.Table.from_pandas(frame)


@many
@given(column=st.sampled_from(["hostname", "payload", "allocatedPorts", "ip"]), value=values)
def test_any_value_in_a_row_is_a_record_or_an_invalid_server(column, value):
    held = value if column in ("hostname", "ip") else json.dumps(value)
    made = desired_edge(platform(container(5000), container(5001, **{column: held})), EDGE)
    assert dict(made.records.dtypes.astype(str)) == DESIRED_COLUMNS
    assert set(made.records["vmid"]) | set(made.invalid["vmid"]) == {5000, 5001}


@many
@given(value=values)
def test_a_parser_of_the_core_gives_its_type_or_says_that_the_server_is_invalid(value):
    for parse, kind in (
        (lambda: host_label(value, "example.gg"), str),
        (lambda: game_of(value), str),
        (lambda: game_port(value, service_of("rust")), int),
        (lambda: container_address(value), str),
    ):
        with contextlib.suppress(InvalidServer):
            assert isinstance(parse(), kind)


def put(client: Any, kind: str, key: str) -> None:
    {
        "string": lambda: client.set(key, b"\xff"),
        "hash": lambda: client.hset(key, b"\xff", b"\xff"),
        "list": lambda: client.lpush(key, b"\xff"),
        "set": lambda: client.sadd(key, b"\xff"),
        "zset": lambda: client.zadd(key, {b"\xff": 1}),
    }[kind]()


names = st.text(st.characters(exclude_categories=["Cs"]), max_size=12)


@many
@given(
    job=names | st.sampled_from(["wait", "id", "meta", "2:lock", "active"]),
    queue=names | st.just("provisioning"),
    kind=st.sampled_from(["string", "hash", "list", "set", "zset"]),
)
def test_any_job_of_any_queue_changes_nothing_of_the_others(redis_url, job, queue, kind):
    with connect_redis(redis_url) as client:
        client.flushall()
        client.set("bull:provisioning:id", 1)
        client.hset("bull:provisioning:good", "name", "x")
        client.lpush("bull:provisioning:wait", "good")
        key = f"bull:{queue}:{job}"
        if not client.exists(key) and job not in ("active", "wait"):
            put(client, kind, key)
        asked = [("provisioning", "good"), (queue, job)]
        found = read_jobs(client, prefix="bull", jobs=asked)
    assert set(found.states) == set(asked)
    assert found.states[asked[0]] is JobState.WAITING
    assert set(found.unclear) <= {asked[1]}


@many
@given(text=st.text(st.characters(exclude_categories=["Cs"]), max_size=30) | values.map(json.dumps))
def test_any_text_in_a_table_is_an_object_and_changes_no_other_entry(redis_url, text):
    with connect_redis(redis_url) as client:
        client.flushall()
        table = RedisTable(client, "zlh:some", "some")
        table.put("good", {"a": 1})
        client.hset("zlh:some", "bad", text)
        entries = table.all()
        assert entries["good"] == {"a": 1}
        assert isinstance(entries["bad"], dict)
        assert repr(table.get("bad")) == repr(entries["bad"])
