"""From drift to decision: what is repaired, what is only told, and the limits between."""

from dataclasses import replace

import pandas as pd
import pytest

from tests.core.builders import (
    EDGE,
    PUBLIC,
    changed,
    container,
    desired,
    fleet,
    in_step,
    listing,
    without,
)
from zlh_dagster.core.compare import compare, empty_drift, orphans
from zlh_dagster.core.desired import INVALID_COLUMNS, desired_frame
from zlh_dagster.core.holds import Holds, Pause
from zlh_dagster.core.messages import plain
from zlh_dagster.core.model import Action, Surface
from zlh_dagster.core.policy import NAMED_IN_A_MESSAGE, PolicyConfig, action_for, decide
from zlh_dagster.core.repair import Decisions, RepairRequest
from zlh_dagster.core.rules import RULES, Kind, Severity

CF, TN, VE = Surface.CLOUDFLARE, Surface.TECHNITIUM, Surface.VELOCITY
NOBODY = pd.DataFrame(columns=list(INVALID_COLUMNS))


def decisions(wanted, rows, *, alone=None, invalid=NOBODY, **limits):
    return decide(
        compare(wanted, listing(rows)),
        orphans=empty_drift() if alone is None else alone,
        invalid=invalid,
        desired=wanted,
        config=PolicyConfig(**limits),
    )


def gone(rows, servers: int, surface: str, kind: str = "A"):
    """The rows without one record of each of the first servers."""
    hosts = [f"mc-{5000 + n}" for n in range(servers)]
    return [
        row
        for row in rows
        if not (
            row["surface"] == surface
            and row["type"] == kind
            and row["name"].removeprefix("_minecraft._tcp.").split(".")[0] in hosts
        )
    ]


@pytest.mark.parametrize(
    ("surfaces", "action"),
    [
        ((CF,), Action.DNS_REPUBLISH),
        ((TN,), Action.DNS_REPUBLISH),
        ((CF, TN), Action.DNS_REPUBLISH),
        ((VE,), Action.VELOCITY_REREGISTER),
        ((CF, VE), Action.EDGE_REPUBLISH),
        ((TN, VE), Action.EDGE_REPUBLISH),
        ((CF, TN, VE), Action.EDGE_REPUBLISH),
    ],
)
def test_the_narrowest_action_that_covers_what_drifts_is_chosen(surfaces, action):
    wanted = fleet(1)
    rows = [row for row in in_step(wanted) if Surface(row["surface"]) not in surfaces]
    assert action_for(surfaces) is action
    made = decisions(wanted, rows)
    [request] = made.repairs
    assert (request.vmid, request.action, request.surfaces) == (5000, action, surfaces)
    assert request.covers == tuple(s for s in action.surfaces if s in surfaces)
    assert made.findings == ()


def test_a_surface_that_does_not_drift_is_not_among_those_that_are_written():
    wanted = fleet(1)
    [request] = decisions(wanted, gone(in_step(wanted), 1, "technitium")).repairs
    assert request.surfaces == (TN,)
    assert set(request.covers) == {TN}


def test_a_server_gets_one_repair_however_much_of_it_drifts():
    wanted = fleet(3)
    made = decisions(wanted, [])
    assert [request.vmid for request in made.repairs] == [5000, 5001, 5002]
    assert {request.reason for request in made.repairs} == {
        "cloudflare A missing, cloudflare SRV missing, technitium A missing,"
        " technitium SRV missing, velocity BACKEND missing"
    }


@pytest.fixture
def told_only(monkeypatch):
    """Rows of the policy as they would be if somebody changed them to level 0."""

    def told_only(*kinds):
        for kind in kinds:
            monkeypatch.setitem(RULES, kind, replace(RULES[kind], level=0))

    return told_only


def test_a_kind_of_level_0_is_told_and_not_repaired(told_only):
    told_only(Kind.DNS_DRIFT, Kind.BACKEND_MISSING)
    made = decisions(fleet(1), [])
    assert made.repairs == ()
    assert [(f.incident, f.action, f.severity) for f in made.findings] == [
        ("dns_drift:5000", Action.DNS_REPUBLISH, Severity.REPAIR),
        ("backend_missing:5000", Action.VELOCITY_REREGISTER, Severity.REPAIR),
    ]
    assert "technitium SRV missing" in made.findings[0].text
    assert set(made.findings[1].sources) == {"velocity_backends", "persisted_payloads"}


