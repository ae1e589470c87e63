"""The sensor waits for a tick that is near, and for no other."""

from types import SimpleNamespace

import dagster as dg
import pytest

from zlh_dagster.jobs.observe import OBSERVE
from zlh_dagster.sensors import drift


@pytest.fixture
def patient(loop, monkeypatch):
    monkeypatch.setattr(drift, "WAIT_SECONDS", 60.0)
    monkeypatch.setattr(drift, "_PAUSE", 0.0)
    return loop


def test_a_tick_that_ends_meanwhile_is_judged_in_the_same_look(patient, monkeypatch):
    looks = []

    def meanwhile(instance):
        looks.append(instance)
        if len(looks) == 3:
            patient.observe()
        return True

    monkeypatch.setattr(drift, "_tick_is_near", meanwhile)
    patient.judge()
    assert len(looks) == 3
    assert "records compared" in patient.skips[-1]


def test_without_a_tick_that_is_near_nothing_is_waited_for(patient, monkeypatch):
    monkeypatch.setattr(drift, "_tick_is_near", lambda instance: False)
    patient.judge()
    assert patient.skips == ["no tick is complete yet"]
    patient.observe()
    patient.judge()
    patient.judge()
    assert "was judged already" in patient.skips[-1]


def test_a_tick_that_does_not_end_is_left_to_a_later_look(loop, monkeypatch):
    monkeypatch.setattr(drift, "_tick_is_near", lambda instance: True)
    monkeypatch.setattr(drift, "WAIT_SECONDS", 0.05)
    monkeypatch.setattr(drift, "_PAUSE", 0.01)
    loop.judge()
    assert loop.skips == ["no tick is complete yet"]


@pytest.mark.parametrize(
    ("second", "near"), [(0.5, True), (2.5, False), (30.0, False), (53.5, False), (54.5, True)]
)
def test_a_tick_is_near_before_the_full_minute_and_just_after_it(
    instance, monkeypatch, second, near
):
    monkeypatch.setattr(drift, "time", SimpleNamespace(time=lambda: 1_800_000_000 + second))
    assert drift._tick_is_near(instance) is near


@pytest.mark.parametrize(
    ("status", "near"), [("STARTING", True), ("STARTED", True), ("SUCCESS", False)]
)
def test_a_tick_is_near_while_it_is_under_way(loop, instance, monkeypatch, status, near):
    monkeypatch.setattr(drift, "time", SimpleNamespace(time=lambda: 1_800_000_030.0))
    job = loop.definitions.resolve_job_def(OBSERVE)
    instance.create_run_for_job(job, status=dg.DagsterRunStatus(status))
    assert drift._tick_is_near(instance) is near


def test_one_look_with_its_wait_leaves_the_lead_alive(platform):
    """The lead is renewed once a look, and lives for half a minute at the least."""
    shortest = platform.settings(ZLH_LEASE_SECONDS="30").zlh_lease_seconds
    assert shortest > drift.WAIT_SECONDS + 2 * drift.LOOK_SECONDS
