"""One tick judged: what was not observed contributes nothing."""

from dataclasses import replace
from datetime import datetime, timezone

import pandas as pd
import pytest

from tests.core.builders import EDGE, PUBLIC, container, in_step, listing, platform
from zlh_dagster.core.desired import desired_edge
from zlh_dagster.core.fleet import agents_frame, containers_frame, operations_frame
from zlh_dagster.core.holds import Holds, Pause
from zlh_dagster.core.judge import INVALID, Tick, judge
from zlh_dagster.core.model import Action, DriftKind, Surface, records_frame
from zlh_dagster.core.policy import PolicyConfig
from zlh_dagster.core.repair import Decisions
from zlh_dagster.core.snapshot import Outcome, Snapshot

NOW = datetime(2030, 1, 1, tzinfo=timezone.utc)
BESIDE = {
    "containers": containers_frame([]),
    "agents": agents_frame([]),
    "operations": operations_frame([]),
}


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
        **{
            source: snap(source, made, outcomes.get(source, Outcome.OFF))
            for source, made in BESIDE.items()
        },
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
    made = judged(replace(tick, surfaces=surfaces))
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
    assert [f.incident for f in made.decisions.findings] == ["orphan:velocity:BACKEND mc-9"]


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


@pytest.fixture
def now_rust(containers):
    """The first server changed its game; what it had as a Minecraft server is still there."""
    return [container(5000, "rust"), containers[1]]


def left_over(made):
    return [f.incident for f in made.decisions.findings if f.incident.startswith("orphan")]


LEFT = [
    "orphan:cloudflare:SRV _minecraft._tcp.mc-5000.example.gg",
    "orphan:technitium:SRV _minecraft._tcp.mc-5000.example.gg",
    "orphan:velocity:BACKEND mc-5000",
]


def test_what_a_server_left_behind_is_told_beside_what_it_lacks_now(now_rust, rows):
    made = judged(tick_of(now_rust, rows))
    assert left_over(made) == LEFT
    assert made.counts()["orphan"] == 3
    [request] = made.decisions.repairs
    assert request.surfaces == (Surface.CLOUDFLARE, Surface.TECHNITIUM)


@pytest.mark.parametrize("outcome", [Outcome.UNOBSERVED, Outcome.OFF])
@pytest.mark.parametrize("surface", list(Surface))
def test_nothing_is_left_over_where_nothing_was_seen(now_rust, rows, surface, outcome):
    made = judged(tick_of(now_rust, rows, **{surface.value: outcome}))
    assert left_over(made) == [name for name in LEFT if surface.value not in name]


def test_a_backend_is_left_over_also_while_no_zone_is_seen(now_rust, rows):
    unseen = dict.fromkeys(("cloudflare", "technitium"), Outcome.UNOBSERVED)
    assert left_over(judged(tick_of(now_rust, rows, **unseen))) == LEFT[2:]


def test_without_payloads_nothing_is_left_over(now_rust, rows):
    assert left_over(judged(tick_of(now_rust, rows, payloads=Outcome.UNOBSERVED))) == []


def test_a_host_name_that_cannot_be_read_may_be_that_of_any_record(now_rust, rows):
    nameless = container(5002, hostname=None, unreadable="hostname: is not text")
    assert left_over(judged(tick_of([*now_rust, nameless], rows))) == []


def test_what_could_not_be_seen_is_named_with_its_reason(containers, rows):
    tick = tick_of(containers, rows, cloudflare=Outcome.UNOBSERVED, velocity=Outcome.OFF)
    assert tick.unobserved == {"cloudflare": "cloudflare failed"}
    lost = tick_of(containers, rows, payloads=Outcome.UNOBSERVED)
    assert lost.unobserved == {"persisted_payloads": "persisted_payloads failed"}
    assert len(tick.snapshots) == 8


# --- beside the edge -----------------------------------------------------------------------------

STUCK = {
    "id": "op-1",
    "vmid": 5900,
    "type": "create",
    "queue": "provisioning",
    "jobId": "1",
    "status": "queued",
    "createdAt": "2029-12-31T23:00:00.000000+00:00",
    "job": "gone",
    "deadSince": "2029-12-31T23:50:00.000000+00:00",
    "deadReads": 2,
}
SILENT = {"vmid": 5000, "address": "10.60.0.1", "answer": "silent"}
UP = [{"vmid": 5000, "status": "running"}]


def with_fleet(tick, **outcomes):
    """A silent agent and a stuck operation beside the edge."""
    made = {
        "containers": containers_frame(UP),
        "agents": agents_frame([SILENT]),
        "operations": operations_frame([STUCK]),
    }
    snapshots = {
        source: snap(source, frame, outcomes.get(source, Outcome.OBSERVED))
        for source, frame in made.items()
    }
    return replace(tick, **snapshots)


def test_edge_and_fleet_are_decided_together(containers, rows):
    made = judged(with_fleet(tick_of(containers, rows[1:])))
    assert [request.action for request in made.decisions.repairs] == [
        Action.DNS_REPUBLISH,
        Action.FAIL_STUCK_PROVISIONING,
    ]
    assert [f.incident for f in made.decisions.findings] == ["agent_offline:5000"]


@pytest.mark.parametrize(
    ("source", "outcome", "repairs", "findings"),
    [
        ("containers", Outcome.UNOBSERVED, ["op-1"], []),
        ("containers", Outcome.OFF, ["op-1"], []),
        ("agents", Outcome.UNOBSERVED, ["op-1"], []),
        ("agents", Outcome.OFF, ["op-1"], []),
        # Somebody may restart the server just now, unless there are no operations at all.
        ("operations", Outcome.UNOBSERVED, [], []),
        ("operations", Outcome.OFF, [], ["agent_offline:5000"]),
    ],
)
def test_rows_of_a_source_that_was_not_seen_decide_nothing(
    containers, rows, source, outcome, repairs, findings
):
    made = judged(with_fleet(tick_of(containers, rows), **{source: outcome}))
    assert [request.target for request in made.decisions.repairs] == repairs
    assert [f.incident for f in made.decisions.findings] == findings


def test_without_payloads_the_fleet_is_not_judged_either(containers, rows):
    made = judged(with_fleet(tick_of(containers, rows, payloads=Outcome.UNOBSERVED)))
    assert made.decisions == Decisions()


@pytest.mark.parametrize(
    ("scope", "kept"), [("everything", True), ("server:5900", True), ("server:5000", False)]
)
def test_a_pause_keeps_repairs_beside_the_edge_back_too(containers, rows, scope, kept):
    holds = Holds(NOW.timestamp(), {scope: Pause(scope, "x", 0.0)})
    tick = with_fleet(tick_of(containers, rows))
    decided = judge(tick, edge=EDGE, policy=PolicyConfig(), holds=holds).decisions
    assert [r.target for r in decided.repairs] == ([] if kept else ["op-1"])
    assert [r.target for r, _ in decided.kept_back] == (["op-1"] if kept else [])


def test_the_same_drift_has_the_same_fingerprint_in_whatever_order(containers, rows):
    made = judged(tick_of(containers, rows[3:]))
    turned = replace(made, drift=made.drift.iloc[::-1].reset_index(drop=True))
    assert len(made.drift) > 1
    assert made.fingerprint() == turned.fingerprint() != ""
    fewer = replace(made, drift=made.drift.iloc[1:])
    other = replace(made, drift=made.drift.assign(kind="wrong"))
    assert len({m.fingerprint() for m in (made, fewer, other)}) == 3


def test_without_drift_there_is_no_fingerprint(containers, rows):
    assert judged(tick_of(containers, rows)).fingerprint() == ""
