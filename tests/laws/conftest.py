from collections.abc import Iterator

import dagster as dg
import pytest

from tests.harness import Loop


@pytest.fixture
def instance() -> Iterator[dg.DagsterInstance]:
    with dg.DagsterInstance.ephemeral() as instance:
        yield instance


@pytest.fixture
def loop(platform, instance) -> Loop:
    """A controller in live mode over the sandbox, its edge as the payloads ask."""
    return Loop(platform.services(), instance)
