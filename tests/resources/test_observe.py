"""Taking a snapshot: a failure is an outcome with a reason, never an empty list."""

import json
from datetime import datetime, timedelta, timezone

import pytest
import sqlalchemy as sa

from zlh_dagster.core.judge import INVALID
from zlh_dagster.core.model import RECORD_COLUMNS, Surface
from zlh_dagster.core.snapshot import Outcome
from zlh_dagster.resources.http import EdgeError
from zlh_dagster.resources.observe import (
    SOURCE_OF,
    derive_desired,
    observe_payloads,
    observe_surface,
)
from zlh_dagster.resources.snapshots import SnapshotMissing
from zlh_dagster.resources.ticks import load_tick
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


def test_a_tick_is_read_back_whole_or_not_at_all(services):
    payloads = observe_payloads(services, "tick")
    taken = [payloads, derive_desired(services, payloads)]
    taken += [observe_surface(services, surface, "tick") for surface in Surface]
    for snapshot in taken[:-1]:
        services.snapshots.write(snapshot)
        with pytest.raises(SnapshotMissing):
            load_tick(services.snapshots, "tick")
    services.snapshots.write(taken[-1])
    tick = load_tick(services.snapshots, "tick")
    assert [s.source for s in tick.snapshots] == [s.source for s in taken]
    assert tick.unobserved == {}
    assert set(tick.surfaces) == set(Surface)
