"""What may be asked for over the control API, and with which values."""

import math
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True, slots=True)
class Option:
    """An option: its kind of value, and what it is when left out."""

    types: tuple[type, ...]
    default: Any
    words: tuple[str, ...] = ()
    low: float = 0
    high: float = math.inf

    def accepts(self, value: Any) -> bool:
        """Whether a value fits; true and false are no numbers here."""
        if isinstance(value, bool):
            return bool in self.types
        if isinstance(value, (int, float)) and not self.low <= value <= self.high:
            return False
        return isinstance(value, self.types) and (not self.words or value in self.words)
