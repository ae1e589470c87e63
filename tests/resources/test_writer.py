"""How writes to one surface are cut into calls, and how many of them go at the same time."""

import threading
import time

import pytest

from tests.resources.clients import CF, TN, VE, missing
from zlh_dagster.core.changes import Plan
from zlh_dagster.core.holds import EVERYTHING, Pause
from zlh_dagster.core.policy import Action
from zlh_dagster.core.repair import RepairRequest
from zlh_dagster.resources.http import Rejected
from zlh_dagster.resources.lease import acquire
from zlh_dagster.resources.writer import FEW, EdgeWriter, OpenRepair

MOST_IN_A_BATCH = 200
"""Cloudflare's own limit on its free plan."""


def repairs(surface, count, first=6000):
    """So many repairs of one record each."""
    type_, content, zone = ("A", "203.0.113.10", ".example.gg")
    if surface is VE:
        type_, content, zone = ("BACKEND", "127.60.0.1:25565", "")
    return [
        OpenRepair(
            RepairRequest(vmid, Action.DNS_REPUBLISH),
            Plan((missing(surface, f"mc-{vmid}{zone}", type_, content),)),
            f"event-{vmid}",
            (),
        )
        for vmid in range(first, first + count)
    ]


class Watched:
    """Passes calls on slowly; remembers their sizes and how many were under way at once."""

    def __init__(self, inner, pause=0.0):
        self._inner, self._pause = inner, pause
        self._lock = threading.Lock()
        self.under_way = self.most = 0
        self.sizes = []

    def __getattr__(self, name):
        return getattr(self._inner, name)

    def apply(self, change):
        self._pass([change], lambda: self._inner.apply(change))

    def apply_all(self, changes):
        self._pass(changes, lambda: self._inner.apply_all(changes))

    def _pass(self, changes, call):
        with self._lock:
            self.sizes.append(len(changes))
            self.under_way += 1
            self.most = max(self.most, self.under_way)
        time.sleep(self._pause)
        try:
            call()
        finally:
            with self._lock:
                self.under_way -= 1


@pytest.fixture
def writer(platform):
    """A writer over one watched surface."""
    services = platform.services()
    with acquire(services.redis, run_id="run", seconds=60) as lease:
        yield lambda surface, client: EdgeWriter({surface: client}, lease=lease, gate=services.gate)


def test_many_records_go_in_few_calls_and_none_is_larger_than_the_edge_takes(
    writer, client, sandbox
):
    watched = Watched(client(CF))
    work = repairs(CF, MOST_IN_A_BATCH + 51)
    before = len(sandbox.edge.cloudflare.records())
    writer(CF, watched).write(work)
    assert [repair.errors for repair in work if repair.errors] == []
    assert len(sandbox.edge.cloudflare.records()) == before + len(work)
    assert sorted(watched.sizes, reverse=True) == [100, 100, 51]
    assert max(watched.sizes) <= MOST_IN_A_BATCH


def test_a_few_records_are_written_one_by_one(writer, client):
    watched = Watched(client(CF))
    writer(CF, watched).write(repairs(CF, 3))
    assert watched.sizes == [1, 1, 1]
    writer(CF, watched).write(repairs(CF, 4, first=7000))
    assert watched.sizes[3:] == [4]


@pytest.mark.parametrize(("surface", "at_once"), [(CF, 2), (TN, 4), (VE, 8)])
def test_a_surface_gets_as_many_calls_at_the_same_time_as_it_is_said_to_bear(
    writer, client, surface, at_once
):
    """One at a time until it has taken a write."""
    watched = Watched(client(surface), pause=0.05)
    mine = writer(surface, watched)
    begun = repairs(surface, FEW + 1)
    mine.write(begun)
    assert watched.most == 1
    assert surface in mine.accepted
    rest = repairs(surface, watched.per_call * 3 * at_once, first=7000)
    mine.write(rest)
    assert watched.most == at_once
    assert [repair.errors for repair in begun + rest if repair.errors] == []


class Picky(Watched):
    """Refuses a whole call for one record of it; then something may happen."""

    def __init__(self, inner, refused, then=lambda: None):
        super().__init__(inner)
        self._refused, self._then = refused, then

    def _pass(self, changes, call):
        def picked():
            if any(change.describe().startswith(self._refused) for change in changes):
                self._then()
                raise Rejected("cloudflare: HTTP 400, 9005 Content is invalid")
            call()

        super()._pass(changes, picked)


def test_one_bad_record_of_a_hundred_costs_twenty_calls_more_and_no_other_record(
    writer, client, sandbox
):
    work = repairs(CF, 100)
    watched = Picky(client(CF), "cloudflare A mc-6042.")
    mine = writer(CF, watched)
    mine.write(work)
    assert sorted(watched.sizes, reverse=True) == [100, *[10] * 10, *[1] * 10]
    assert mine.writes == 1 + 10 + 10
    [bad] = [repair for repair in work if repair.errors]
    assert bad.request.vmid == 6042
    assert {repair.attempted for repair in work} == {1}
    assert sandbox.edge.cloudflare.named("mc-6041.example.gg") != []
    assert sandbox.edge.cloudflare.named("mc-6042.example.gg") == []


def test_what_is_held_back_after_its_call_was_refused_was_not_tried(platform, writer, client):
    """A refused call has written nothing; the pause that came then keeps it from being repeated."""
    gate, work = platform.services().gate, repairs(CF, 20)

    def pause():
        gate.pause(Pause(EVERYTHING, "by hand", 1.0))

    writer(CF, Picky(client(CF), "cloudflare A mc-6000.", then=pause)).write(work)
    assert {repair.attempted for repair in work} == {0}
    assert {repair.held.code for repair in work} == {"paused"}
