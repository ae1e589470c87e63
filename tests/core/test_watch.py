"""What is watched beside the edge: each decision, and the case next to it that must not act."""

from dataclasses import replace
from datetime import datetime, timedelta, timezone

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.core.builders import container, platform
from zlh_dagster.core import watch as watching
from zlh_dagster.core.fleet import (
    JobState,
    agents_frame,
    containers_frame,
    open_operations_frame,
    operations_frame,
)
from zlh_dagster.core.model import Action
from zlh_dagster.core.rules import RULES, Kind
from zlh_dagster.core.times import iso
from zlh_dagster.core.watch import Fleet, watch, with_jobs

NOW = datetime(2030, 1, 1, tzinfo=timezone.utc)
STOP = Action.STOP_SUSPENDED_WORKLOAD
DEAD = [state for state in JobState if state.dead]
ALIVE = [state for state in JobState if not state.dead]


def ago(**span):
    return iso(NOW - timedelta(**span))


def later(**span):
    return iso(NOW + timedelta(**span))


def running(**values):
    """A running operation whose heartbeat stopped, its job dead at two reads: stale."""
    return {
        "id": "op-1",
        "vmid": 5000,
        "type": "restart",
        "queue": "operation",
        "jobId": "7",
        "status": "running",
        "progressAt": ago(minutes=10),
        "heartbeatAt": ago(minutes=10),
        "leaseExpiresAt": None,
        "createdAt": ago(minutes=20),
        "updatedAt": ago(minutes=10),
        "job": "gone",
        "deadSince": ago(seconds=61),
        "deadReads": 2,
        **values,
    }


def queued(**values):
    """A create operation that never moved, its job dead at two reads: stuck."""
    return running(
        **{
            "type": "create",
            "status": "queued",
            "queue": "provisioning",
            "progressAt": None,
            "heartbeatAt": None,
            "createdAt": ago(minutes=16),
            **values,
        }
    )


def fleet(*servers, containers=(), agents=(), operations=()):
    """A tick; a source given as ``None`` was not seen."""
    return Fleet(
        payloads=platform(*servers),
        containers=None if containers is None else containers_frame(containers),
        agents=None if agents is None else agents_frame(agents),
        operations=None if operations is None else operations_frame(operations),
        now=NOW,
    )


def asked(made):
    return [(request.action, request.vmid, request.target) for request in made.repairs]


def told(made):
    return [finding.incident for finding in made.findings]


def of_operation(row):
    return watch(fleet(container(lifecycle="provisioning"), operations=[row]))


# --- stale operations ----------------------------------------------------------------------------

CLEARED = [(Action.CLEAR_STALE_OPERATION_LOCK, 5000, "op-1")]
STALE = {
    "the heartbeat stopped": {},
    "the lease expired": {"heartbeatAt": None, "leaseExpiresAt": ago(seconds=1)},
    "the lease expired under a heart that beats": {
        "heartbeatAt": ago(seconds=5),
        "leaseExpiresAt": ago(seconds=1),
    },
    "the heartbeat stopped under a lease that lasts": {"leaseExpiresAt": later(minutes=5)},
    "the operation names no job": {"jobId": None, "job": "none"},
    "the second read was just now": {"deadSince": ago(seconds=60)},
    "many reads": {"deadReads": 9},
}
NOT_STALE = {
    "the job is dead at one read only": {"deadReads": 1},
    "two reads less than a minute apart": {"deadSince": ago(seconds=59)},
    "never counted": {"deadSince": None, "deadReads": 0},
    "counted in the future": {"deadSince": later(seconds=120)},
    "the heartbeat is 120 s old": {"heartbeatAt": ago(seconds=120)},
    "the heartbeat is new": {"heartbeatAt": ago(seconds=1)},
    "the heartbeat is in the future": {"heartbeatAt": later(seconds=30)},
    "the lease lasts": {"heartbeatAt": None, "leaseExpiresAt": later(seconds=1)},
    "the lease ends now": {"heartbeatAt": None, "leaseExpiresAt": iso(NOW)},
    "neither heartbeat nor lease": {"heartbeatAt": None, "leaseExpiresAt": None},
    "times that are none": {"heartbeatAt": "yesterday", "leaseExpiresAt": ""},
    "the operation is queued": {"status": "queued"},
    "the operation is of a status that is new here": {"status": "paused"},
    "since when is no time": {"deadSince": "long ago"},
}


