"""Some faults of real processes under a repair; `make soak` has all of them, over and over."""

import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.faults.catalogue import ALL
from tests.faults.rig import Fault, Rig

pytestmark = [pytest.mark.slow, pytest.mark.timeout(300)]
QUICK = [fault for fault in ALL if fault.quick]


@pytest.fixture(scope="module")
def rig() -> Iterator[Rig]:
    with tempfile.TemporaryDirectory(prefix="zlh-") as directory:
        made = Rig(Path(directory))
        try:
            yield made.start()
        finally:
            made.close()


@pytest.mark.parametrize("fault", QUICK, ids=lambda fault: fault.name)
def test_the_loop_goes_on_by_itself(rig: Rig, fault: Fault) -> None:
    """And no law is broken on the way."""
    seen = rig.endure(fault)
    assert seen.statuses["succeeded"] >= 1
