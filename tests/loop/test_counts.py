"""What a tick costs, counted: it does not grow with the fleet."""

from collections import Counter

import dagster as dg
import pytest

from tests.harness import Loop, edge_state, writes
from zlh_dagster.jobs.level1_repair import LEVEL1_REPAIR
from zlh_dagster.jobs.observe import OBSERVE
from zlh_dagster.resources import database
from zlh_dagster.sandbox.fleet import create_platform_tables, write_fleet
from zlh_dagster.sandbox.publish import publish_database
from zlh_dagster.schema.upgrade import upgrade

SMALL, SOME, LARGE = 10, 200, 1_000


pytestmark = pytest.mark.usefixtures("through_dagster")


@pytest.fixture
def fleet(platform, instance, tmp_path):
    """A loop over a fleet of so many servers, its edge in step."""

    def make(servers: int) -> Loop:
        url = f"sqlite:///{tmp_path / f'{servers}.db'}"
        engine = database.connect(url, create=True)
        create_platform_tables(engine)
        upgrade(engine)
        write_fleet(engine, servers=servers, loopback=True)
        platform.sandbox.reset()
        publish_database(platform.sandbox.edge, engine)
        engine.dispose()
        # Without the dead man's switch, which is called from the second tick on.
        services = platform.services(ZLH_DATABASE_URL=url, ZLH_HEARTBEAT_URL=None)
        return Loop(services, instance)

    return make


def requests(platform) -> Counter[str]:
    """Calls since the journal was cleared, by surface."""
    return Counter(entry.surface for entry in platform.sandbox.edge.journal.entries())


def runs(instance, job: str) -> int:
    return instance.get_runs_count(dg.RunsFilter(job_name=job))


def test_a_tick_makes_one_listing_a_surface_whatever_the_number_of_servers(platform, fleet):
    counts = {}
    for servers in (SMALL, LARGE):
        loop = fleet(servers)
        platform.sandbox.edge.journal.clear()
        assert loop.minute() == []
        counts[servers] = requests(platform)
        # One question to each agent; a developer's container has one too.
        assert counts[servers].pop("agents") == servers + 1
    assert counts[SMALL] == {"cloudflare": 1, "technitium": 1, "velocity": 1, "proxmox": 1}
    assert counts[LARGE] == counts[SMALL]


def test_a_tick_in_step_is_one_run_and_writes_nothing(platform, fleet, instance):
    loop = fleet(SMALL)
    for _ in range(3):
        assert loop.minute() == []
    assert (runs(instance, OBSERVE), runs(instance, LEVEL1_REPAIR)) == (3, 0)
    assert writes(platform.sandbox) == []
    assert loop.services.ledger.events() == []


def test_a_tick_writes_as_many_events_whatever_the_number_of_servers(fleet):
    """Eight assets with a check each: planned twice, then output, value, output and verdict."""
    counts = {}
    for servers in (SMALL, SOME):
        run = fleet(servers).observe()
        entries = run.all_events
        assert {entry.event_type for entry in entries if entry.is_failure} == set()
        counts[servers] = len(entries)
    assert counts[SMALL] == counts[SOME]
    assert counts[SMALL] <= 45


def test_nothing_but_dagsters_own_events_stands_in_a_ticks_log(fleet, instance):
    run = fleet(SMALL).observe()
    logged = instance.all_logs(run.run_id)
    assert [entry.user_message for entry in logged if not entry.is_dagster_event] == []
    assert len(logged) <= 60


def test_a_tick_of_many_servers_that_drift_is_two_runs(platform, fleet, instance):
    """A Velocity restart: each backend once, proved by one listing a group."""
    loop = fleet(SOME)
    before = edge_state(platform.sandbox)
    backends = len(platform.sandbox.edge.velocity.backends())
    platform.sandbox.edge.velocity.restart()
    platform.sandbox.edge.journal.clear()
    [run] = loop.minute()
    assert run.success
    assert (runs(instance, OBSERVE), runs(instance, LEVEL1_REPAIR)) == (1, 1)
    assert edge_state(platform.sandbox) == before
    assert len(writes(platform.sandbox, "velocity")) == backends
    assert writes(platform.sandbox, "cloudflare", "technitium") == []
    listings = requests(platform)["velocity"] - backends
    # The tick's own, the look before the writing and the proof; the first server is proved alone.
    assert listings <= 4
    assert len(loop.services.ledger.events(limit=2 * backends)) == backends
