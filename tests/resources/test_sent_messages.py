"""Messages that stand in Discord and can still be brought up to date."""

import json

import pytest

from zlh_dagster.core.messages import Message, Sent
from zlh_dagster.core.rules import Severity
from zlh_dagster.resources import messages as messages_module
from zlh_dagster.resources.messages import KEY, Messages
from zlh_dagster.resources.redis import RedisUnavailable, connect

SENT = Sent(
    Message(Severity.WARNING, "Server 5000: agent offline", ("a line – ü",), "run 1"),
    {"agent_offline:5000": "", "agent_offline:5001": "Over after 1 h"},
)


@pytest.fixture
def redis(redis_url):
    with connect(redis_url) as client:
        yield client


@pytest.fixture
def messages(redis):
    return Messages(redis)


def test_a_message_comes_back_as_it_was_sent(messages):
    messages.keep("123", SENT)
    assert messages.get("123") == SENT
    assert messages.get("124") is None


def test_a_message_of_which_all_is_over_can_be_forgotten(messages):
    messages.keep("123", SENT)
    messages.forget("123")
    messages.forget("124")
    assert messages.get("123") is None


def test_the_oldest_are_forgotten_first_whatever_their_length(messages, monkeypatch):
    """Identifiers are numbers: 1000 came after 999."""
    monkeypatch.setattr(messages_module, "KEPT", 3)
    for number in (998, 999, 1000, 1001, 1002):
        messages.keep(str(number), SENT)
    kept = [n for n in (998, 999, 1000, 1001, 1002) if messages.get(str(n))]
    assert kept == [1000, 1001, 1002]


def test_bringing_an_old_one_up_to_date_forgets_none(messages, monkeypatch):
    monkeypatch.setattr(messages_module, "KEPT", 2)
    messages.keep("1", SENT)
    messages.keep("2", SENT)
    messages.keep("1", SENT)
    assert messages.get("1") == messages.get("2") == SENT


@pytest.mark.parametrize(
    "text",
    [
        "{broken",
        "[]",
        "{}",
        json.dumps({**SENT.to_json(), "severity": "loud"}),
        json.dumps({**SENT.to_json(), "lines": 5}),
        json.dumps({**SENT.to_json(), "incidents": ["a"]}),
    ],
)
def test_what_cannot_be_read_is_not_known(messages, redis, text):
    redis.hset(KEY, "1", text)
    assert messages.get("1") is None


def test_without_redis_the_error_says_what_is_not_known():
    with connect("unix:///nonexistent/redis.sock") as client:
        lost = Messages(client)
        for ask in (
            lambda: lost.keep("1", SENT),
            lambda: lost.get("1"),
            lambda: lost.forget("1"),
        ):
            with pytest.raises(RedisUnavailable, match="sent messages are not known"):
                ask()