@pytest.mark.parametrize(
    ("kind", "action", "surfaces"),
    [
        (Kind.DNS_DRIFT, Action.VELOCITY_REREGISTER, (VE,)),
        (Kind.BACKEND_MISSING, Action.DNS_REPUBLISH, (CF, TN)),
    ],
)
def test_a_kind_of_level_0_leaves_the_other_to_be_repaired(told_only, kind, action, surfaces):
    told_only(kind)
    made = decisions(fleet(1), [])
    [request] = made.repairs
    assert (request.action, request.surfaces) == (action, surfaces)
    assert [f.kind for f in made.findings] == [kind.value]


def test_no_drift_leads_to_nothing():
    wanted = fleet(3)
    made = decisions(wanted, in_step(wanted))
    assert made == Decisions()


@pytest.mark.parametrize("kind", ["missing", "wrong", "disabled"])
def test_dns_that_can_be_put_back_is_repaired(kind):
    wanted = fleet(1)
    rows, key = in_step(wanted), {"surface": "technitium", "type": "A"}
    rows = {
        "missing": without(rows, **key),
        "wrong": changed(rows, key, content="10.70.0.9"),
        "disabled": changed(rows, key, disabled=True),
    }[kind]
    made = decisions(wanted, rows)
    reason = f"technitium A {kind}"
    assert made.repairs == (RepairRequest(5000, Action.DNS_REPUBLISH, (TN,), reason=reason),)
    assert made.findings == ()


def test_duplicates_and_conflicts_are_escalated_and_not_touched():
    wanted = fleet(1)
    rows = in_step(wanted)
    twice = [*rows, {**rows[0], "content": "198.51.100.1", "record_id": "second"}]
    made = decisions(wanted, twice)
    assert made.repairs == ()
    [finding] = made.findings
    assert finding.incident == "duplicate:cloudflare:5000:A"
    assert finding.severity is Severity.WARNING
    assert "more than one record" in finding.text
    assert "Wanted 203.0.113.10" in finding.text

    held = {**rows[0], "type": "CNAME", "content": "elsewhere.example.com"}
    made = decisions(wanted, [held, *rows[1:]])
    assert made.repairs == ()
    [finding] = made.findings
    assert finding.incident == "conflict:cloudflare:5000:A"
    assert "CNAME" in finding.text
    assert "found nothing" in finding.text


def test_a_backend_at_another_address_is_escalated_as_level_2():
    wanted = fleet(1)
    rows = changed(in_step(wanted), {"surface": "velocity"}, content="10.60.0.99:25565")
    made = decisions(wanted, rows)
    assert made.repairs == ()
    [finding] = made.findings
    assert finding.action is Action.VELOCITY_REPOINT
    assert finding.action.level == 2
    assert "would move players" in finding.text
    assert "10.60.0.99:25565" in finding.text


def test_what_is_escalated_does_not_stop_the_rest_of_that_server():
    wanted = fleet(1)
    rows = changed(in_step(wanted), {"surface": "velocity"}, content="10.60.0.99:25565")
    made = decisions(wanted, gone(rows, 1, "cloudflare"))
    [request] = made.repairs
    assert (request.vmid, request.surfaces) == (5000, (CF,))
    assert [f.incident for f in made.findings] == ["backend_elsewhere:velocity:5000:BACKEND"]


def test_a_guarded_server_is_held_and_neither_repaired_nor_escalated():
    wanted = desired(
        container(5000, lifecycle="suspended"), container(5001, maintenanceReason="x")
    ).records
    made = decisions(wanted, [])
    assert (made.repairs, made.findings, made.held) == ((), (), 10)
    lasting = [(request.vmid, request.action) for request in made.lasting]
    assert lasting == [(5000, Action.EDGE_REPUBLISH), (5001, Action.EDGE_REPUBLISH)]


# --- mass drift: above both a fraction and a number of servers -----------------------------------