@pytest.mark.parametrize("values", STALE.values(), ids=STALE)
def test_a_running_operation_that_nobody_works_on_is_asked_to_be_closed(values):
    made = of_operation(running(**values))
    assert asked(made) == CLEARED
    assert made.findings == ()


@pytest.mark.parametrize("values", NOT_STALE.values(), ids=NOT_STALE)
def test_a_running_operation_that_may_be_worked_on_is_left_alone(values):
    made = of_operation(running(**values))
    assert (asked(made), told(made)) == ([], [])


@pytest.mark.parametrize("state", ALIVE)
def test_an_old_heartbeat_of_a_job_that_lives_is_left_alone(state):
    """The worker may be slow, or its row: the queue is what knows."""
    assert asked(of_operation(running(job=state.value))) == []


@pytest.mark.parametrize("state", DEAD)
def test_every_way_to_be_dead_counts(state):
    assert asked(of_operation(running(job=state.value))) == CLEARED


def test_the_request_says_why_and_which():
    [request] = of_operation(running(vmid=None, job="failed")).repairs
    assert (request.vmid, request.target) == (None, "op-1")
    assert request.reason == "restart operation running, its queue job is failed"


@pytest.mark.parametrize(
    ("kind", "row"),
    [(Kind.STALE_OPERATION, running()), (Kind.STUCK_PROVISIONING, queued())],
)
def test_an_operation_whose_kind_has_level_0_is_told_and_not_closed(monkeypatch, kind, row):
    monkeypatch.setitem(RULES, kind, replace(RULES[kind], level=0))
    made = of_operation(row)
    assert made.repairs == ()
    [finding] = made.findings
    assert (finding.incident, finding.action) == (f"{kind.value}:op-1", RULES[kind].action)
    assert "its queue job is" in finding.text


def test_a_suspended_server_whose_kind_has_level_0_is_not_stopped(monkeypatch):
    rule = replace(RULES[Kind.SUSPENDED_RUNNING], level=0)
    monkeypatch.setitem(RULES, Kind.SUSPENDED_RUNNING, rule)
    made = watch(fleet(UNPAID, containers=[UP]), level2=(STOP.value,))
    assert (asked(made), told(made)) == ([], ["suspended_running:5000"])


# --- stuck provisioning --------------------------------------------------------------------------

FAILED = [(Action.FAIL_STUCK_PROVISIONING, 5000, "op-1")]
NOT_STUCK = {
    "queued 15 minutes": {"createdAt": ago(minutes=15)},
    "queued just now": {"createdAt": ago(seconds=5)},
    "progress a minute ago": {"progressAt": ago(minutes=1)},
    "a heartbeat a minute ago": {"heartbeatAt": ago(minutes=1)},
    "another type": {"type": "restart"},
    "the job is dead at one read only": {"deadReads": 1},
    "two reads less than a minute apart": {"deadSince": ago(seconds=59)},
    "created in the future": {"createdAt": later(minutes=20)},
    "no time at all": {"createdAt": None},
    "it is running": {"status": "running"},
}


@pytest.mark.parametrize(
    "values", [{}, {"progressAt": ago(minutes=16)}, {"heartbeatAt": ago(hours=3)}]
)
def test_a_create_that_never_moved_is_asked_to_be_failed(values):
    made = of_operation(queued(**values))
    assert asked(made) == FAILED
    assert made.findings == ()


@pytest.mark.parametrize("values", NOT_STUCK.values(), ids=NOT_STUCK)
def test_a_create_that_moves_or_is_young_is_left_alone(values):
    made = of_operation(queued(**values))
    assert asked(made) == []
    assert told(made) == []


