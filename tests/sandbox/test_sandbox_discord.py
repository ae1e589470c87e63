"""The pretend webhooks take what Discord takes."""

import pytest

HELLO = {"content": "mc-5000 was repaired", "allowed_mentions": {"parse": []}}


def _post(edge, payload, path="repair"):
    return edge.discord("POST", path, payload)


def test_a_message_is_taken_without_a_word(edge):
    """Status 204, and the message is in the inbox."""
    assert _post(edge, HELLO).status_code == 204
    [message] = edge.control("GET", "inbox").json()
    assert (message["level"], message["payload"], message["edits"]) == ("repair", HELLO, [])


def test_waiting_gives_the_message_back(edge):
    """Its identifier is that of the inbox."""
    response = _post(edge, HELLO, "critical?wait=true")
    assert response.status_code == 200
    assert response.json()["content"] == HELLO["content"]
    assert response.json()["id"] == edge.sandbox.edge.discord.inbox()[0].id


def test_the_inbox_keeps_the_order_across_levels(edge):
    """First come, first listed."""
    for level in ("critical", "warning", "repair", "info"):
        _post(edge, {"content": level}, level)
    inbox = edge.control("GET", "inbox").json()
    assert [m["level"] for m in inbox] == ["critical", "warning", "repair", "info"]


def test_an_edit_is_kept_beside_the_message(edge):
    """The message stays one; the answer shows the new text."""
    made = _post(edge, HELLO, "warning?wait=true").json()
    response = edge.discord("PATCH", f"warning/messages/{made['id']}", {"content": "over"})
    assert response.status_code == 200
    assert response.json()["content"] == "over"
    assert response.json()["edited_timestamp"] is not None
    [message] = edge.control("GET", "inbox").json()
    assert [edit["payload"] for edit in message["edits"]] == [{"content": "over"}]


def test_an_edit_is_held_to_the_same_limits(edge):
    """And cannot empty a message."""
    made = _post(edge, HELLO, "warning?wait=true").json()
    path = f"warning/messages/{made['id']}"
    assert edge.discord("PATCH", path, {"content": "x" * 2001}).json()["code"] == 50035
    assert edge.discord("PATCH", path, {"content": ""}).json()["code"] == 50006
    assert edge.sandbox.edge.discord.inbox()[0].edits == ()


def test_a_message_is_only_found_under_its_webhook(edge):
    """Another webhook does not know it."""
    made = _post(edge, HELLO, "warning?wait=true").json()
    for path in (f"info/messages/{made['id']}", "warning/messages/1"):
        response = edge.discord("PATCH", path, {"content": "over"})
        assert (response.status_code, response.json()["code"]) == (404, 10008)


def test_an_unknown_webhook_is_not_found(edge):
    """Code 10015, as for one that was deleted."""
    response = _post(edge, HELLO, "other")
    assert (response.status_code, response.json()["code"]) == (404, 10015)


def test_a_webhook_can_be_looked_at(edge):
    """Without sending anything."""
    assert edge.discord("GET", "info").json()["name"] == "info"
    assert edge.sandbox.edge.discord.inbox() == []


def _embed(**parts):
    return {"embeds": [parts]}


FIELD = {"name": "n", "value": "v"}

AT_THE_LIMIT = [
    {"content": "x" * 2000},
    {"embeds": [{"title": "x"}] * 10},
    _embed(title="x" * 256),
    _embed(description="x" * 4096),
    _embed(fields=[FIELD] * 25),
    _embed(fields=[{"name": "x" * 256, "value": "x" * 1024}]),
    _embed(footer={"text": "x" * 2048}),
    {"embeds": [{"description": "x" * 3000}, {"description": "x" * 3000}]},
]

PAST_THE_LIMIT = [
    {"content": "x" * 2001},
    {"embeds": [{"title": "x"}] * 11},
    _embed(title="x" * 257),
    _embed(description="x" * 4097),
    _embed(fields=[FIELD] * 26),
    _embed(fields=[{"name": "x" * 257, "value": "v"}]),
    _embed(fields=[{"name": "n", "value": "x" * 1025}]),
    _embed(footer={"text": "x" * 2049}),
    {"embeds": [{"description": "x" * 3000}, {"description": "x" * 3001}]},
    _embed(fields=[{"name": "n"}]),
    _embed(fields="x"),
    {"embeds": "x"},
    {"content": 5},
]


@pytest.mark.parametrize("payload", AT_THE_LIMIT)
def test_a_message_at_a_limit_is_taken(edge, payload):
    """The limit itself is allowed."""
    assert _post(edge, payload).status_code == 204


@pytest.mark.parametrize("payload", PAST_THE_LIMIT)
def test_a_message_past_a_limit_is_refused(edge, payload):
    """Code 50035, and it never reaches the inbox."""
    response = _post(edge, payload)
    assert (response.status_code, response.json()["code"]) == (400, 50035)
    assert edge.sandbox.edge.discord.inbox() == []


def test_an_empty_message_is_refused(edge):
    """There must be something to read, in valid JSON."""
    assert _post(edge, {"content": ""}).json()["code"] == 50006
    assert _post(edge, None).json()["code"] == 50109
    assert edge.discord("GET", "info/other/path").status_code == 404


def test_the_sixth_message_in_two_seconds_has_to_wait(edge):
    """The answer says how long; other webhooks are free."""
    assert [_post(edge, HELLO).status_code for _ in range(5)] == [204] * 5
    response = _post(edge, HELLO)
    assert response.status_code == 429
    body = response.json()
    assert 0 < body["retry_after"] <= 2.001
    assert body["global"] is False
    assert body["message"]
    assert response.headers["retry-after"] in ("1", "2")
    assert _post(edge, HELLO, "info").status_code == 204
    assert len(edge.sandbox.edge.discord.inbox()) == 6


def test_the_limit_ends_after_two_seconds(edge):
    """A message that waited as it was told is taken."""
    for _ in range(5):
        _post(edge, HELLO)
    recent = edge.sandbox.edge.discord._recent["repair"]
    with edge.sandbox.edge.lock:
        earlier = [moment - 2.0 for moment in recent]
        recent.clear()
        recent.extend(earlier)
    assert _post(edge, HELLO).status_code == 204
