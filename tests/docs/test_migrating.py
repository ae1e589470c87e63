"""The views of docs/migrating.md are what it says: enough rights, and not one more."""

import re
from collections.abc import Iterator
from datetime import datetime, timezone
from pathlib import Path

import pytest
import sqlalchemy as sa
from sqlalchemy.exc import ProgrammingError

from tests.resources.databases import empty_database, postgresql
from zlh_dagster.core.desired import EdgeConfig, desired_edge
from zlh_dagster.core.model import rows_of
from zlh_dagster.resources import database, operations
from zlh_dagster.resources.reservations import Released
from zlh_dagster.schema.tables import UtcDateTime, platform_metadata
from zlh_dagster.schema.upgrade import head, upgrade

TYPES = {
    sa.Integer: "int",
    sa.String: "text",
    sa.Text: "text",
    sa.JSON: "JSON",
    UtcDateTime: "time",
}
PAGE = Path(__file__).parents[2] / "docs" / "migrating.md"
THEIRS = """
CREATE TYPE job_state AS ENUM ('queued', 'running', 'succeeded', 'failed', 'stale');
CREATE TABLE servers (id int PRIMARY KEY, owner text, kind text, dns_label text, address text,
  game_port int, game text, for_tests boolean, deleted_at timestamp, unpaid boolean,
  locked_because text, backed_up_at timestamp, backup_hours int, made_at timestamp,
  changed_at timestamp);
CREATE TABLE jobs (id uuid PRIMARY KEY, server_id int, verb text, queue text, queue_job int,
  state job_state, phase text, progress_at timestamp, beat_at timestamp, lease_until timestamp,
  made_at timestamp, changed_at timestamp, done_at timestamp, error json);
CREATE TABLE vmids (vmid int PRIMARY KEY, job_id uuid, taken_at timestamp, given_back_at timestamp);
CREATE TABLE ports (id int PRIMARY KEY, port int, kind text, state text, server_id int,
  made_at timestamp, changed_at timestamp);
INSERT INTO servers VALUES
  (5000, 'c1', 'game', 'mc-5000', '10.1.0.5', 25570, 'minecraft',
   true, NULL, false, NULL, '2030-01-01', 24, '2029-01-01', '2029-01-01'),
  (5001, 'c1', 'game', 'mc-5001', '10.1.0.6', 25565, 'minecraft', false, '2030-01-01', false, NULL,
   NULL, NULL, '2029-01-01', '2029-01-01');
INSERT INTO jobs VALUES ('00000000-0000-4000-8000-000000000001', 5900, 'create', 'provisioning', 7,
  'queued', NULL, NULL, NULL, NULL, '2029-01-01', '2029-01-01', NULL, NULL);
INSERT INTO vmids VALUES (5900, '00000000-0000-4000-8000-000000000001', '2029-01-01', NULL);
INSERT INTO ports VALUES (1, 25601, 'game', 'allocated', 5900, '2029-01-01', '2029-01-01');
"""
OPERATION = "00000000-0000-4000-8000-000000000001"
NOW = datetime(2030, 1, 1, tzinfo=timezone.utc)


@pytest.fixture(scope="module")
def theirs() -> Iterator[sa.Engine]:
    """Their database after the page, as the user that it makes."""
    blocks = re.findall(r"```sql\n(.*?)```", PAGE.read_text(), re.S)
    with postgresql() as server, empty_database(server) as url:
        owner = sa.create_engine(url)
        with owner.begin() as connection:
            for script in (THEIRS, *blocks[1:]):
                connection.exec_driver_sql(script)
        user = sa.make_url(url).set(username="zlh").render_as_string(hide_password=False)
        engine = database.connect(user)
        try:
            yield engine
        finally:
            engine.dispose()
            with owner.begin() as connection:
                connection.exec_driver_sql("DROP OWNED BY zlh; DROP ROLE zlh")
            owner.dispose()


def test_rows_are_read_through_the_views(theirs):
    edge = EdgeConfig(zone="example.gg", cloudflare_ip="203.0.113.1", velocity=True)
    desired = desired_edge(database.read_payloads(theirs), edge)
    assert len(desired.invalid) == 0
    mine = desired.records[desired.records["vmid"] == 5000]
    assert "0 0 25570 mc-5000.example.gg" in mine["content"].tolist()
    assert set(desired.records[desired.records["vmid"] == 5001]["guard"].notna()) == {True}
    assert operations.read_open(theirs)["id"].tolist() == [OPERATION]


def test_its_own_tables_are_made_there_and_rows_can_be_closed(theirs):
    assert upgrade(theirs) == head()
    [row] = rows_of(operations.read_open(theirs))
    released = operations.fail_provisioning(
        theirs, row, error={"code": "x"}, fencing_token=1, now=NOW, release=True
    )
    assert released == Released(5900, (25601,))
    assert operations.read_open(theirs).empty
    closed = operations.read_one(theirs, OPERATION)
    assert (closed["status"], closed["error"]) == ("failed", {"code": "x"})


@pytest.mark.parametrize(
    "statement",
    [
        'UPDATE "ContainerInstance" SET "vmid" = 1',
        'UPDATE "ProvisioningOperation" SET "type" = \'stop\'',
        'DELETE FROM "PortPool"',
        "SELECT * FROM public.servers",
    ],
)
def test_nothing_else_is_allowed(theirs, statement):
    with theirs.connect() as connection, pytest.raises(ProgrammingError, match="permission denied"):
        connection.exec_driver_sql(statement)


def test_the_columns_are_those_that_are_read():
    written = re.findall(r"^\| `(\w+)` \| `(\w+)` \| (\w+) \| (\w+) \|", PAGE.read_text(), re.M)
    assert written == [
        (table.name, column.name, TYPES[type(column.type)], "yes" if column.nullable else "no")
        for table in platform_metadata.tables.values()
        for column in table.columns
    ]


def test_nothing_is_tried_while_everything_is_paused():
    """A repair by hand and a drill are refused then."""
    steps = PAGE.read_text().split("\n## 3. ")[1].split("\n## ")[0]
    pause, resume = steps.index("`zlh pause"), steps.index("`zlh resume`")
    tried = [found.start() for found in re.finditer(r"`zlh (?:repair|drill) ", steps)]
    assert tried
    assert pause < resume < min(tried)