@pytest.mark.parametrize("state", [s for s in ALIVE if s is not JobState.ACTIVE])
def test_a_create_whose_job_waits_is_told_and_not_failed(state):
    made = of_operation(queued(job=state.value, deadSince=None, deadReads=0))
    assert asked(made) == []
    [finding] = made.findings
    assert finding.incident == "provisioning_waits:op-1"
    assert finding.action is None
    assert finding.sources == ("operations",)
    assert ("names no job" if state is JobState.UNKNOWN else state.value) in finding.text


def test_a_create_whose_job_is_worked_on_is_neither_failed_nor_told():
    made = of_operation(queued(job="active", deadSince=None, deadReads=0))
    assert (asked(made), told(made)) == ([], [])


def test_a_young_create_that_waits_is_not_told():
    assert told(of_operation(queued(job="waiting", createdAt=ago(minutes=14)))) == []


def test_a_new_server_without_a_vmid_is_named_as_that():
    [finding] = of_operation(queued(job="waiting", vmid=None)).findings
    assert finding.vmid is None
    assert finding.title == "A new server: provisioning waits"


def test_the_operation_of_a_guarded_server_is_asked_for_all_the_same():
    """The repair refuses it and tells that once: nobody else would hear of it."""
    assert asked(watch(fleet(container(lifecycle="active"), operations=[queued()]))) == FAILED


def test_operations_that_were_not_seen_ask_for_nothing():
    assert watch(fleet(container(), operations=None)) == watch(fleet(container()))


times = st.sampled_from([None, ago(minutes=20), ago(minutes=1), iso(NOW), later(minutes=1), "?"])


@settings(max_examples=200, deadline=None)
@given(
    status=st.sampled_from(["queued", "running"]),
    kind=st.sampled_from(["create", "restart"]),
    job=st.sampled_from(JobState),
    reads=st.integers(min_value=0, max_value=3),
    since=times,
    progress=times,
    heartbeat=times,
    lease=times,
    created=times,
)
def test_no_operation_is_closed_whose_job_was_not_dead_for_long(
    status, kind, job, reads, since, progress, heartbeat, lease, created
):
    row = running(
        status=status,
        type=kind,
        job=job.value,
        deadReads=reads,
        deadSince=since,
        progressAt=progress,
        heartbeatAt=heartbeat,
        leaseExpiresAt=lease,
        createdAt=created,
    )
    made = of_operation(row)
    assert len(made.repairs) + len(made.findings) <= 1
    if made.repairs:
        assert job.dead
        assert reads >= 2
        assert since in (ago(minutes=20), ago(minutes=1))
        if status == "queued":
            assert kind == "create"
            assert not {progress, heartbeat, created} & {ago(minutes=1), iso(NOW)}


def test_jobs_are_joined_to_their_operations_and_none_is_none():
    frame = open_operations_frame(
        [
            {"id": "a", "queue": "provisioning", "jobId": "1"},
            {"id": "b", "queue": "operation", "jobId": "1"},
            {"id": "c", "queue": "operation", "jobId": None},
        ]
    )
    states = {("provisioning", "1"): JobState.ACTIVE, ("operation", "1"): JobState.GONE}
    joined = with_jobs(frame, states, queued={"provisioning": 1, "operation": 0}, unclear={})
    assert list(joined["job"]) == ["active", "gone", "none"]
    assert joined["deadReads"].isna().all()
    assert with_jobs(frame[:0], {}, queued={}, unclear={}).empty


@pytest.mark.parametrize(
    ("state", "queued", "job"),
    [
        (JobState.WAITING, 1, "none"),
        (JobState.WAITING, 2, "unknown"),
        (JobState.STALLED, 1, "none"),
        (JobState.COMPLETED, 0, "none"),
        (JobState.COMPLETED, 1, "unknown"),
        (JobState.GONE, 1, "unknown"),
    ],
)
def test_an_operation_without_a_job_has_none_only_if_every_queued_job_is_named(state, queued, job):
    """Its maker may have ended between enqueuing the job and writing down its identifier."""
    frame = open_operations_frame(
        [{"id": "a", "queue": "q", "jobId": "1"}, {"id": "b", "queue": "q", "jobId": None}]
    )
    joined = with_jobs(frame, {("q", "1"): state}, queued={"q": queued}, unclear={})
    assert list(joined["job"]) == [state.value, job]
    assert JobState(job).dead is (job == "none")


