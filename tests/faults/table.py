"""Puts the last soak's figures into docs/reliability.md: `python -m tests.faults.table`.

A kind of fault that it did not meet keeps the row it has; the page has a row for each kind.
"""

import json
import re
import sys
from pathlib import Path
from typing import Any

from tests.faults.catalogue import ALL
from tests.faults.soak import RESULTS

PAGE = Path(__file__).parents[2] / "docs" / "reliability.md"
HEAD = (
    "| fault | promised | rows in the ledger | back after s: median / worst | in `make test` |\n"
    "| --- | --- | --- | --- | --- |\n"
)
ROW = re.compile(r"^\| (.+?) \| .+? \| (.+) \| (.+) \| (?:yes|-) \|$", re.M)


def table(page: str, met: dict[str, dict[str, Any]]) -> str:
    """The page's table, anew.

    Args:
        page: Its text, with a table.
        met: For each fault's name ``rows``, ``median`` and ``worst``, as in soak.json.

    Raises:
        KeyError: If a fault was never met: neither now nor by the page.
    """
    figures = {name: (rows, back) for name, rows, back in ROW.findall(page)}
    for name, row in met.items():
        figures[name] = (row["rows"], f"{row['median']:.0f} / {row['worst']:.0f}")
    lines = [
        f"| {f.name} | {f.promise} | {figures[f.name][0]} | {figures[f.name][1]} "
        f"| {'yes' if f.quick else '-'} |\n"
        for f in ALL
    ]
    before, _, rest = page.partition("| fault |")
    after = rest[rest.index("\n\n") :]
    return before + HEAD + "".join(lines).rstrip("\n") + after


def main() -> int:
    """Writes the page, and says what the soak did not meet."""
    met = {row["fault"]: row for row in json.loads(RESULTS.read_text())["faults"]}
    PAGE.write_text(table(PAGE.read_text(), met))
    for fault in ALL:
        if fault.name not in met:
            sys.stdout.write(f"kept as it was: {fault.name}\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
