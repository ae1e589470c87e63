"""Agents of a large fleet: asked in shards between two ticks, each shard wherever a run goes.

A round is one question to all agents. It belongs to the tick whose rows it was made from, and the
next tick takes its answers once every shard has kept its part.
"""

import math
import re
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any

import pandas as pd

from zlh_dagster.core.desired import readable
from zlh_dagster.core.fleet import agents_frame
from zlh_dagster.core.policy import AGENTS
from zlh_dagster.core.snapshot import MAX_AGE, Outcome, Snapshot
from zlh_dagster.resources.snapshots import SnapshotMissing, SnapshotStore

_FRESH = MAX_AGE - timedelta(seconds=30)
"""An older round is not taken: the tick that takes it must still be fresh when it is judged."""

_OLD = f"the last whole round of the agents' shards is older than {_FRESH.total_seconds():.0f} s"
_NAME = re.compile(r"(\d+)-of-(\d+)")


@dataclass(frozen=True, slots=True)
class Shard:
    """One of several parts of all agents; ``number`` counts from 0."""

    number: int
    of: int

    @property
    def name(self) -> str:
        """How its snapshot is called, and its partition."""
        return f"{self.number:03}-of-{self.of:03}"

    @staticmethod
    def parse(name: str) -> "Shard":
        """The shard of a partition's name.

        Raises:
            ValueError: If it is none.
        """
        match = _NAME.fullmatch(name)
        if match is None or int(match[1]) >= int(match[2]):
            raise ValueError(f"{name!r} names no shard; shards are named as in 003-of-012")
        return Shard(int(match[1]), int(match[2]))

    def part(self, rows: pd.DataFrame) -> pd.DataFrame:
        """Its rows: every so many, so that all shards take about as long."""
        return rows.iloc[self.number :: self.of]


def to_ask(rows: pd.DataFrame) -> pd.DataFrame:
    """The servers whose agents should answer."""
    rows = readable(rows)
    return rows[rows["lifecycle"].isin(["active", "suspended"])]


def shards_for(rows: int, size: int) -> list[Shard]:
    """Shards for so many agents; none while they are few enough for the tick itself."""
    number = math.ceil(rows / size) if rows > size else 0
    return [Shard(n, number) for n in range(number)]


def merge(store: SnapshotStore, tick: str, *, now: datetime) -> Snapshot:
    """What the newest round found, as the tick's own snapshot of the agents.

    Its time is that of the shard that was asked first, so that old answers are seen to be old.

    Args:
        store: Where rounds are kept.
        tick: Identifier of the tick that takes it.
        now: Which rounds are still fresh.
    """
    reason = "no round of the agents' shards has begun yet"
    rounds = sorted(store.ticks().items(), key=lambda found: found[1], reverse=True)
    for name, written in rounds:
        if written < now - _FRESH:
            reason = _OLD
            break
        try:
            parts = _parts(store, name)
        except (_Incomplete, SnapshotMissing) as error:
            reason = str(error)
            continue
        if min(part.taken_at for part in parts) < now - _FRESH:
            reason = _OLD
            continue
        return _merged(parts, tick)
    return Snapshot(AGENTS, tick, now, Outcome.UNOBSERVED, agents_frame([]), reason)


class _Incomplete(Exception):
    """Not every shard of a round has kept its part."""


def _parts(store: SnapshotStore, name: str) -> list[Snapshot]:
    found = [_NAME.fullmatch(source) for source in store.sources(name)]
    numbers = {(int(match[1]), int(match[2])) for match in found if match}
    of = max((of for _, of in numbers), default=0)
    shards = [Shard(number, of) for number in range(of)]
    missing = [shard.name for shard in shards if (shard.number, of) not in numbers]
    if missing or not shards:
        raise _Incomplete(f"shards of the agents that have not answered yet: {missing[:5]}")
    return [store.read(shard.name, name) for shard in shards]


def _merged(parts: Sequence[Snapshot], tick: str) -> Snapshot:
    unseen = [part for part in parts if not part.observed]
    facts: dict[str, Any] = {
        "source": AGENTS,
        "tick": tick,
        "taken_at": min(part.taken_at for part in parts),
        "requests": sum(part.requests for part in parts),
        "seconds": max(part.seconds for part in parts),
    }
    if unseen:
        reason = f"shard {unseen[0].source} of the agents: {unseen[0].reason}"
        return Snapshot(outcome=unseen[0].outcome, rows=agents_frame([]), reason=reason, **facts)
    rows = pd.concat([part.rows for part in parts], ignore_index=True)
    in_order = rows.sort_values("vmid", ignore_index=True)
    return Snapshot(outcome=Outcome.OBSERVED, rows=in_order, **facts)
