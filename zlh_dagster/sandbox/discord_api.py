"""Discord's webhooks, one for each level, and the inbox of what they were sent."""

import threading
import time
from collections import deque
from dataclasses import asdict, dataclass, replace
from itertools import count
from typing import Any

from zlh_dagster.sandbox.clock import utc_text
from zlh_dagster.sandbox.discord_limits import broken_limits, is_empty
from zlh_dagster.sandbox.exchange import Answer, Call, Handler, JsonObject

LEVELS = ("critical", "warning", "repair", "info")

_BURST = 5
_BURST_SECONDS = 2.0
_FIRST_ID = 1_300_000_000_000_000_000


@dataclass(frozen=True, slots=True)
class Edit:
    """A change of a message that stands already."""

    at: str
    payload: JsonObject


@dataclass(frozen=True, slots=True)
class Message:
    """A message that a webhook took."""

    id: str
    level: str
    at: str
    payload: JsonObject
    edits: tuple[Edit, ...] = ()

    def to_json(self) -> JsonObject:
        """The message as the control API shows it."""
        return asdict(self)

    def current(self) -> JsonObject:
        """What a reader of the channel sees now."""
        shown = dict(self.payload)
        for edit in self.edits:
            shown.update(edit.payload)
        return shown


def refusal(status: int, code: int, message: str, **more: Any) -> Answer:
    """An error as Discord words it."""
    return Answer(status=status, body={"message": message, "code": code, **more})


def rate_limited(retry_after: float) -> Answer:
    """The answer to one request too many."""
    return Answer(
        status=429,
        body={
            "message": "You are being rate limited.",
            "retry_after": retry_after,
            "global": False,
        },
        headers={"Retry-After": str(max(1, round(retry_after)))},
    )


class DiscordApi:
    """Answers calls on the webhooks."""

    def __init__(self, lock: threading.RLock) -> None:
        self._lock = lock
        self._ids = count(_FIRST_ID)
        self._messages: dict[str, Message] = {}
        self._recent: dict[str, deque[float]] = {level: deque() for level in LEVELS}

    def inbox(self) -> list[Message]:
        """All messages in the order they came."""
        with self._lock:
            return list(self._messages.values())

    def clear(self) -> None:
        """Forget the messages and the rate limits."""
        with self._lock:
            self._messages.clear()
            for recent in self._recent.values():
                recent.clear()

    def checkpoint(self) -> dict[str, Message]:
        """Remember the messages, to go back to them."""
        with self._lock:
            return dict(self._messages)

    def restore(self, checkpoint: dict[str, Message]) -> None:
        """Go back to what was remembered."""
        with self._lock:
            self._messages = dict(checkpoint)

    def guarded(self, handler: Handler) -> Handler:
        """A handler behind the webhook's existence and its rate limit."""

        def answer(call: Call) -> Answer:
            level = call.params["level"]
            if level not in LEVELS:
                return refusal(404, 10015, "Unknown Webhook")
            wait = self._seconds_to_wait(level)
            return handler(call) if wait is None else rate_limited(wait)

        return answer

    def read(self, call: Call) -> Answer:
        """The webhook itself."""
        level = call.params["level"]
        return Answer(body={"id": f"{LEVELS.index(level) + 1}", "type": 1, "name": level})

    def post(self, call: Call) -> Answer:
        """Take a message."""
        payload = call.json_object()
        refused = _refused(payload)
        if payload is None or refused is not None:
            return refused or refusal(400, 50109, "The request body contains invalid JSON.")
        message = Message(str(next(self._ids)), call.params["level"], utc_text(), payload)
        self._messages[message.id] = message
        if call.query.get("wait", "false").lower() != "true":
            return Answer(status=204)
        return Answer(body=_shown(message))

    def patch(self, call: Call) -> Answer:
        """Change a message."""
        message = self._messages.get(call.params["message_id"])
        if message is None or message.level != call.params["level"]:
            return refusal(404, 10008, "Unknown Message")
        payload = call.json_object()
        refused = _refused(payload, {} if payload is None else {**message.current(), **payload})
        if payload is None or refused is not None:
            return refused or refusal(400, 50109, "The request body contains invalid JSON.")
        message = replace(message, edits=(*message.edits, Edit(utc_text(), payload)))
        self._messages[message.id] = message
        return Answer(body=_shown(message))

    def no_route(self, call: Call) -> Answer:
        """A path that the pretend API does not have."""
        return refusal(404, 0, "404: Not Found")

    def _seconds_to_wait(self, level: str) -> float | None:
        """Count a request; says how long to wait when it is one too many."""
        now = time.monotonic()
        recent = self._recent[level]
        while recent and now - recent[0] >= _BURST_SECONDS:
            recent.popleft()
        if len(recent) >= _BURST:
            return round(_BURST_SECONDS - (now - recent[0]) + 0.001, 3)
        recent.append(now)
        return None


def _refused(payload: JsonObject | None, result: JsonObject | None = None) -> Answer | None:
    if payload is None:
        return None
    if is_empty(payload if result is None else result):
        return refusal(400, 50006, "Cannot send an empty message")
    broken = broken_limits(payload)
    if broken:
        errors = {"_errors": [{"code": "BASE_TYPE_MAX_LENGTH", "message": m} for m in broken]}
        return refusal(400, 50035, "Invalid Form Body", errors=errors)
    return None


def _shown(message: Message) -> JsonObject:
    current = message.current()
    return {
        "id": message.id,
        "type": 0,
        "content": current.get("content") or "",
        "embeds": current.get("embeds") or [],
        "channel_id": f"{LEVELS.index(message.level) + 101}",
        "webhook_id": f"{LEVELS.index(message.level) + 1}",
        "timestamp": message.at,
        "edited_timestamp": message.edits[-1].at if message.edits else None,
    }
