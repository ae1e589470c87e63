"""The tables that this project owns, on each kind of database."""

import pytest
import sqlalchemy as sa
from alembic import command
from alembic.autogenerate import compare_metadata
from alembic.migration import MigrationContext

from zlh_dagster.resources.ledger import Entry, Ledger
from zlh_dagster.sandbox.fleet import create_platform_tables
from zlh_dagster.schema import upgrade as upgrade_module
from zlh_dagster.schema.tables import own_metadata, platform_metadata
from zlh_dagster.schema.upgrade import VERSION_TABLE, NotUpgraded, current, head, upgrade

OWN = {"RepairEvent", "RepairPause", "DailyFigure", VERSION_TABLE}


def tables(engine) -> set[str]:
    return set(sa.inspect(engine).get_table_names())


def indexes(engine) -> dict[str, list]:
    found = sa.inspect(engine).get_indexes("RepairEvent")
    return {index["name"]: index["column_names"] for index in found}


def differences(engine) -> list:
    """What Alembic would change in a migrated database to reach the definition."""

    def own(name, kind, parent):
        return kind != "table" or name in own_metadata.tables

    with engine.connect() as connection:
        context = MigrationContext.configure(
            connection,
            opts={
                "version_table": VERSION_TABLE,
                "compare_type": True,
                "compare_server_default": True,
                "include_name": own,
            },
        )
        return compare_metadata(context, own_metadata)


def downgrade(engine) -> None:
    config = upgrade_module._config()
    with engine.begin() as connection:
        config.attributes["connection"] = connection
        command.downgrade(config, "base")


def test_an_empty_database_is_brought_to_the_newest_revision(empty_engine):
    assert current(empty_engine) is None
    assert upgrade(empty_engine) == current(empty_engine) == head() != "none"
    assert tables(empty_engine) == OWN


def test_upgrading_again_changes_nothing(empty_engine):
    upgrade(empty_engine)
    before = indexes(empty_engine)
    assert upgrade(empty_engine) == head()
    assert tables(empty_engine) == OWN
    assert indexes(empty_engine) == before


@pytest.mark.parametrize("lost", [f"DROP TABLE {VERSION_TABLE}", f"DELETE FROM {VERSION_TABLE}"])
def test_tables_without_their_revision_are_left_alone(empty_engine, lost):
    """A dump without it was put back."""
    upgrade(empty_engine)
    with empty_engine.begin() as connection:
        connection.execute(sa.text(lost))
    before = tables(empty_engine)
    with pytest.raises(NotUpgraded, match=f"RepairEvent, RepairPause: .*{VERSION_TABLE}"):
        upgrade(empty_engine)
    assert tables(empty_engine) == before


def test_the_migrated_tables_are_the_defined_ones(empty_engine):
    upgrade(empty_engine)
    assert differences(empty_engine) == []


def test_the_comparison_notices_a_difference(empty_engine):
    """Or the test above would prove nothing."""
    upgrade(empty_engine)
    table = empty_engine.dialect.identifier_preparer.quote("RepairEvent")
    with empty_engine.begin() as connection:
        connection.execute(sa.text(f"ALTER TABLE {table} ADD COLUMN extra INTEGER"))
    assert differences(empty_engine) != []


def test_what_is_asked_for_at_every_repair_is_indexed(empty_engine):
    upgrade(empty_engine)
    assert indexes(empty_engine) == {
        "RepairEvent_vmid_createdAt_idx": ["vmid", "createdAt"],
        "RepairEvent_status_idx": ["status"],
        "RepairEvent_fencingToken_idx": ["fencingToken"],
    }


def test_down_and_up_again(empty_engine):
    create_platform_tables(empty_engine)
    upgrade(empty_engine)
    downgrade(empty_engine)
    assert not set(own_metadata.tables) & tables(empty_engine)
    assert set(platform_metadata.tables) <= tables(empty_engine)
    assert upgrade(empty_engine) == head()
    assert differences(empty_engine) == []


def test_the_platforms_own_tables_are_neither_made_nor_touched(empty_engine):
    upgrade(empty_engine)
    assert not set(platform_metadata.tables) & tables(empty_engine)
    create_platform_tables(empty_engine)
    upgrade(empty_engine)
    assert tables(empty_engine) == OWN | set(platform_metadata.tables)


def test_migrations_of_the_platforms_api_are_not_disturbed(empty_engine):
    """Alembic's usual table may be theirs."""
    name = "alembic_version"
    with empty_engine.begin() as connection:
        connection.execute(sa.text(f"CREATE TABLE {name} (version_num VARCHAR(32))"))
        connection.execute(sa.text(f"INSERT INTO {name} VALUES ('theirs')"))
    upgrade(empty_engine)
    with empty_engine.connect() as connection:
        assert connection.execute(sa.text(f"SELECT * FROM {name}")).all() == [("theirs",)]


def test_the_ledger_takes_any_text_whatever_the_database_is_set_to(empty_engine):
    """A reason may quote what a customer typed; MariaDB's old default takes only latin1."""
    if empty_engine.dialect.name in ("mysql", "mariadb"):
        name = empty_engine.url.database
        with empty_engine.begin() as connection:
            connection.exec_driver_sql(f"ALTER DATABASE {name} CHARACTER SET latin1")
    upgrade(empty_engine)
    entry = Entry(
        action="dns_republish",
        level=1,
        reason="日本 💥",
        requested_by="operator",
        run_id="r",
        fencing_token=1,
        vmid=5000,
    )
    Ledger(empty_engine).open(entry)
    assert [event["reason"] for event in Ledger(empty_engine).events()] == ["日本 💥"]
