"""The notification service: each level in its channel, and never in anybody's way."""

import functools
import logging
import time
import tracemalloc
from types import SimpleNamespace

import httpx
import pytest

from tests.resources.servers import compressed_twice, dripping, dripping_head, serving, silent
from zlh_dagster.core.messages import Message
from zlh_dagster.core.redact import Redactor
from zlh_dagster.core.rules import Severity
from zlh_dagster.resources import discord as discord_module
from zlh_dagster.resources.discord import LONGEST_WAIT, TIMEOUT, Discord

LEVELS = ("critical", "warning", "repair", "info")
SECRET = "s3cr3t-token-of-a-webhook"


@pytest.fixture
def discord(sandbox):
    webhooks = {s: f"{sandbox.url}/discord/{s.value}" for s in Severity}
    return Discord(webhooks, redactor=Redactor([SECRET]))


@pytest.fixture
def quick(monkeypatch):
    """Hanging costs a fifth of a second."""
    monkeypatch.setattr(discord_module, "TIMEOUT", 0.2)


def inbox(sandbox) -> list[tuple[str, str]]:
    return [(m.level, m.payload["embeds"][0]["title"]) for m in sandbox.edge.discord.inbox()]


def calls(sandbox) -> int:
    return len(sandbox.edge.journal.entries("discord"))


def of(answer, *, url="https://discord.com/api/webhooks/1/" + SECRET) -> Discord:
    """A service whose webhooks are answered by ``answer``."""
    transport = httpx.MockTransport(answer)
    return Discord(dict.fromkeys(Severity, url), redactor=Redactor([SECRET]), transport=transport)


# --- delivering ----------------------------------------------------------------------------------


@pytest.mark.parametrize("level", LEVELS)
def test_each_level_goes_to_its_own_channel_and_no_other(discord, sandbox, level):
    assert getattr(discord, level)("a title", "one line", "another") is True
    assert inbox(sandbox) == [(level, "a title")]
    [message] = sandbox.edge.discord.inbox()
    assert message.payload["embeds"][0]["description"] == "one line\nanother"
    assert message.payload["allowed_mentions"] == {"parse": []}
    assert calls(sandbox) == 1


def test_levels_have_their_own_colours(discord, sandbox):
    for level in LEVELS:
        getattr(discord, level)("t")
    colours = {m.payload["embeds"][0]["color"] for m in sandbox.edge.discord.inbox()}
    assert len(colours) == 4


def test_discord_is_told_what_kind_of_program_calls():
    seen = []

    def answer(request):
        seen.append(request)
        return httpx.Response(204)

    assert of(answer).info("t")
    [request] = seen
    assert request.headers["User-Agent"].startswith("DiscordBot (zlh-dagster, ")
    assert request.method == "POST"


def test_secrets_in_a_message_are_masked_before_they_leave(discord, sandbox):
    discord.critical(f"title {SECRET}", f"line {SECRET}", "https://x/api/webhooks/1/abc")
    text = str(sandbox.edge.discord.inbox()[0].payload)
    assert SECRET not in text
    assert "webhooks/1/abc" not in text


def test_a_huge_message_is_taken(discord, sandbox):
    assert discord.info("t" * 10_000, *["x" * 10_000] * 10)
    assert len(inbox(sandbox)) == 1


def test_what_no_encoding_can_carry_is_logged_and_not_raised(discord, caplog):
    assert discord.info("half a \ud800 pair") is False
    assert "UnicodeEncodeError" in caplog.text


# --- not delivering ------------------------------------------------------------------------------


def test_a_level_without_a_webhook_is_only_logged(sandbox, caplog):
    service = Discord({Severity.INFO: f"{sandbox.url}/discord/info"}, redactor=Redactor())
    assert service.critical("disk full", "on pve1") is False
    assert calls(sandbox) == 0
    assert "no webhook for critical" in caplog.text
    assert "disk full\non pve1" in caplog.text
    assert service.info("t") is True


def test_a_short_limit_is_waited_for(discord, sandbox, monkeypatch):
    pauses = []
    monkeypatch.setattr(discord_module.time, "sleep", pauses.append)
    sandbox.edge.faults.switch_on("discord", "status", code=429, retry_after=0.7, times=1)
    assert discord.repair("t") is True
    assert pauses == [0.7]
    assert inbox(sandbox) == [("repair", "t")]


def test_a_long_limit_is_not_waited_for(discord, sandbox, caplog):
    sandbox.edge.faults.switch_on("discord", "status", code=429, retry_after=LONGEST_WAIT + 60)
    started = time.monotonic()
    assert discord.repair("the lost title") is False
    assert time.monotonic() - started < 1
    assert calls(sandbox) == 1
    assert "limited by Discord" in caplog.text
    assert "the lost title" in caplog.text


