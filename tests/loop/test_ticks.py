"""What is read back of a tick."""

from dataclasses import replace

import pytest

from zlh_dagster.core.model import UNREADABLE
from zlh_dagster.core.policy import PAYLOADS
from zlh_dagster.resources.snapshots import SnapshotMissing
from zlh_dagster.resources.ticks import load_tick


def test_a_tick_of_an_earlier_version_is_left_and_the_next_one_judged(loop, sandbox):
    loop.observe()
    store = loop.services.snapshots
    tick = store.newest_first()[0]
    payloads = store.read(PAYLOADS, tick)
    store.write(replace(payloads, rows=payloads.rows.drop(columns=UNREADABLE)))
    with pytest.raises(SnapshotMissing, match="an earlier version"):
        load_tick(store, tick)
    assert loop.judge() == []
    assert sandbox.edge.discord.inbox() == []
    loop.minute()
    assert loop.services.pulse.last() is not None
