"""What tests of runs share."""

from pathlib import Path

import pytest


@pytest.fixture
def shipped_yaml() -> str:
    """The dagster.yaml that comes with the project."""
    return (Path(__file__).parents[2] / "dagster.yaml").read_text()
