"""Taking a snapshot: a failure is an outcome with a reason, never an empty list."""

import json
import threading
from datetime import datetime, timedelta, timezone

import pytest
import sqlalchemy as sa

from tests.queues import PROVISIONING, put_job
from zlh_dagster.core.judge import INVALID
from zlh_dagster.core.model import RECORD_COLUMNS, Surface, rows_of
from zlh_dagster.core.policy import SOURCES
from zlh_dagster.core.snapshot import Outcome
from zlh_dagster.resources.http import EdgeError
from zlh_dagster.resources.observe import (
    SOURCE_OF,
    derive_desired,
    observe_agents,
    observe_all,
    observe_containers,
    observe_operations,
    observe_payloads,
    observe_surface,
)
from zlh_dagster.resources.snapshots import SnapshotMissing
from zlh_dagster.resources.ticks import load_tick
from zlh_dagster.sandbox.platform_rows import change_server, write_operation
from zlh_dagster.schema.tables import container_instance


@pytest.fixture
def services(platform):
    return platform.services()


@pytest.mark.parametrize("surface", list(Surface))
def test_a_surface_that_answers_is_observed(services, surface):
    taken = observe_surface(services, surface, "tick")
    assert taken.outcome is Outcome.OBSERVED
    assert (taken.source, taken.tick, taken.reason) == (SOURCE_OF[surface], "tick", "")
    assert len(taken.rows) > 0
    assert taken.requests == 1
    assert 0 < taken.seconds < 5
    assert abs(datetime.now(timezone.utc) - taken.taken_at) < timedelta(seconds=5)


def test_all_sources_are_read_at_the_same_time(services, monkeypatch):
    """Each waits, inside its read, until all the others are in theirs."""
    together = threading.Barrier(len(Surface) + 3)

    def meeting(read):
        def meets(*arguments, **options):
            together.wait(timeout=20)
            return read(*arguments, **options)

        return meets

    for client in services.surfaces.values():
        monkeypatch.setattr(client, "list_records", meeting(client.list_records))
    proxmox = services.proxmox
    monkeypatch.setattr(proxmox, "list_containers", meeting(proxmox.list_containers))
    monkeypatch.setattr(services, "count_operations", meeting(services.count_operations))
    monkeypatch.setattr(services, "read_payloads", meeting(services.read_payloads))
    tick = observe_all(services, "tick")
    assert tick.unobserved == {}
    assert not together.broken


@pytest.mark.parametrize("surface", list(Surface))
def test_a_surface_that_fails_is_unobserved_with_the_reason_and_without_rows(
    services, sandbox, no_pauses, surface
):
    sandbox.edge.faults.switch_on(surface.value, "status", code=503)
    taken = observe_surface(services, surface, "tick")
    assert taken.outcome is Outcome.UNOBSERVED
    assert taken.reason == f"{surface.value}: HTTP 503"
    assert taken.rows.empty
    assert dict(taken.rows.dtypes.astype(str)) == RECORD_COLUMNS
    assert taken.requests == 3


def test_a_failure_without_words_is_still_a_failure(services, monkeypatch):
    """An empty message must not make an outage look like an empty zone."""

    def fails():
        raise EdgeError

    monkeypatch.setattr(services.surfaces[Surface.CLOUDFLARE], "list_records", fails)
    taken = observe_surface(services, Surface.CLOUDFLARE, "tick")
    assert taken.outcome is Outcome.UNOBSERVED
    assert taken.reason


@pytest.mark.parametrize(
    ("surface", "names"),
    [
        (Surface.CLOUDFLARE, ["CLOUDFLARE_API_TOKEN", "CLOUDFLARE_ZONE_ID"]),
        (Surface.TECHNITIUM, ["TECHNITIUM_API_URL", "TECHNITIUM_API_TOKEN"]),
        (Surface.VELOCITY, ["VELOCITY_URL", "ZPACK_SECRET"]),
    ],
)
def test_a_surface_that_is_not_configured_is_off_and_not_called(platform, surface, names):
    services = platform.services(**dict.fromkeys(names))
    taken = observe_surface(services, surface, "tick")
    assert taken.outcome is Outcome.OFF
    assert taken.reason == f"{surface.value} is not configured"
    assert platform.sandbox.edge.journal.entries() == []