# --- agents --------------------------------------------------------------------------------------

UP = {"vmid": 5000, "status": "running"}
SILENT = {"vmid": 5000, "address": "10.60.0.1", "answer": "silent", "detail": "no connection"}
WORKED_ON = {"deadSince": None, "deadReads": 0, "job": "active"}


@pytest.mark.parametrize("answer", ["silent", "unhealthy"])
@pytest.mark.parametrize("ctype", ["game", "dev"])
def test_a_running_container_with_a_silent_agent_is_told(answer, ctype):
    server = container(ctype=ctype)
    made = watch(fleet(server, containers=[UP], agents=[{**SILENT, "answer": answer}]))
    assert made.repairs == ()
    [finding] = made.findings
    assert finding.incident == "agent_offline:5000"
    assert finding.action is Action.RESTART_AGENT
    assert finding.sources == ("containers", "agents", "operations", "persisted_payloads")
    assert "10.60.0.1" in finding.text
    assert "no connection" in finding.text


def offline(server=None, **sources):
    given = {"containers": [UP], "agents": [SILENT], **sources}
    made = watch(fleet(server or container(), **given))
    return [name for name in told(made) if name.startswith("agent_offline")]


NOT_OFFLINE = {
    "it answers": {"agents": [{**SILENT, "answer": "healthy"}]},
    "it was not asked long enough": {"agents": [{**SILENT, "answer": "unknown"}]},
    "it was not asked": {"agents": []},
    "agents unseen": {"agents": None},
    "Proxmox unseen": {"containers": None},
    "operations unseen": {"operations": None},
    "the container is stopped": {"containers": [{**UP, "status": "stopped"}]},
    "the container is unknown": {"containers": [{**UP, "status": "unknown"}]},
    "the container is on no list": {"containers": [{**UP, "vmid": 5001}]},
    "the container is locked": {"containers": [{**UP, "lock": "backup"}]},
    "somebody works on it": {"operations": [running(**WORKED_ON)]},
    "somebody will work on it": {"operations": [running(**{**WORKED_ON, "job": "waiting"})]},
    "its job was dead at one read only": {"operations": [running(deadReads=1)]},
    "suspended": {"server": container(billingStatus="suspended")},
    "in maintenance": {"server": container(maintenanceReason="")},
    "deleting": {"server": container(lifecycle="deleting")},
    "being made": {"server": container(lifecycle="provisioning")},
    "no server of ours": {"server": container(5001)},
}


@pytest.mark.parametrize("sources", NOT_OFFLINE.values(), ids=NOT_OFFLINE)
def test_a_silent_agent_is_no_news_where_that_may_be_right(sources):
    assert offline(**sources) == []


@pytest.mark.parametrize(
    "operations",
    [[], [running(vmid=5001, **WORKED_ON)], [running()], [running(vmid=None, **WORKED_ON)]],
)
def test_work_on_another_server_or_of_the_dead_excuses_nothing(operations):
    assert offline(operations=operations) == ["agent_offline:5000"]


@pytest.mark.parametrize(
    ("server", "expected"),
    [
        ({}, ["agent_address:5000"]),
        ({"ctype": "dev"}, ["agent_address:5000"]),
        ({"billingStatus": "suspended"}, []),
        ({"maintenanceReason": "x"}, []),
        ({"lifecycle": "deleting"}, []),
    ],
)
def test_an_address_that_may_not_be_called_is_told(server, expected):
    refused = {**SILENT, "answer": "refused", "detail": "'8.8.8.8' is in no allowed network"}
    made = watch(fleet(container(**server), containers=None, agents=[refused]))
    assert told(made) == expected
    assert made.repairs == ()
    assert all("8.8.8.8" in finding.text for finding in made.findings)


