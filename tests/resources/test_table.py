"""Names and their JSON objects in Redis."""

import pytest

from zlh_dagster.resources.redis import RedisUnavailable, connect
from zlh_dagster.resources.table import RedisTable

KEY = "zlh:test"


@pytest.fixture
def redis(redis_url):
    with connect(redis_url) as client:
        yield client


@pytest.fixture
def table(redis):
    return RedisTable(redis, KEY, "things")


def test_what_was_put_is_read_back(table):
    value = {"a": [1, 2.5, None, True], "ü – 💥": {"deep": "x\n"}}
    table.put("one", value)
    table.put("zwei – ü", {})
    assert table.get("one") == value
    assert table.all() == {"one": value, "zwei – ü": {}}


def test_what_is_not_there_is_none_and_not_empty(table):
    assert table.get("one") is None
    assert table.all() == {}


def test_putting_again_replaces(table):
    table.put("one", {"n": 1})
    table.put("one", {"n": 2})
    assert table.all() == {"one": {"n": 2}}


def test_a_new_entry_is_written_once(table):
    assert table.put_new("one", {"n": 1})
    assert not table.put_new("one", {"n": 2})
    assert table.get("one") == {"n": 1}


def test_a_known_entry_is_written_only_while_it_is_there(table):
    assert not table.put_known("one", {"n": 1})
    assert table.all() == {}
    table.put("one", {"n": 1})
    assert table.put_known("one", {"n": 2})
    assert table.get("one") == {"n": 2}


def test_removing_says_how_many_were_there(table):
    table.put("one", {})
    table.put("two", {})
    assert table.remove("one", "three") == 1
    assert table.remove() == 0
    assert set(table.all()) == {"two"}


@pytest.mark.parametrize("text", ["", "{broken", "[]", "5", "null", '"text"'])
def test_what_is_no_object_is_an_empty_one_and_still_there(table, redis, text):
    redis.hset(KEY, "one", text)
    table.put("two", {"n": 2})
    assert table.get("one") == {}
    assert table.all() == {"one": {}, "two": {"n": 2}}


def test_without_redis_every_call_says_what_is_not_known():
    with connect("unix:///nonexistent/redis.sock") as client:
        lost = RedisTable(client, KEY, "things")
        for ask in (
            lost.all,
            lambda: lost.get("a"),
            lambda: lost.put("a", {}),
            lambda: lost.put_new("a", {}),
            lambda: lost.put_known("a", {}),
            lambda: lost.remove("a"),
        ):
            with pytest.raises(RedisUnavailable, match="things are not known"):
                ask()


def test_a_key_of_another_kind_is_no_empty_table(table, redis):
    """Taken for empty, it would let everything pass."""
    redis.set(KEY, "x")
    with pytest.raises(RedisUnavailable):
        table.all()
