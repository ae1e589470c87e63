"""The files of `deploy/`, read."""

from pathlib import Path
from typing import Any

import yaml

from zlh_dagster.resources.settings import Settings

ROOT = Path(__file__).parents[2]
DEPLOY = ROOT / "deploy"
SETTINGS = {name.upper() for name in Settings.model_fields}


def read_yaml(path: Path) -> Any:
    return yaml.safe_load(path.read_text())
