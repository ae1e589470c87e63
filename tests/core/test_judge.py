"""One tick judged: what was not observed contributes nothing."""

from datetime import datetime, timezone

import pandas as pd
import pytest

from tests.core.builders import EDGE, PUBLIC, container, in_step, listing, platform
from zlh_dagster.core.desired import desired_edge
from zlh_dagster.core.judge import INVALID, Tick, judge
from zlh_dagster.core.model import DriftKind, Surface, records_frame
from zlh_dagster.core.policy import PolicyConfig
from zlh_dagster.core.snapshot import Outcome, Snapshot

NOW = datetime(2030, 1, 1, tzinfo=timezone.utc)


def snap(source: str, rows: pd.DataFrame, outcome=Outcome.OBSERVED, **values) -> Snapshot:
    reason = "" if outcome is Outcome.OBSERVED else f"{source} failed"
    return Snapshot(source, "tick", NOW, outcome, rows, reason, **values)


def tick_of(containers, rows, *, payloads=Outcome.OBSERVED, **outcomes: Outcome) -> Tick:
    """A tick in which some sources may have failed; a source that failed has no rows."""
    frame = platform(*containers)
    made = desired_edge(frame, EDGE)
    surfaces = {}
    for surface in Surface:
        outcome = outcomes.get(surface.value, Outcome.OBSERVED)
        own = [r for r in rows if r["surface"] == surface.value]
        seen = listing(own) if outcome is Outcome.OBSERVED else records_frame([])
        surfaces[surface] = snap(surface.value, seen, outcome)
    return Tick(
        payloads=snap("persisted_payloads", frame, payloads),
        desired=snap(
            "desired_edge",
            made.records,
            payloads,
            extra={INVALID: made.invalid.to_json(orient="records")},
        ),
        surfaces=surfaces,
    )


def judged(tick: Tick):
    return judge(tick, edge=EDGE, policy=PolicyConfig())


@pytest.fixture
def containers():
    return [container(5000), container(5001)]


@pytest.fixture
def rows(containers):
    return in_step(desired_edge(platform(*containers), EDGE).records)


def test_an_edge_in_step_was_compared_and_leads_to_nothing(containers, rows):
    made = judged(tick_of(containers, rows))
    assert made.compared == 10
    assert made.drift.empty
    assert made.counts() == dict.fromkeys((kind.value for kind in DriftKind), 0)
    assert (made.decisions.repairs, made.decisions.findings) == ((), ())


@pytest.mark.parametrize("surface", list(Surface))
@pytest.mark.parametrize("outcome", [Outcome.UNOBSERVED, Outcome.OFF])
def test_a_surface_that_was_not_seen_contributes_nothing(containers, rows, surface, outcome):
    """Everything on it is unknown, so nothing on it is missing and nothing is an orphan."""
    made = judged(tick_of(containers, rows, **{surface.value: outcome}))
    assert made.drift.empty
    assert made.decisions.repairs == ()
    assert made.compared == 10 - (2 if surface is Surface.VELOCITY else 4)


def test_unseen_surfaces_do_not_hide_the_drift_of_the_others(containers, rows):
    left = [r for r in rows if not (r["surface"] == "technitium" and r["type"] == "A")]
    made = judged(tick_of(containers, left, cloudflare=Outcome.UNOBSERVED))
    assert made.counts()["missing"] == 2
    assert [r.surfaces for r in made.decisions.repairs] == [(Surface.TECHNITIUM,)] * 2


def test_rows_of_an_unobserved_snapshot_are_not_looked_at(containers, rows):
    """A partial listing that slipped into a failed snapshot must not count as the truth."""
    tick = tick_of(containers, rows)
    stray = {"surface": "cloudflare", "type": "A", "name": "x.example.gg", "content": PUBLIC}
    surfaces = {
        **tick.surfaces,
        Surface.CLOUDFLARE: snap("cloudflare", listing([stray]), Outcome.UNOBSERVED),
    }
    made = judged(Tick(tick.payloads, tick.desired, surfaces))
    assert made.drift.empty


@pytest.mark.parametrize("outcome", [Outcome.UNOBSERVED, Outcome.OFF])
def test_without_payloads_nothing_is_judged(containers, rows, outcome):
    """No server known is not no server wanted: neither repairs nor orphans."""
    stray = {"surface": "velocity", "type": "BACKEND", "name": "mc-9", "content": None}
    made = judged(tick_of(containers, [*rows[3:], stray], payloads=outcome))
    assert (made.compared, made.decisions.repairs, made.decisions.findings) == (0, (), ())
    assert made.drift.empty
    assert made.counts()["orphan"] == 0


def test_an_empty_fleet_that_was_read_leaves_only_orphans():
    stray = {"surface": "velocity", "type": "BACKEND", "name": "mc-9", "content": None}
    made = judged(tick_of([], [stray]))
    assert made.counts() == {**dict.fromkeys((k.value for k in DriftKind), 0), "orphan": 1}
    assert [f.incident for f in made.decisions.findings] == ["orphan:velocity"]


def test_drift_and_orphans_are_counted_side_by_side(containers, rows):
    stray = {"surface": "cloudflare", "type": "A", "name": "old.example.gg", "content": PUBLIC}
    made = judged(tick_of(containers, [*rows[1:], stray]))
    assert {k: n for k, n in made.counts().items() if n} == {"missing": 1, "orphan": 1}
    assert len(made.drift) == 2


def test_an_unusable_row_is_told_and_its_records_are_no_orphans(containers, rows):
    broken = [container(5000, payload="rubbish"), containers[1]]
    made = judged(tick_of(broken, rows))
    assert made.drift.empty
    assert [f.incident for f in made.decisions.findings] == ["invalid:5000"]


def test_what_could_not_be_seen_is_named_with_its_reason(containers, rows):
    tick = tick_of(containers, rows, cloudflare=Outcome.UNOBSERVED, velocity=Outcome.OFF)
    assert tick.unobserved == {"cloudflare": "cloudflare failed"}
    lost = tick_of(containers, rows, payloads=Outcome.UNOBSERVED)
    assert lost.unobserved == {"persisted_payloads": "persisted_payloads failed"}
    assert len(tick.snapshots) == 5
