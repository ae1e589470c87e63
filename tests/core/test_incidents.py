"""The life of an incident from tick to tick."""

from dataclasses import replace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from zlh_dagster.core.incidents import REMINDERS, Changes, Incident, follow
from zlh_dagster.core.model import Action
from zlh_dagster.core.repair import Finding
from zlh_dagster.core.rules import Severity

START = 1_900_000_000.0
HOUR = 3600.0
OFFLINE = Finding(
    "agent_offline:5000",
    Severity.WARNING,
    "Server 5000: agent offline",
    "It does not answer.",
    Action.RESTART_AGENT,
    5000,
    sources=("containers", "agents"),
)
ORPHAN = Finding("orphan:velocity", Severity.INFO, "one too many", "x", sources=("velocity",))


class Book:
    """Open incidents over many ticks, kept as the controller keeps them."""

    def __init__(self):
        self.open = {}

    def tick(self, *findings, minute=0.0, lasting=(), unseen=()) -> Changes:
        now = START + 60 * minute
        changes = follow(self.open, findings=findings, lasting=lasting, unseen=unseen, now=now)
        for finding in changes.opened:
            self.open[finding.incident] = Incident.of(finding, now=now)
        for name in changes.absent:
            self.open[name] = replace(self.open[name], absent_since=now)
        for name in changes.back:
            self.open[name] = replace(self.open[name], absent_since=None)
        for name in changes.due:
            count = self.open[name].reminders_until(now)
            self.open[name] = replace(self.open[name], reminded=count)
        for name in changes.over:
            del self.open[name]
        return changes


@pytest.fixture
def book():
    return Book()


def test_it_opens_once_and_stays_silent_while_it_lasts(book):
    assert book.tick(OFFLINE).opened == (OFFLINE,)
    for minute in range(1, 30):
        assert book.tick(OFFLINE, minute=minute) == Changes()
    incident = book.open["agent_offline:5000"]
    assert (incident.title, incident.severity) == (OFFLINE.title, OFFLINE.severity)
    assert (incident.opened_at, incident.sources) == (START, ("containers", "agents"))
    assert incident.kind == "agent_offline"


def test_the_same_name_twice_in_a_tick_opens_once(book):
    assert len(book.tick(OFFLINE, replace(OFFLINE, title="again")).opened) == 1


def test_absent_once_is_not_over_and_absent_twice_is(book):
    book.tick(OFFLINE)
    assert book.tick(minute=1) == Changes(absent=("agent_offline:5000",))
    assert book.tick(minute=2) == Changes(over=("agent_offline:5000",))
    assert book.tick(minute=3) == Changes()


def test_what_flickers_makes_one_message(book):
    """Silent at every other tick: neither over nor opened again."""
    book.tick(OFFLINE)
    for minute in range(1, 40, 2):
        assert book.tick(minute=minute).absent == ("agent_offline:5000",)
        changes = book.tick(OFFLINE, minute=minute + 1)
        assert changes.back == ("agent_offline:5000",)
        assert changes.opened == changes.over == ()


def test_what_comes_back_after_it_was_over_is_a_new_one(book):
    book.tick(OFFLINE)
    book.tick(minute=1)
    book.tick(minute=2)
    assert book.tick(OFFLINE, minute=3).opened == (OFFLINE,)
    assert book.open["agent_offline:5000"].opened_at == START + 180


def test_what_lasts_without_a_finding_stays_open(book):
    book.tick(OFFLINE)
    for minute in (1, 2, 3):
        assert book.tick(minute=minute, lasting={"agent_offline:5000"}) == Changes()


def test_a_name_that_lasts_opens_nothing_by_itself(book):
    assert book.tick(lasting={"refused:5000:edge"}) == Changes()


@pytest.mark.parametrize("unseen", [{"containers"}, {"agents"}, {"containers", "agents", "x"}])
def test_while_one_of_its_sources_is_unseen_it_is_unknown(book, unseen):
    book.tick(OFFLINE)
    for minute in (1, 2, 3):
        assert book.tick(minute=minute, unseen=unseen) == Changes()
    assert book.tick(minute=4).absent == ("agent_offline:5000",)