def test_payloads_and_what_follows_from_them(services):
    payloads = observe_payloads(services, "tick")
    assert payloads.outcome is Outcome.OBSERVED
    assert len(payloads.rows) == 9
    desired = derive_desired(services, payloads)
    assert (desired.outcome, desired.tick) == (Outcome.OBSERVED, "tick")
    assert desired.taken_at == payloads.taken_at
    assert len(desired.rows) == 8 * 4 + 7
    assert json.loads(desired.extra[INVALID]) == []


def test_unusable_rows_travel_with_the_desired_records(services, platform):
    with platform.engine.begin() as connection:
        columns = container_instance.c
        change = sa.update(container_instance).where(columns.vmid == 5001)
        connection.execute(change.values(hostname="@everyone"))
    desired = derive_desired(services, observe_payloads(services, "tick"))
    [row] = json.loads(desired.extra[INVALID])
    assert row["vmid"] == 5001
    assert row["reason"].startswith("hostname: '@everyone'")


def test_a_database_that_fails_makes_payloads_and_desired_unobserved(services, platform):
    with platform.engine.begin() as connection:
        connection.exec_driver_sql('DROP TABLE "ContainerInstance"')
    payloads = observe_payloads(services, "tick")
    assert payloads.outcome is Outcome.UNOBSERVED
    assert "ContainerInstance" in payloads.reason
    assert payloads.rows.empty
    desired = derive_desired(services, payloads)
    assert (desired.outcome, desired.reason) == (Outcome.UNOBSERVED, payloads.reason)
    assert desired.rows.empty


def test_a_tick_is_read_back_whole_or_not_at_all(services, operations):
    tick = observe_all(services, "tick")
    for snapshot in tick.snapshots[:-1]:
        services.snapshots.write(snapshot)
        with pytest.raises(SnapshotMissing):
            load_tick(services.snapshots, "tick")
    services.snapshots.write(tick.snapshots[-1])
    read = load_tick(services.snapshots, "tick")
    assert [s.source for s in read.snapshots] == [s.source for s in tick.snapshots]
    assert {s.source for s in read.sources} == set(SOURCES)
    assert read.unobserved == {}
    assert set(read.surfaces) == set(Surface)
    assert len(read.operations.rows) == 1


# --- beside the edge -----------------------------------------------------------------------------


@pytest.fixture
def operations(services, platform):
    """A create operation whose job waits in the queue."""
    put_job(services.redis, PROVISIONING, "12", "wait")
    return write_operation(platform.engine, vmid=5900, queue=PROVISIONING, jobId="12")


def test_containers_agents_and_operations_that_answer_are_observed(services, operations):
    payloads = observe_payloads(services, "tick")
    containers = observe_containers(services, "tick")
    agents = observe_agents(services, payloads)
    open_operations = observe_operations(services, "tick")
    for taken in (containers, agents, open_operations):
        assert (taken.outcome, taken.tick, taken.reason) == (Outcome.OBSERVED, "tick", "")
    assert set(containers.rows["status"]) == {"running"}
    assert set(agents.rows["answer"]) == {"healthy"}
    assert len(agents.rows) == agents.requests == 9
    [row] = rows_of(open_operations.rows)
    assert (row["id"], row["job"], row["deadReads"]) == (operations, "waiting", 0)


def test_without_proxmox_neither_containers_nor_agents_are_asked(platform):
    """A silent agent in a container that may be stopped says nothing."""
    names = [n for n in platform.sandbox.environment() if n.startswith("PROXMOX")]
    services = platform.services(**dict.fromkeys(names))
    payloads = observe_payloads(services, "tick")
    assert observe_containers(services, "tick").outcome is Outcome.OFF
    assert observe_agents(services, payloads).outcome is Outcome.OFF
    assert platform.sandbox.edge.journal.entries() == []