# Of 30 servers 20 % are 6, and above 5 begins at 6: the fraction decides. Of 10 servers 20 % are 2,
# so the number decides.
MASS = [
    (30, 6, False),
    (30, 7, True),
    (10, 5, False),
    (10, 6, True),
    (5, 5, False),
    (100, 20, False),
    (100, 21, True),
]


@pytest.mark.parametrize("surface", ["cloudflare", "technitium"])
@pytest.mark.parametrize(("servers", "drifting", "refused"), MASS)
def test_mass_drift_needs_more_than_the_fraction_and_more_than_the_number(
    surface, servers, drifting, refused
):
    wanted = fleet(servers)
    made = decisions(wanted, gone(in_step(wanted), drifting, surface))
    if not refused:
        assert len(made.repairs) == drifting
        assert made.findings == ()
        return
    assert made.repairs == ()
    [finding] = made.findings
    assert finding.incident == f"mass_drift:{surface}"
    assert finding.severity is Severity.CRITICAL
    assert f"{drifting} of {servers} servers" in finding.title
    assert "20 %" in finding.text
    assert "5 servers" in finding.text
    named = finding.text.partition(". ")[0]
    assert named.startswith("Servers 5000, 5001, 5002")
    assert named.count("50") == min(drifting, NAMED_IN_A_MESSAGE)


def test_two_records_of_one_server_are_one_drifting_server():
    """The limits count servers, not records: 6 servers of 30 drift with 12 records."""
    wanted = fleet(30)
    rows = gone(gone(in_step(wanted), 6, "cloudflare"), 6, "cloudflare", "SRV")
    assert len(decisions(wanted, rows).repairs) == 6


def test_the_limits_are_the_operators():
    wanted = fleet(10)
    rows = gone(in_step(wanted), 2, "cloudflare")
    assert decisions(wanted, rows, mass_drift_fraction=0.1, mass_drift_min=1).repairs == ()
    assert len(decisions(wanted, rows, mass_drift_fraction=0.2, mass_drift_min=1).repairs) == 2
    assert len(decisions(wanted, rows, mass_drift_fraction=0.0, mass_drift_min=2).repairs) == 2
    everything = gone(in_step(wanted), 10, "cloudflare")
    assert len(decisions(wanted, everything, mass_drift_fraction=1.0).repairs) == 10


def test_mass_drift_of_one_surface_leaves_the_others_to_be_repaired():
    wanted = fleet(10)
    rows = gone(gone(in_step(wanted), 6, "cloudflare"), 2, "technitium")
    made = decisions(wanted, rows)
    assert [request.surfaces for request in made.repairs] == [(TN,), (TN,)]
    assert [f.incident for f in made.findings] == ["mass_drift:cloudflare"]
    assert [request.surfaces for request in made.lasting] == [(CF, TN)] * 2 + [(CF,)] * 4


def test_what_a_closed_surface_keeps_back_lasts_whole():
    """Velocity's part is still asked for; what was told was of both."""
    wanted = fleet(2)
    rows = gone(gone(in_step(wanted), 1, "cloudflare"), 1, "velocity", "BACKEND")
    holds = Holds(0.0, {"surface:cloudflare": Pause("surface:cloudflare", "x", 0.0)})
    made = decide(
        compare(wanted, listing(rows)),
        orphans=empty_drift(),
        invalid=NOBODY,
        desired=wanted,
        config=PolicyConfig(),
        holds=holds,
    )
    assert [request.action for request in made.repairs] == [Action.VELOCITY_REREGISTER]
    assert [request.action for request in made.lasting] == [Action.EDGE_REPUBLISH]


def test_a_velocity_restart_is_repaired_whatever_its_size():
    """Registrations live in memory only: losing all of them is what a restart looks like."""
    wanted = fleet(50)
    rows = [row for row in in_step(wanted) if row["surface"] != "velocity"]
    made = decisions(wanted, rows)
    assert len(made.repairs) == 50
    assert {request.action for request in made.repairs} == {Action.VELOCITY_REREGISTER}
    assert made.findings == ()


