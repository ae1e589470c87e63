"""Lines for people: as wide as the window, and nothing of a name cut off."""

import textwrap
from datetime import datetime, timezone

from rich.console import Console
from rich.text import Text

_NARROWEST = 20


def hang(out: Console, head: str, text: str, *, style: str = "") -> None:
    """Prints ``text`` behind ``head``, which is markup; further lines stand below its beginning."""
    before = Text.from_markup(head)
    room = max(out.width - before.cell_len, _NARROWEST)
    for line in wrapped(text, room):
        out.print(before.append(line, style=style))
        before = Text(" " * Text.from_markup(head).cell_len)


def wrapped(text: str, width: int) -> list[str]:
    """``text`` in lines of at most ``width``, but for a word that is longer; one line at least."""
    lines = textwrap.wrap(text, width, break_long_words=False, break_on_hyphens=False)
    return lines or [""]


def counted(number: int, thing: str) -> str:
    """``1 record``, ``2 records``."""
    return f"{number} {thing}" if number == 1 else f"{number} {thing}s"


def utc(moment: datetime) -> str:
    """``2030-01-31 18:30:00 UTC``."""
    return f"{moment.astimezone(timezone.utc):%Y-%m-%d %H:%M:%S} UTC"