@pytest.mark.parametrize("error", [UnicodeEncodeError("ascii", "ü", 0, 1, "x"), OSError("x")])
def test_a_client_that_cannot_be_made_costs_its_own_source(services, monkeypatch, error):
    def fails(**_):
        raise error

    monkeypatch.setattr("zlh_dagster.resources.services.Proxmox", fails)
    tick = observe_all(services, "tick")
    assert set(tick.unobserved) == {"containers"}
    assert type(error).__name__ in tick.containers.reason
    assert tick.containers.requests == 0


def test_without_the_platforms_rows_no_agent_is_asked(services, platform):
    with platform.engine.begin() as connection:
        connection.exec_driver_sql('DROP TABLE "ContainerInstance"')
    taken = observe_agents(services, observe_payloads(services, "tick"))
    assert taken.outcome is Outcome.UNOBSERVED
    assert "ContainerInstance" in taken.reason
    assert platform.sandbox.edge.journal.entries() == []


@pytest.mark.parametrize(("lifecycle", "asked"), [("deleting", False), ("suspended", True)])
def test_agents_of_servers_that_should_not_be_up_are_not_asked(
    services, platform, lifecycle, asked
):
    change_server(platform.engine, 5001, lifecycle=lifecycle)
    taken = observe_agents(services, observe_payloads(services, "tick"))
    assert (5001 in set(taken.rows["vmid"])) is asked


def test_queues_that_are_not_there_are_unobserved_and_no_job_is_dead(services, platform):
    write_operation(platform.engine, vmid=5900, jobId="12")
    taken = observe_operations(services, "tick")
    assert taken.outcome is Outcome.UNOBSERVED
    assert "no queue" in taken.reason
    assert taken.rows.empty


def test_without_the_platforms_redis_the_reason_names_the_setting(platform, monkeypatch):
    """Not a wrong prefix and no lost data: somebody has to set it."""
    services = platform.services()
    write_operation(platform.engine, vmid=5900, jobId="12")
    assert services.redis.ping()  # this one stands for the embedded one, which has no queues
    monkeypatch.setattr(services.settings, "zlh_redis_url", None)
    taken = observe_operations(services, "tick")
    assert taken.outcome is Outcome.UNOBSERVED
    assert "ZLH_REDIS_URL is not set" in taken.reason
    assert "prefix" not in taken.reason


def test_redis_gone_makes_operations_unobserved(platform):
    services = platform.services(ZLH_REDIS_URL="unix:///nonexistent/redis.sock")
    write_operation(platform.engine, vmid=5900, jobId="12")
    taken = observe_operations(services, "tick")
    assert taken.outcome is Outcome.UNOBSERVED
    assert "Redis cannot be reached" in taken.reason


def test_only_a_tick_counts_a_read_of_a_dead_job(services, platform):
    """Whoever only looks, as a plan does, must not bring the next repair nearer."""
    put_job(services.redis, PROVISIONING, "12", "gone")
    write_operation(platform.engine, vmid=5900, queue=PROVISIONING, jobId="12")
    reads = [
        int(observe_operations(services, "tick", count=count).rows["deadReads"].iloc[0])
        for count in (False, True, False, False, True)
    ]
    assert reads == [0, 1, 1, 1, 2]


# --- rate limits ---------------------------------------------------------------------------------


def test_a_rate_limited_surface_is_not_asked_again_before_its_time(services, sandbox, no_pauses):
    """Every further call would make Cloudflare's limit last longer."""
    sandbox.edge.faults.switch_on("cloudflare", "status", code=429, retry_after=300)
    first = observe_surface(services, Surface.CLOUDFLARE, "tick")
    assert first.outcome is Outcome.UNOBSERVED
    calls = len(sandbox.edge.journal.entries())
    again = observe_surface(services, Surface.CLOUDFLARE, "tick")
    assert again.outcome is Outcome.UNOBSERVED
    assert "not asked again before" in again.reason
    assert len(sandbox.edge.journal.entries()) == calls
    assert again.rows.empty
    other = observe_surface(services, Surface.TECHNITIUM, "tick")
    assert other.outcome is Outcome.OBSERVED
