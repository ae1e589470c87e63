"""Discord: one webhook a channel, one function an alert level, and never in anybody's way.

Sending is bounded in time and never raises. What could not be delivered is in the log, whole.
"""

import logging
import re
import time
from collections.abc import Mapping
from dataclasses import dataclass, replace
from importlib.metadata import version
from typing import Any

import httpx

from zlh_dagster.core.messages import Links, Message, payload
from zlh_dagster.core.redact import Redactor
from zlh_dagster.core.rules import Severity
from zlh_dagster.resources.bounded import bounded_client, is_compressed, within
from zlh_dagster.resources.http import parse_json

TIMEOUT = 3.0
"""Seconds for each step of a call; a whole one has twice as many."""

LONGEST_WAIT = 5.0
"""Seconds waited at the most when Discord limits; a longer wish is not granted."""

DEAD_SECONDS = 3600.0
"""How long a webhook that Discord refused is left alone; a process may live for weeks."""

_ATTEMPTS = 3
_ENOUGH_BYTES = 32_768
_ID = re.compile(r"[0-9]{1,20}")
_log = logging.getLogger(__name__)


class Discord:
    """The notification service.

    Args:
        webhooks: URL of each channel; a level without one is only logged.
        redactor: Applied to every message.
        links: Where messages lead.
        transport: For tests.
    """

    def __init__(
        self,
        webhooks: Mapping[Severity, str],
        *,
        redactor: Redactor,
        links: Links = Links(),  # noqa: B008 - frozen
        transport: httpx.BaseTransport | None = None,
    ) -> None:
        self._webhooks = dict(webhooks)
        self._redactor = redactor
        self._links = links
        self._transport = transport
        self._dead_until: dict[Severity, float] = {}

    def critical(self, title: str, *lines: str) -> bool:
        """Something is broken and stays so until the operator acts."""
        return self.send(Message(Severity.CRITICAL, title, lines))

    def warning(self, title: str, *lines: str) -> bool:
        """Something was not done and why; it can wait until the evening."""
        return self.send(Message(Severity.WARNING, title, lines))

    def repair(self, title: str, *lines: str) -> bool:
        """Something was repaired, or would have been."""
        return self.send(Message(Severity.REPAIR, title, lines))

    def info(self, title: str, *lines: str) -> bool:
        """Worth knowing, nothing to do."""
        return self.send(Message(Severity.INFO, title, lines))

    def send(self, message: Message) -> bool:
        """Sends one message; returns whether Discord took it. Never raises."""
        return self.post(message) is not None

    def post(self, message: Message) -> str | None:
        """Sends one message, into another channel when its own webhook is dead. Never raises.

        Where all of them are dead all are tried again: silence would be worse, and four calls for
        a message are far from the 10,000 refused ones in ten minutes that Discord bans.

        Returns:
            Its identifier, ``""`` where there is none to edit it by, ``None`` where it was not
            taken.
        """
        message = self._clean(message)
        # No log takes half of a surrogate pair either.
        text = message.text().encode(errors="backslashreplace").decode()
        own = message.severity
        if not self.takes(own):
            _log.warning("not sent to Discord (no webhook for %s): %s", own.value, text)
            return None
        problem = _dead(own)
        if not any(self._url(channel) for channel in Severity):
            self._dead_until.clear()
        for channel in (own, *(other for other in Severity if other is not own)):
            url = self._url(channel)
            if url is None:
                continue
            if channel is not own:
                message = replace(message, lines=(*message.lines, _dead(own)))
            answer = self._safely("POST", f"{url}?wait=true", message, channel)
            if answer.problem is None:
                return answer.message_id if channel is own else ""
            problem = answer.problem
            if self._url(channel) is not None:
                break
        _log.error("not sent to Discord (%s): %s", problem, text)
        return None

    def takes(self, severity: Severity) -> bool:
        """Whether a level has a webhook; without one it is only logged."""
        return severity in self._webhooks

    def problem(self, severity: Severity) -> str | None:
        """What is wrong with a level's webhook, or ``None``; reads it and posts nothing."""
        url = self._webhooks[severity]
        with bounded_client(timeout=TIMEOUT, transport=self._transport) as client:
            answer = self._attempt(client, "GET", url, None)
        return (
            f"HTTP {answer.status}: {_dead(severity)}"
            if answer.status in (401, 404)
            else answer.problem
        )

    def edit(self, message_id: str, message: Message) -> bool:
        """Brings a message up to date; returns whether Discord took it. Never raises."""
        message = self._clean(message)
        url = self._url(message.severity)
        if url is None or not message_id.isdigit():
            return False
        channel = message.severity
        answer = self._safely("PATCH", f"{url}/messages/{message_id}", message, channel)
        if answer.problem is not None:
            _log.warning("a message was not brought up to date (%s)", answer.problem)
        return answer.problem is None

    def _clean(self, message: Message) -> Message:
        """Without secrets; before anything is escaped, for an escaped secret is not recognised."""
        return replace(
            message,
            title=self._redactor.text(message.title),
            lines=tuple(self._redactor.text(line) for line in message.lines),
            footer=self._redactor.text(message.footer),
        )

    def _url(self, severity: Severity) -> str | None:
        if time.monotonic() < self._dead_until.get(severity, 0.0):
            return None
        return self._webhooks.get(severity)

    def _safely(self, method: str, url: str, message: Message, channel: Severity) -> "_Answer":
        try:
            return self._call(method, url, message, channel)
        except Exception as error:  # noqa: BLE001 - a notification never hurts its sender
            return _Answer(type(error).__name__)

    def _call(self, method: str, url: str, message: Message, channel: Severity) -> "_Answer":
        body = payload(message, self._links)
        headers = {"User-Agent": f"DiscordBot (zlh-dagster, {version('zlh-dagster')})"}
        with bounded_client(timeout=TIMEOUT, headers=headers, transport=self._transport) as client:
            for attempt in range(1, _ATTEMPTS + 1):
                answer = self._attempt(client, method, url, body)
                if answer.status in (401, 404) and method == "POST":
                    self._dead_until[channel] = time.monotonic() + DEAD_SECONDS
                    return _Answer(f"HTTP {answer.status}: {_dead(channel)}")
                if answer.problem is None or answer.wait is None or attempt == _ATTEMPTS:
                    return answer
                time.sleep(answer.wait)
        return _Answer("gave up")

    @staticmethod
    def _attempt(client: httpx.Client, method: str, url: str, body: Any) -> "_Answer":
        """One try: what went wrong, and after how long to try again."""
        try:
            with within(2 * TIMEOUT), client.stream(method, url, json=body) as response:
                status = response.status_code
                text = _beginning(response) if status in (200, 429) else b""
        except httpx.ConnectError:
            return _Answer("no connection", wait=0.5)
        except httpx.HTTPError as error:
            # The message may have arrived: sending it again could tell it twice.
            return _Answer(type(error).__name__)
        if status < 300:
            return _Answer(None, message_id=_message_id(text))
        if status == 429:
            wait = _retry_after(text)
            return _Answer("limited by Discord", wait=wait if wait <= LONGEST_WAIT else None)
        return _Answer(f"HTTP {status}", wait=0.5 if status >= 500 else None, status=status)


@dataclass(frozen=True, slots=True)
class _Answer:
    """What came of one call: the problem or none, and after how long to try again (or never)."""

    problem: str | None
    wait: float | None = None
    message_id: str = ""
    status: int = 0


def _dead(channel: Severity) -> str:
    return f"the {channel.value} webhook is dead, set a new one"


def _beginning(response: httpx.Response) -> bytes:
    """The first part of an answer, which may come as slowly and be as long as it likes."""
    if is_compressed(response):
        return b""
    give_up = time.monotonic() + TIMEOUT
    read = bytearray()
    for piece in response.iter_bytes():
        read += piece
        if len(read) >= _ENOUGH_BYTES or time.monotonic() > give_up:
            break
    return bytes(read)


def _retry_after(answer: bytes) -> float:
    try:
        return max(0.0, float(parse_json(answer)["retry_after"]))
    except (ValueError, KeyError, TypeError, OverflowError):
        return LONGEST_WAIT


def _message_id(answer: bytes) -> str:
    """The message's identifier; an answer too long or of another shape tells none."""
    try:
        found = str(parse_json(answer)["id"])
    except (ValueError, KeyError, TypeError):
        return ""
    return found if _ID.fullmatch(found) else ""
