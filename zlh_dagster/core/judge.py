"""One tick judged: compare, policy, and what is worth telling about the tick itself."""

import json
from collections.abc import Collection, Mapping
from dataclasses import dataclass, replace
from datetime import datetime
from hashlib import blake2b

import pandas as pd

from zlh_dagster.core.compare import compare, empty_drift, orphans
from zlh_dagster.core.desired import (
    EdgeConfig,
    all_labels_known,
    claimed_labels,
    invalid_frame,
)
from zlh_dagster.core.fleet import operations_frame
from zlh_dagster.core.holds import NOTHING_HELD, Holds
from zlh_dagster.core.model import DriftKind, Surface, records_frame
from zlh_dagster.core.pairing import pair
from zlh_dagster.core.policy import PolicyConfig, decide, kept_back
from zlh_dagster.core.repair import Decisions
from zlh_dagster.core.snapshot import Outcome, Snapshot
from zlh_dagster.core.watch import Fleet, watch

INVALID = "invalid"
"""Key in the ``extra`` of the desired snapshot: servers whose rows cannot be used, as JSON."""


@dataclass(frozen=True, slots=True)
class Tick:
    """The snapshots of one tick."""

    payloads: Snapshot
    desired: Snapshot
    surfaces: Mapping[Surface, Snapshot]
    containers: Snapshot
    agents: Snapshot
    operations: Snapshot

    @property
    def id(self) -> str:
        """The run that observed it."""
        return self.payloads.tick

    @property
    def sources(self) -> tuple[Snapshot, ...]:
        """What was read from outside."""
        return (
            self.payloads,
            *self.surfaces.values(),
            self.containers,
            self.agents,
            self.operations,
        )

    @property
    def snapshots(self) -> tuple[Snapshot, ...]:
        """All of them, each after what it follows from."""
        return (self.payloads, self.desired, *self.sources[1:])

    @property
    def unobserved(self) -> dict[str, str]:
        """What could not be seen, with the reasons, by source."""
        return {s.source: s.reason for s in self.sources if s.outcome is Outcome.UNOBSERVED}

    @property
    def taken_at(self) -> datetime:
        """When the tick began to look; answers of agents may be those of a round before it."""
        return min(s.taken_at for s in self.snapshots if s is not self.agents)


@dataclass(frozen=True, slots=True)
class Judgement:
    """What one tick means.

    Attributes:
        drift: All drifts, orphans included, in the columns of ``DRIFT_COLUMNS``.
        decisions: What to repair and what to tell.
        compared: How many desired records were compared.
    """

    drift: pd.DataFrame
    decisions: Decisions
    compared: int

    def counts(self) -> dict[str, int]:
        """Drifts by kind, every kind present."""
        found = self.drift["kind"].value_counts()
        return {kind.value: int(found.get(kind.value, 0)) for kind in DriftKind}

    def fingerprint(self) -> str:
        """The same text for the same set of drifts, in whatever order; empty without drift."""
        if self.drift.empty:
            return ""
        columns = self.drift[["surface", "type", "name", "kind"]]
        hashes = pd.util.hash_pandas_object(columns, index=False).sort_values()
        return blake2b(hashes.to_numpy().tobytes(), digest_size=8).hexdigest()


def judge(
    tick: Tick,
    *,
    edge: EdgeConfig,
    policy: PolicyConfig,
    holds: Holds = NOTHING_HELD,
    level2: Collection[str] = (),
) -> Judgement:
    """Compares and decides; what was not observed contributes nothing.

    Args:
        tick: The snapshots.
        edge: Where servers are published.
        policy: Limits.
        holds: Pauses, breakers, approvals.
        level2: Level-2 actions that the operator has switched on.
    """
    if not tick.payloads.observed:
        return Judgement(empty_drift(), Decisions(), 0)
    seen = {s: snap for s, snap in tick.surfaces.items() if snap.observed}
    wanted = tick.desired.rows
    wanted = wanted[wanted["surface"].isin([s.value for s in seen])].reset_index(drop=True)
    frames = [snap.rows for snap in seen.values() if len(snap.rows)]
    observed = pd.concat(frames, ignore_index=True) if frames else records_frame([])
    pairing = pair(wanted, observed)
    drift = compare(wanted, observed, pairing)
    claimed = claimed_labels(tick.payloads.rows, edge.zone or "")
    # Only the few that nobody asks for are looked at by name.
    known = all_labels_known(tick.payloads.rows)
    others = observed[~pairing.asked_for & known].reset_index(drop=True)
    alone = orphans(others, claimed=claimed, desired=tick.desired.rows, config=edge)
    decisions = decide(
        drift,
        orphans=alone,
        invalid=invalid_frame(json.loads(tick.desired.extra.get(INVALID, "[]"))),
        desired=wanted,
        config=policy,
        holds=holds,
    )
    watched = watch(
        Fleet(
            payloads=tick.payloads.rows,
            containers=_seen(tick.containers),
            agents=_seen(tick.agents),
            operations=_operations(tick.operations),
            now=tick.taken_at,
        ),
        level2=level2,
    )
    free, kept = kept_back(watched.repairs, holds)
    both = [frame for frame in (drift, alone) if len(frame)]
    return Judgement(
        drift=pd.concat(both, ignore_index=True) if both else empty_drift(),
        decisions=replace(
            decisions,
            repairs=(*decisions.repairs, *free),
            findings=(*decisions.findings, *watched.findings),
            kept_back=(*decisions.kept_back, *kept),
        ),
        compared=len(wanted),
    )


def _seen(snapshot: Snapshot) -> pd.DataFrame | None:
    return snapshot.rows if snapshot.observed else None


def _operations(snapshot: Snapshot) -> pd.DataFrame | None:
    return operations_frame([]) if snapshot.outcome is Outcome.OFF else _seen(snapshot)