# --- suspended servers ---------------------------------------------------------------------------

UNPAID = container(billingStatus="suspended", lifecycle="suspended")
RUNS = {**SILENT, "answer": "healthy", "state": "running"}


@pytest.mark.parametrize("lifecycle", ["active", "suspended"])
@pytest.mark.parametrize("level2", [(), ("restart_agent",)])
def test_a_suspended_server_that_runs_is_recommended_to_be_stopped(lifecycle, level2):
    server = {**UNPAID, "lifecycle": lifecycle}
    made = watch(fleet(server, containers=[UP], agents=[RUNS]), level2=level2)
    assert made.repairs == ()
    [finding] = made.findings
    assert (finding.incident, finding.action) == ("suspended_running:5000", STOP)
    assert finding.sources == ("containers", "operations", "persisted_payloads")
    assert f"ZLH_LEVEL2_ACTIONS={STOP.value}" in finding.text


def test_switched_on_by_name_it_is_asked_for_and_not_told():
    made = watch(fleet(UNPAID, containers=[UP], agents=[RUNS]), level2=(STOP.value,))
    assert asked(made) == [(STOP, 5000, None)]
    assert made.findings == ()


@pytest.mark.parametrize(
    "agents",
    [None, [], [SILENT], [{**RUNS, "state": "starting"}], [{**RUNS, "state": None}]],
)
def test_without_an_agent_that_says_stopped_the_container_decides(agents):
    made = watch(fleet(UNPAID, containers=[UP], agents=agents))
    assert told(made) == ["suspended_running:5000"]


def test_dead_work_does_not_protect_a_suspended_server():
    made = watch(fleet(UNPAID, containers=[UP], operations=[running()]), level2=(STOP.value,))
    assert (STOP, 5000, None) in asked(made)


NOT_SUSPENDED = {
    "the container is stopped": (UNPAID, {"containers": [{**UP, "status": "stopped"}]}),
    "the container is unknown": (UNPAID, {"containers": [{**UP, "status": "unknown"}]}),
    "the container is on no list": (UNPAID, {"containers": []}),
    "Proxmox unseen": (UNPAID, {"containers": None}),
    "operations unseen": (UNPAID, {"operations": None}),
    "the agent says stopped": (UNPAID, {"agents": [{**RUNS, "state": "stopped"}]}),
    "the agent says stopping": (UNPAID, {"agents": [{**RUNS, "state": "stopping"}]}),
    "paid": (container(), {}),
    "past due": (container(billingStatus="past_due"), {}),
    "suspended for another reason": (container(lifecycle="suspended"), {}),
    "deleting": ({**UNPAID, "lifecycle": "deleting"}, {}),
    "being made": ({**UNPAID, "lifecycle": "provisioning"}, {}),
    "a dev container": ({**UNPAID, "ctype": "dev"}, {}),
    "in maintenance": ({**UNPAID, "maintenanceReason": "moving"}, {}),
    "its container is locked": (UNPAID, {"containers": [{**UP, "lock": "backup"}]}),
    "a worker restores it": (UNPAID, {"operations": [running(type="restore", job="active")]}),
    "its job was dead at one read only": (UNPAID, {"operations": [running(deadReads=1)]}),
}


@pytest.mark.parametrize(("server", "sources"), NOT_SUSPENDED.values(), ids=NOT_SUSPENDED)
@pytest.mark.parametrize("level2", [(), (STOP.value,)])
def test_what_need_not_be_stopped_is_neither_told_nor_stopped(server, sources, level2):
    given = {"containers": [UP], "agents": [RUNS], **sources}
    made = watch(fleet(server, **given), level2=level2)
    assert (asked(made), told(made)) == ([], [])


# --- backups -------------------------------------------------------------------------------------


def backed_up(**values):
    server = container(**{"backupEveryHours": 24, "lastBackupAt": ago(hours=25), **values})
    return watch(fleet(server)).findings