def test_a_limit_that_goes_on_is_given_up(discord, sandbox, monkeypatch):
    monkeypatch.setattr(discord_module.time, "sleep", lambda seconds: None)
    sandbox.edge.faults.switch_on("discord", "status", code=429, retry_after=0.5)
    assert discord.repair("t") is False
    assert calls(sandbox) == 3


@pytest.mark.parametrize(
    "body", [b"", b"[]", b"<html>", b'{"retry_after": "soon"}', b'{"retry_after": null}']
)
def test_a_limit_of_unknown_length_is_short_enough_to_try_again(body, monkeypatch):
    pauses = []
    monkeypatch.setattr(discord_module.time, "sleep", pauses.append)
    assert of(lambda request: httpx.Response(429, content=body)).info("t") is False
    assert pauses == [LONGEST_WAIT] * 2


@pytest.mark.parametrize("number", [b"NaN", b"Infinity", b"-1", b"1e300"])
def test_no_number_of_discord_makes_a_message_wait_for_ever(number, monkeypatch):
    pauses = []
    monkeypatch.setattr(discord_module.time, "sleep", pauses.append)
    body = b'{"retry_after": ' + number + b"}"
    assert of(lambda request: httpx.Response(429, content=body)).info("t") is False
    assert all(0 <= pause <= LONGEST_WAIT for pause in pauses)


def test_the_real_rate_limit_of_a_webhook_is_lived_with(discord, sandbox):
    """Five requests in two seconds are taken; the sixth waits and arrives too."""
    assert all(discord.info(f"t{n}") for n in range(6))
    assert len(inbox(sandbox)) == 6


@pytest.mark.parametrize(("status", "body"), [(404, {"code": 10015}), (401, {"code": 50027})])
def test_where_every_webhook_is_dead_each_message_tries_them_again(
    discord, sandbox, caplog, status, body
):
    """10,000 refused requests in ten minutes ban the address; four a message are far from that."""
    sandbox.edge.faults.switch_on("discord", "status", code=status, body=body)
    assert discord.info("first") is False
    assert "webhook is dead, set a new one" in caplog.text
    assert calls(sandbox) == len(Severity), "its own, and once each that could take its place"
    assert discord.info("second") is False
    assert calls(sandbox) == 2 * len(Severity)
    assert "second" in caplog.text, "its messages are in the log all the same"
    sandbox.edge.faults.switch_off("discord")
    assert discord.info("third") is True
    assert discord.info("fourth") is True
    assert inbox(sandbox) == [("info", "third"), ("info", "fourth")]


def test_a_deleted_webhook_among_others_that_came_back_silences_nothing():
    """One was deleted, and a bad moment of Discord's made the others look so."""
    dead = set(Severity)
    taken = []

    def answer(request):
        channel = Severity(request.url.path.rpartition("/")[2])
        if channel in dead:
            return httpx.Response(404)
        taken.append(channel)
        return httpx.Response(204)

    webhooks = {s: f"https://discord.com/api/webhooks/1/{s.value}" for s in Severity}
    discord = Discord(webhooks, redactor=Redactor([]), transport=httpx.MockTransport(answer))
    assert discord.critical("in the bad moment") is False
    dead.clear()
    dead.add(Severity.CRITICAL)
    assert discord.critical("after it") is True
    assert len(taken) == 1


def test_a_dead_webhook_is_left_alone_for_a_while(monkeypatch):
    """Another one takes its messages. A process may live for weeks, and Discord errs too."""
    asked = []
    dead = {Severity.INFO}

    def answer(request):
        asked.append(channel := Severity(request.url.path.rpartition("/")[2]))
        return httpx.Response(404 if channel in dead else 204)

    webhooks = {s: f"https://discord.com/api/webhooks/1/{s.value}" for s in Severity}
    discord = Discord(webhooks, redactor=Redactor([]), transport=httpx.MockTransport(answer))
    assert discord.info("first") is True
    assert discord.info("second") is True
    assert [asked.count(Severity.INFO), len(asked)] == [1, 3]
    dead.clear()
    later = time.monotonic() + discord_module.DEAD_SECONDS
    clock = SimpleNamespace(monotonic=lambda: later, sleep=time.sleep)
    monkeypatch.setattr(discord_module, "time", clock)
    assert discord.info("third") is True
    assert asked[3:] == [Severity.INFO]


@pytest.mark.parametrize("status", [400, 403, 413])
def test_a_refused_message_is_not_repeated(discord, sandbox, caplog, status):
    sandbox.edge.faults.switch_on("discord", "status", code=status)
    assert discord.info("the lost title") is False
    assert calls(sandbox) == 1
    assert f"HTTP {status}" in caplog.text
    assert "the lost title" in caplog.text


@pytest.mark.parametrize("status", [301, 302, 308])
def test_a_redirect_does_not_count_as_delivered(discord, sandbox, status):
    sandbox.edge.faults.switch_on("discord", "status", code=status)
    assert discord.info("t") is False
    assert calls(sandbox) == 1


