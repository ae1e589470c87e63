"""Each incident is told once while it lasts."""

import json
from dataclasses import replace

import pytest

from zlh_dagster.core.incidents import REMINDERS, Changes, Incident
from zlh_dagster.core.rules import Severity
from zlh_dagster.resources.incidents import KEY, Incidents
from zlh_dagster.resources.redis import RedisUnavailable, connect


@pytest.fixture
def redis(redis_url):
    with connect(redis_url) as client:
        yield client


@pytest.fixture
def incidents(redis):
    return Incidents(redis)


def incident(name="a", **values):
    given = {
        "severity": Severity.CRITICAL,
        "title": "t – ü",
        "text": "x",
        "opened_at": 100.0,
        "sources": ("containers", "agents"),
    }
    return Incident(name, **{**given, **values})


def test_an_incident_opens_once_and_keeps_its_first_words(incidents):
    assert incidents.open(incident(title="first"))
    assert not incidents.open(incident(title="second", opened_at=200.0))
    assert incidents.all_open() == {"a": incident(title="first")}


def test_what_was_closed_can_open_again(incidents):
    incidents.open(incident("a"))
    incidents.open(incident("b"))
    incidents.close(["a", "unknown"])
    assert set(incidents.all_open()) == {"b"}
    assert incidents.open(incident("a"))


def test_closing_nothing_is_nothing(incidents):
    incidents.close([])
    assert incidents.all_open() == {}


def test_they_outlive_the_process(incidents, redis_url):
    given = incident("mass_drift:cloudflare", reminded=2, absent_since=5.0, message="17")
    incidents.open(given)
    with connect(redis_url) as client:
        assert Incidents(client).all_open() == {given.name: given}


@pytest.mark.parametrize(
    "stored",
    [
        "{broken",
        "[]",
        "null",
        json.dumps({"severity": "loud"}),
        json.dumps({"opened_at": "yesterday"}),
        json.dumps({"reminded": "x"}),
        json.dumps({"absent_since": "x"}),
        json.dumps({"title": None, "text": ["x"]}),
        json.dumps({"sources": 5}),
        json.dumps({"message": 5}),
    ],
)
def test_a_value_that_cannot_be_read_hides_no_other(incidents, redis, stored):
    """It still counts as open, or it would be told every minute."""
    incidents.open(incident("a"))
    redis.hset(KEY, "b", stored)
    read = incidents.all_open()
    assert set(read) == {"a", "b"}
    assert read["a"] == incident("a")
    assert isinstance(read["b"].title, str)
    read["b"].reminder_due(1e9)
    read["b"].reminders_until(1e9)


def test_what_a_tick_saw_is_kept(incidents):
    incidents.open(incident("a"))
    incidents.open(incident("b", absent_since=1.0))
    incidents.note(Changes(absent=("a",), back=("b",)), now=500.0)
    assert incidents.all_open() == {
        "a": incident("a", absent_since=500.0),
        "b": incident("b", absent_since=None),
    }


def test_the_message_that_told_them_is_kept_by_those_that_are_open(incidents):
    incidents.open(incident("a"))
    incidents.told(["a", "closed meanwhile"], "123")
    assert incidents.all_open() == {"a": incident("a", message="123")}


@pytest.mark.parametrize(
    ("after", "reminded"),
    [
        (REMINDERS[0], 1),
        (REMINDERS[1], 2),
        (REMINDERS[2], 3),
        (10 * REMINDERS[2], 3),
    ],
)
def test_one_reminder_stands_for_all_that_were_due(incidents, after, reminded):
    incidents.open(incident())
    incidents.reminded([incident()], now=100.0 + after)
    assert incidents.all_open()["a"].reminded == reminded


def test_an_incident_that_ended_is_not_brought_back_by_what_is_noted_of_it(incidents):
    """A repair may close it between the tick that read it and what the tick keeps."""
    incidents.open(incident("a"))
    known = incidents.all_open()
    incidents.close(["a"])
    incidents.note(Changes(absent=("a",)), now=1.0)
    incidents.note(Changes(back=("a",)), now=1.0)
    incidents.reminded([known["a"]], now=1e9)
    incidents.told(["a"], "1")
    assert incidents.all_open() == {}


def test_a_reminder_keeps_what_was_noted_since_it_was_read(incidents):
    incidents.open(incident("a"))
    [read] = incidents.all_open().values()
    incidents.told(["a"], "17")
    incidents.reminded([read], now=100.0 + REMINDERS[0])
    assert incidents.all_open()["a"] == replace(read, message="17", reminded=1)


def test_without_redis_nothing_is_known_and_the_error_says_so():
    with connect("unix:///nonexistent/redis.sock") as client:
        lost = Incidents(client)
        for ask in (
            lost.all_open,
            lambda: lost.open(incident()),
            lambda: lost.close(["a"]),
            lambda: lost.note(Changes(absent=("a",)), now=1.0),
            lambda: lost.told(["a"], "1"),
            lambda: lost.reminded([incident()], now=1e9),
        ):
            with pytest.raises(RedisUnavailable, match="incidents are not known"):
                ask()