@pytest.mark.parametrize(
    ("values", "words"),
    [
        ({}, "the last one was 25 h ago"),
        ({"lastBackupAt": ago(hours=24, minutes=31)}, "the last one was 24 h 31 min ago"),
        ({"lastBackupAt": None}, "created 365 days ago"),
        ({"backupEveryHours": 1, "lastBackupAt": ago(hours=2)}, "One is wanted every 1 h"),
        ({"ctype": "dev"}, "the last one was 25 h ago"),
        ({"billingStatus": "past_due"}, "the last one was 25 h ago"),
    ],
)
def test_a_backup_older_than_its_interval_is_told_and_nothing_is_done(values, words):
    [finding] = backed_up(**values)
    assert finding.incident == "backup_missed:5000"
    assert finding.action is None
    assert finding.sources == ("persisted_payloads",)
    assert words in finding.text


@pytest.mark.parametrize(
    "values",
    [
        {"lastBackupAt": ago(hours=24, minutes=30)},
        {"lastBackupAt": ago(hours=1)},
        {"lastBackupAt": later(hours=1)},
        {"lastBackupAt": None, "createdAt": ago(hours=24)},
        {"lastBackupAt": None, "createdAt": None},
        {"lastBackupAt": "never", "createdAt": ago(days=9)},
        {"backupEveryHours": None},
        {"backupEveryHours": 0},
        {"backupEveryHours": -1},
        {"backupEveryHours": "daily"},
        {"lifecycle": "suspended"},
        {"billingStatus": "suspended"},
        {"maintenanceReason": "moving"},
        {"lifecycle": "deleting"},
        {"lifecycle": "provisioning"},
    ],
)
def test_a_backup_that_nobody_misses_is_not_told(values):
    assert backed_up(**values) == ()


def test_each_late_server_is_told_by_itself():
    servers = [
        container(5000 + n, backupEveryHours=24, lastBackupAt=ago(hours=24 * n)) for n in range(4)
    ]
    made = watch(fleet(*servers))
    assert told(made) == ["backup_missed:5002", "backup_missed:5003"]
    assert ["48 h" in made.findings[0].text, "3 days" in made.findings[1].text] == [False, True]


# --- all of it -----------------------------------------------------------------------------------


def test_an_empty_platform_has_nothing_to_watch():
    made = watch(fleet())
    assert (made.repairs, made.findings) == ((), ())


def test_with_nothing_seen_only_the_platforms_own_rows_speak():
    late = container(backupEveryHours=1, lastBackupAt=ago(days=1))
    made = watch(fleet(late, containers=None, agents=None, operations=None))
    assert (asked(made), told(made)) == ([], ["backup_missed:5000"])


def test_every_finding_is_one_of_the_policy_in_its_channel():
    servers = [
        container(5000, backupEveryHours=1, lastBackupAt=ago(days=1)),
        container(5001, billingStatus="suspended"),
        container(5002),
    ]
    made = watch(
        fleet(
            *servers,
            containers=[{**UP, "vmid": vmid} for vmid in (5000, 5001, 5002)],
            agents=[{**SILENT, "vmid": 5000}, {**SILENT, "vmid": 5002, "answer": "refused"}],
            operations=[queued(vmid=5009, job="waiting")],
        )
    )
    kinds = {finding.kind for finding in made.findings}
    assert kinds == {
        "backup_missed",
        "agent_offline",
        "agent_address",
        "provisioning_waits",
        "suspended_running",
    }
    for finding in made.findings:
        rule = RULES[Kind(finding.kind)]
        assert (finding.severity, finding.action) == (rule.message, rule.action)
        assert not rule.repairs
        assert finding.sources


def test_the_limits_are_those_of_the_documents():
    """15 minutes queued; two reads 60 s apart; a heartbeat of eight missed renewals."""
    assert (watching.STUCK_SECONDS, watching.DEAD_READS, watching.DEAD_SECONDS) == (900, 2, 60)
    assert watching.HEARTBEAT_SECONDS == 120
