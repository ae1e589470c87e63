"""The commands of docs/deployment.md that a restore hangs on."""

import os
import re
import subprocess

import sqlalchemy as sa

from tests.docs.pages import ROOT
from tests.resources.databases import empty_database, postgresql
from zlh_dagster.resources import database
from zlh_dagster.resources.ledger import Entry, Ledger
from zlh_dagster.schema.upgrade import current, head, upgrade


def test_what_the_page_dumps_is_what_an_upgrade_needs(tmp_path):
    """Put back, over tables that were lost or into an empty database, it is as it was."""
    page = (ROOT / "docs/deployment.md").read_text()
    [script] = re.findall(r"```sh\n(pg_dump.*?)```", page, re.S)
    dump, restore = script.replace("\\\n", " ").strip().splitlines()
    with postgresql() as server, empty_database(server) as url, empty_database(server) as other:
        engine, second = database.connect(url), database.connect(other)
        upgrade(engine)
        entry = Entry("dns_republish", 1, "kept", "operator", "r", 1)
        Ledger(engine).open(entry)
        with engine.connect() as connection:
            found = connection.exec_driver_sql("SELECT setting FROM pg_config WHERE name='BINDIR'")
            programs = found.scalar_one()

        def run(command: str, place: str) -> None:
            path = f"{programs}:{os.environ['PATH']}"
            given = {"PATH": path, "DATABASE": place}
            subprocess.run(["sh", "-c", command], cwd=tmp_path, env=given, check=True)

        run(dump, url)
        with engine.begin() as connection:
            connection.execute(sa.text('DROP TABLE "RepairPause"'))
            connection.execute(sa.text('DELETE FROM "RepairEvent"'))
        for place, restored in ((url, engine), (other, second)):
            run(restore, place)
            assert current(restored) == upgrade(restored) == head()
            assert [event["reason"] for event in Ledger(restored).events()] == ["kept"]
            restored.dispose()