def test_a_tick_that_could_not_see_does_not_count_as_the_second(book):
    book.tick(OFFLINE)
    book.tick(minute=1)
    assert book.tick(minute=2, unseen={"agents"}) == Changes()
    assert book.tick(minute=3).over == ("agent_offline:5000",)


def test_another_source_unseen_keeps_nothing_open(book):
    book.tick(OFFLINE)
    book.tick(minute=1, unseen={"velocity"})
    assert book.tick(minute=2, unseen={"velocity"}).over == ("agent_offline:5000",)


def test_one_is_over_while_another_lasts(book):
    book.tick(OFFLINE, ORPHAN)
    book.tick(ORPHAN, minute=1)
    assert book.tick(ORPHAN, minute=2) == Changes(over=("agent_offline:5000",))
    assert set(book.open) == {"orphan:velocity"}


# --- reminders -----------------------------------------------------------------------------------


def test_it_is_reminded_of_after_1_6_and_24_hours_and_never_again(book):
    told = [
        minute
        for minute in range(60 * 72)
        if "agent_offline:5000" in book.tick(OFFLINE, minute=minute).due
    ]
    assert told == [60, 6 * 60, 24 * 60]


@pytest.mark.parametrize(
    ("hours", "left"),
    [(2, [6, 24]), (7, [24]), (30, []), (500, [])],
)
def test_after_a_long_silence_one_reminder_stands_for_all(book, hours, left):
    """The loop was down: it does not make up for what it did not say."""
    book.tick(OFFLINE)
    told = [
        minute / 60
        for minute in range(60 * hours, 60 * (hours + 40))
        if book.tick(OFFLINE, minute=minute).due
    ]
    assert told == [hours, *left]


def test_what_is_absent_is_not_reminded_of(book):
    book.tick(OFFLINE)
    assert book.tick(minute=60) == Changes(absent=("agent_offline:5000",))


def test_what_cannot_be_seen_is_not_reminded_of(book):
    book.tick(OFFLINE)
    assert book.tick(minute=60, unseen={"agents"}) == Changes()


def test_a_clock_set_back_reminds_of_nothing(book):
    book.tick(OFFLINE)
    assert book.tick(OFFLINE, minute=-600) == Changes()


def test_the_limits_are_those_of_the_law():
    assert REMINDERS == (HOUR, 6 * HOUR, 24 * HOUR)


# --- any sequence of ticks -----------------------------------------------------------------------

NAMES = ("a:1", "a:2", "b:1")
ticks = st.lists(
    st.tuples(
        st.sets(st.sampled_from(NAMES)),
        st.sets(st.sampled_from(["one", "two"])),
        st.integers(min_value=1, max_value=500),
    ),
    max_size=25,
)


@settings(max_examples=200, deadline=None)
@given(ticks)
def test_every_incident_is_opened_and_ended_in_turn_and_reminded_three_times_at_most(history):
    book, minute = Book(), 0.0
    told = {name: [] for name in NAMES}
    for present, unseen, pause in history:
        minute += pause
        findings = [
            Finding(name, Severity.INFO, name, "", sources=("one" if name[0] == "a" else "two",))
            for name in sorted(present)
        ]
        changes = book.tick(*findings, minute=minute, unseen=unseen)
        for finding in changes.opened:
            told[finding.incident].append("opened")
        for name in changes.due:
            assert name in present
            told[name].append("due")
        for name in changes.over:
            assert name not in present
            told[name].append("over")
        assert present <= set(book.open)
    for name, said in told.items():
        lives = " ".join(said).split("over")
        assert all(life.split().count("opened") == 1 for life in lives[:-1]), (name, said)
        assert all(life.split().count("due") <= 3 for life in lives), (name, said)
        assert lives[-1].split().count("opened") == int(name in book.open)
