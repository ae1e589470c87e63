"""Discord: one webhook a channel, one function an alert level, and never in anybody's way.

Sending is bounded in time and never raises. What could not be delivered is in the log, whole.
"""

import json
import logging
import time
from collections.abc import Mapping
from importlib.metadata import version
from typing import Any

import httpx

from zlh_dagster.core.messages import Message, payload
from zlh_dagster.core.redact import Redactor
from zlh_dagster.core.repair import Severity

TIMEOUT = 3.0
LONGEST_WAIT = 5.0
"""Seconds waited at the most when Discord limits; a longer wish is not granted."""

_ATTEMPTS = 3
_ENOUGH_BYTES = 4096
_log = logging.getLogger(__name__)


class Discord:
    """The notification service.

    Args:
        webhooks: URL of each channel; a level without one is only logged.
        redactor: Applied to every message.
        transport: For tests.
    """

    def __init__(
        self,
        webhooks: Mapping[Severity, str],
        *,
        redactor: Redactor,
        transport: httpx.BaseTransport | None = None,
    ) -> None:
        self._webhooks = dict(webhooks)
        self._redactor = redactor
        self._transport = transport
        self._dead: set[Severity] = set()

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
        text = self._redactor.text(message.text())
        url = self._webhooks.get(message.severity)
        if url is None or message.severity in self._dead:
            _log.warning(
                "not sent to Discord (no webhook for %s): %s", message.severity.value, text
            )
            return False
        try:
            problem = self._post(url, message)
        except Exception as error:  # noqa: BLE001 - a notification never hurts its sender
            problem = type(error).__name__
        if problem is None:
            return True
        _log.error("not sent to Discord (%s): %s", problem, text)
        return False

    def _post(self, url: str, message: Message) -> str | None:
        body = self._redactor.json(payload(message))
        headers = {"User-Agent": f"DiscordBot (zlh-dagster, {version('zlh-dagster')})"}
        with httpx.Client(timeout=TIMEOUT, headers=headers, transport=self._transport) as client:
            for attempt in range(1, _ATTEMPTS + 1):
                problem, wait = self._attempt(client, url, body, message.severity)
                if problem is None or wait is None or attempt == _ATTEMPTS:
                    return problem
                time.sleep(wait)
        return "gave up"

    def _attempt(
        self, client: httpx.Client, url: str, body: Any, severity: Severity
    ) -> tuple[str | None, float | None]:
        """One try: what went wrong (or ``None``), and after how long to try again (or never)."""
        try:
            with client.stream("POST", url, json=body) as response:
                status = response.status_code
                answer = _beginning(response) if status == 429 else b""
        except httpx.ConnectError:
            return "no connection", 0.5
        except httpx.HTTPError as error:
            # The message may have arrived: sending it again could tell it twice.
            return type(error).__name__, None
        if status < 300:
            return None, None
        if status in (401, 404):
            self._dead.add(severity)
            return f"HTTP {status}: the {severity.value} webhook is dead, set a new one", None
        if status == 429:
            wait = _retry_after(answer)
            return "limited by Discord", wait if wait <= LONGEST_WAIT else None
        return f"HTTP {status}", 0.5 if status >= 500 else None


def _beginning(response: httpx.Response) -> bytes:
    """The first part of an answer, which may come as slowly and be as long as it likes."""
    give_up = time.monotonic() + TIMEOUT
    read = bytearray()
    for piece in response.iter_bytes():
        read += piece
        if len(read) >= _ENOUGH_BYTES or time.monotonic() > give_up:
            break
    return bytes(read)


def _retry_after(answer: bytes) -> float:
    try:
        return max(0.0, float(json.loads(answer)["retry_after"]))
    except (ValueError, KeyError, TypeError):
        return LONGEST_WAIT
