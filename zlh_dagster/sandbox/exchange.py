"""One HTTP call and its answer, as plain values.

Every surface is a synchronous function from one to the other. That keeps the pretend providers
free of the web framework, and lets a fault be laid over any of them.
"""

import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import parse_qsl

JsonObject = dict[str, Any]


@dataclass(frozen=True, slots=True)
class Call:
    """A request, read to its end."""

    method: str
    path: str
    params: Mapping[str, str]
    query: Mapping[str, str]
    headers: Mapping[str, str]
    body: bytes

    def json_object(self) -> JsonObject | None:
        """The body as a JSON object, or nothing when it is anything else."""
        try:
            value = json.loads(self.body)
        except ValueError:
            return None
        return value if isinstance(value, dict) else None

    def fields(self) -> dict[str, str]:
        """Query and form fields together; the form wins."""
        merged = dict(self.query)
        if self.headers.get("content-type", "").startswith("application/x-www-form-urlencoded"):
            form = self.body.decode("utf-8", errors="replace")
            merged.update(parse_qsl(form, keep_blank_values=True))
        return merged

    def bearer(self) -> str | None:
        """The bearer token, or nothing when there is none."""
        scheme, _, token = self.headers.get("authorization", "").partition(" ")
        return token.strip() or None if scheme.lower() == "bearer" else None


@dataclass(frozen=True, slots=True)
class Answer:
    """A response: a JSON body, or raw bytes of some other type."""

    status: int = 200
    body: Any = None
    headers: Mapping[str, str] = field(default_factory=dict)
    raw: bytes | None = None
    media_type: str = "application/json"

    def encoded(self) -> bytes:
        """The bytes of the body; none at all for an answer without one."""
        if self.raw is not None:
            return self.raw
        if self.body is None:
            return b""
        return json.dumps(self.body, separators=(",", ":")).encode()


Handler = Callable[[Call], Answer]
