"""What the pages say, for the tests that compare it."""

import re
from pathlib import Path

ROOT = Path(__file__).parents[2]


def documented_keys(command: str) -> set[str]:
    """Keys in the table of a command on the page."""
    page = (ROOT / "docs/json.md").read_text()
    section = page.split(f"## `zlh {command}`\n")[1].split("\n## ")[0]
    cells = [row.split("|")[1] for row in section.splitlines() if row.startswith("| `")]
    return {name for cell in cells for name in re.findall(r"`(\w+)`", cell)}