def test_guarded_servers_count_neither_as_drifting_nor_as_fleet():
    """6 of 8 live servers drift; 92 suspended ones must not make that look like a few per cent."""
    live = [container(5000 + n) for n in range(8)]
    held = [container(5100 + n, lifecycle="suspended") for n in range(92)]
    wanted = desired(*live, *held).records
    made = decisions(wanted, gone(in_step(wanted), 6, "cloudflare"))
    assert made.repairs == ()
    assert "6 of 8" in made.findings[0].title
    of_the_live = [row for row in in_step(wanted) if "mc-50" in row["name"]]
    made = decisions(wanted, of_the_live)
    assert (made.findings, made.held) == ((), 92 * 5)


# --- what is only told ---------------------------------------------------------------------------


def orphan_rows(names: list[str], surface: str = "cloudflare"):
    rows = [
        {"surface": surface, "type": "A", "name": f"{n}.example.gg", "content": PUBLIC}
        for n in names
    ]
    return orphans(listing(rows), claimed=(), desired=desired_frame([]), config=EDGE)


def test_each_orphan_is_reported_and_nothing_is_done():
    """One that comes later is news although another one is known."""
    alone = orphan_rows(["old-0", "old-1"])
    made = decisions(fleet(1), in_step(fleet(1)), alone=alone)
    assert made.repairs == ()
    first, second = made.findings
    assert (first.incident, second.incident) == (
        "orphan:cloudflare:A old-0.example.gg",
        "orphan:cloudflare:A old-1.example.gg",
    )
    assert (first.severity, first.action) == (Severity.INFO, None)
    assert first.title == "cloudflare: A old-0.example.gg has no server"
    assert first.text.startswith("A old-0.example.gg is reported only")
    assert "nothing is deleted here: remove it by hand" in first.text


def test_nothing_is_to_be_removed_while_a_row_cannot_be_used():
    """A wrong host name makes a stranger of the server's own records."""
    unusable = pd.DataFrame([{"vmid": 5009, "reason": "hostname: two servers have it"}])
    made = decisions(fleet(1), in_step(fleet(1)), alone=orphan_rows(["old"]), invalid=unusable)
    [text] = [f.text for f in made.findings if f.incident.startswith("orphan:")]
    assert "by hand" not in text
    assert "mend that row first" in text


def test_the_title_of_an_orphaned_service_has_nothing_to_escape():
    """A phone shows the backslash; the text has the whole name."""
    name = "_minecraft._tcp.old.example.gg"
    rows = [{"surface": "cloudflare", "type": "SRV", "name": name, "content": "0 0 25565 x"}]
    alone = orphans(listing(rows), claimed=(), desired=desired_frame([]), config=EDGE)
    [finding] = decisions(fleet(1), in_step(fleet(1)), alone=alone).findings
    assert finding.title == "cloudflare: SRV of old.example.gg has no server"
    assert plain(finding.title) == finding.title
    assert finding.text.startswith(f"SRV {name} is reported only")


def test_what_a_server_left_behind_names_that_server():
    alone = orphan_rows(["mc-5000"]).assign(vmid=5000).astype({"vmid": "Int64"})
    [finding] = decisions(fleet(1), in_step(fleet(1)), alone=alone).findings
    assert finding.incident == "orphan:cloudflare:A mc-5000.example.gg"
    assert finding.title == "cloudflare: A mc-5000.example.gg is left over"
    assert finding.text.startswith("Server 5000 has that name and does not ask for it")
    assert "nothing is deleted here" in finding.text


def test_an_unusable_row_is_told_with_its_reason():
    invalid = pd.DataFrame([{"vmid": 5009, "reason": "payload: is not JSON"}])
    made = decisions(fleet(1), in_step(fleet(1)), invalid=invalid)
    [finding] = made.findings
    assert (finding.incident, finding.vmid) == ("invalid:5009", 5009)
    assert finding.severity is Severity.WARNING
    assert finding.text.startswith("payload: is not JSON.")
    assert finding.action is None


def test_incidents_have_the_same_names_at_every_tick():
    wanted = fleet(10)
    rows = gone(in_step(wanted), 7, "cloudflare")
    first = [f.incident for f in decisions(wanted, rows).findings]
    again = [f.incident for f in decisions(wanted, rows[::-1]).findings]
    assert first == again == ["mass_drift:cloudflare"]