def test_a_server_error_that_passes_is_outlived(discord, sandbox, monkeypatch):
    monkeypatch.setattr(discord_module.time, "sleep", lambda seconds: None)
    sandbox.edge.faults.switch_on("discord", "status", code=503, times=2)
    assert discord.info("t") is True
    assert calls(sandbox) == 3


def test_a_server_error_that_stays_is_given_up(discord, sandbox, monkeypatch, caplog):
    monkeypatch.setattr(discord_module.time, "sleep", lambda seconds: None)
    sandbox.edge.faults.switch_on("discord", "status", code=500)
    assert discord.info("the lost title") is False
    assert calls(sandbox) == 3
    assert "the lost title" in caplog.text


@pytest.mark.parametrize("kind", ["disconnect", "write_answer_lost"])
def test_a_message_that_may_have_arrived_is_not_sent_twice(discord, sandbox, kind):
    sandbox.edge.faults.switch_on("discord", kind)
    assert discord.info("t") is False
    assert calls(sandbox) == 1


def test_nobody_there_is_tried_again_and_given_up(monkeypatch, caplog):
    monkeypatch.setattr(discord_module.time, "sleep", lambda seconds: None)
    url = f"http://127.0.0.1:1/api/webhooks/1/{SECRET}"
    service = Discord({Severity.INFO: url}, redactor=Redactor())
    assert service.info("the lost title") is False
    assert "no connection" in caplog.text
    assert "the lost title" in caplog.text


@pytest.mark.parametrize(
    "behave",
    [silent, dripping, functools.partial(dripping, status=429), dripping_head],
    ids=["silent", "drips", "drips a limit", "drips a head"],
)
def test_a_discord_that_hangs_costs_a_bounded_time(quick, behave, monkeypatch):
    monkeypatch.setattr(discord_module, "LONGEST_WAIT", 0)
    with serving(behave) as port:
        service = Discord({Severity.INFO: f"http://127.0.0.1:{port}/x"}, redactor=Redactor())
        started = time.monotonic()
        service.info("t")
        assert time.monotonic() - started < 1.5
    assert TIMEOUT <= 5


def test_no_answer_is_unpacked():
    """A few bytes could fill the memory; whether a message was taken, the status tells."""
    with serving(compressed_twice) as port:
        service = Discord({Severity.INFO: f"http://127.0.0.1:{port}/x"}, redactor=Redactor())
        service.info("t")
        tracemalloc.start()
        try:
            assert service.post(Message(Severity.INFO, "t", ())) == ""
            assert tracemalloc.get_traced_memory()[1] < 5_000_000
        finally:
            tracemalloc.stop()


def test_an_endless_answer_is_not_read(quick, monkeypatch):
    monkeypatch.setattr(discord_module.time, "sleep", lambda seconds: None)
    sent = []

    def pieces():
        while len(sent) < 10_000:
            sent.append(1)
            yield b"x" * 10_000

    for status in (200, 429, 500):
        sent.clear()
        of(lambda request, s=status: httpx.Response(s, content=pieces())).info("t")
        assert len(sent) < 100


@pytest.mark.parametrize("error", [httpx.ReadTimeout, ValueError, RuntimeError, RecursionError])
def test_sending_never_raises(error, caplog):
    def answer(request):
        raise error(f"https://discord.com/api/webhooks/1/{SECRET}")

    assert of(answer).critical("the lost title") is False
    assert "the lost title" in caplog.text
    assert SECRET not in caplog.text


def test_a_webhook_that_is_no_url_is_logged_and_not_raised(caplog, monkeypatch):
    monkeypatch.setattr(discord_module.time, "sleep", lambda seconds: None)
    service = Discord({Severity.INFO: "http://[" + SECRET}, redactor=Redactor())
    assert service.info("t") is False
    assert SECRET not in caplog.text


# --- secrets -------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", ["status", "disconnect", "html", "invalid_token"])
def test_the_webhooks_url_is_in_no_log(sandbox, caplog, monkeypatch, kind):
    """Whoever has it can write to the channel. httpx itself would log it."""
    monkeypatch.setattr(discord_module.time, "sleep", lambda seconds: None)
    caplog.set_level(logging.DEBUG)
    sandbox.edge.faults.switch_on("discord", kind)
    url = f"{sandbox.url}/discord/info?thread_id={SECRET}"
    service = Discord({Severity.INFO: url}, redactor=Redactor())
    service.info("t")
    sandbox.edge.faults.switch_off("discord")
    service.info("t")
    assert "/discord/info" not in caplog.text
    assert SECRET not in caplog.text


def test_a_secret_in_a_lost_message_is_not_in_the_log(caplog):
    service = Discord({}, redactor=Redactor([SECRET]))
    assert service.send(Message(Severity.INFO, f"t {SECRET}", (f"l {SECRET}",))) is False
    assert "t ***" in caplog.text
    assert SECRET not in caplog.text
