"""Each incident is told once while it lasts."""

import pytest

from zlh_dagster.resources.incidents import KEY, Incidents
from zlh_dagster.resources.redis import RedisUnavailable, connect


@pytest.fixture
def incidents(redis_url):
    with connect(redis_url) as client:
        yield Incidents(client)


def test_an_incident_opens_once_and_keeps_its_first_words(incidents):
    assert incidents.open("a", now=100.0, detail={"title": "first"})
    assert not incidents.open("a", now=200.0, detail={"title": "second"})
    assert incidents.all_open() == {"a": {"opened_at": 100.0, "title": "first"}}


def test_what_was_closed_can_open_again(incidents):
    incidents.open("a", now=1, detail={})
    incidents.open("b", now=1, detail={})
    incidents.close(["a", "unknown"])
    assert set(incidents.all_open()) == {"b"}
    assert incidents.open("a", now=2, detail={})


def test_closing_nothing_is_nothing(incidents):
    incidents.close([])
    assert incidents.all_open() == {}


def test_they_outlive_the_process(incidents, redis_url):
    incidents.open("mass_drift:cloudflare", now=1, detail={"title": "t – ü"})
    with connect(redis_url) as client:
        assert Incidents(client).all_open()["mass_drift:cloudflare"]["title"] == "t – ü"


def test_a_value_that_cannot_be_read_hides_no_other(incidents, redis_url):
    """It still counts as open, or it would be told every minute."""
    incidents.open("a", now=1, detail={})
    with connect(redis_url) as client:
        client.hset(KEY, "b", "{broken")
        client.hset(KEY, "c", "[]")
    assert set(incidents.all_open()) == {"a", "b", "c"}
    assert incidents.all_open()["b"] == incidents.all_open()["c"] == {}


def test_without_redis_nothing_is_known_and_the_error_says_so():
    with connect("unix:///nonexistent/redis.sock") as client:
        lost = Incidents(client)
        for ask in (
            lost.all_open,
            lambda: lost.open("a", now=1, detail={}),
            lambda: lost.close(["a"]),
        ):
            with pytest.raises(RedisUnavailable, match="incidents are not known"):
                ask()
