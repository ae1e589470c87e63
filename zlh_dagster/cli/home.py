"""The state directory of one deployment."""

import shutil
from pathlib import Path

import zlh_dagster


def prepare_home(home: Path) -> str | None:
    """Makes the directory and gives it Dagster's configuration, unless it has one of its own.

    Returns:
        What to tell the operator, where there is something.
    """
    home.mkdir(mode=0o700, parents=True, exist_ok=True)
    shipped = Path(zlh_dagster.__file__).parent.parent / "dagster.yaml"
    mine = home / "dagster.yaml"
    if not mine.exists():
        shutil.copyfile(shipped, mine)
    elif shipped.exists() and mine.read_bytes() != shipped.read_bytes():
        return f"{mine} differs from the one that comes with this version; yours is used"
    return None
