"""Keeps secrets out of whatever leaves the process."""

import re
from collections.abc import Iterable
from typing import Any

MASK = "***"
_MIN_SECRET = 4
_PATTERNS = (
    re.compile(r"(?i)(/api/(?:v\d+/)?webhooks/)[^\s\"'<>)]+"),
    re.compile(r"(?i)(\bbearer\s+)[^\s\"',;<>)]+"),
    re.compile(r"(?i)(\bPVEAPIToken=)[^\s\"',;<>)]+"),
    re.compile(
        r"(?i)(\b(?:token|secret|password|passwd|api_key)[\"']?\s*[=:]\s*[\"']?)[^\s\"',;&<>)]+"
    ),
    # Only from the beginning of a word: a long one would otherwise cost the square of its length.
    re.compile(r"(?i)(?<![a-z0-9+.-])([a-z0-9+.-]+://[^\s:/@]*:)[^\s@/]+(?=@)"),
)


class Redactor:
    """Masks known secret values, and whatever looks like one.

    Args:
        secrets: Values to mask wherever they stand. Values shorter than four characters are left
            to the patterns: masking them would blank out ordinary words.
    """

    def __init__(self, secrets: Iterable[str] = ()) -> None:
        known = {s for s in secrets if len(s) >= _MIN_SECRET}
        # The longest first, so that a secret inside another one does not leave a rest.
        self._secrets = sorted(known, key=len, reverse=True)

    def text(self, text: str) -> str:
        """``text`` without secrets."""
        for secret in self._secrets:
            text = text.replace(secret, MASK)
        for pattern in _PATTERNS:
            text = pattern.sub(rf"\1{MASK}", text)
        return text

    def beginning(self, text: str, limit: int) -> str:
        """The first ``limit`` characters of ``text`` without secrets, however long it is."""
        # One character that is told stands for a whole secret at the most.
        longest = len(self._secrets[0]) if self._secrets else 1
        return self.text(text[: (limit + 1) * longest])[:limit]

    def json(self, value: Any) -> Any:
        """A JSON value in which every text is redacted, keys left alone."""
        if isinstance(value, str):
            return self.text(value)
        if isinstance(value, list):
            return [self.json(item) for item in value]
        if isinstance(value, dict):
            return {key: self.json(item) for key, item in value.items()}
        return value
