"""Stopping the workload of a suspended server: asked once, waited for, looked at again."""

from dataclasses import dataclass, field

import pytest

from tests.dead_work import running
from tests.queues import a_minute_passes
from tests.resources.repairing import Proxmox, bench, code, table_rows
from zlh_dagster.core.holds import EVERYTHING, Pause
from zlh_dagster.core.model import Action
from zlh_dagster.core.repair import RepairRequest
from zlh_dagster.resources import workload_repairs
from zlh_dagster.resources.http import Unreachable
from zlh_dagster.resources.ledger import Fenced, Ledger
from zlh_dagster.resources.workload_repairs import WorkloadRepairs
from zlh_dagster.sandbox.platform_rows import change_server
from zlh_dagster.schema.tables import container_instance, provisioning_operation

ACTION = Action.STOP_SUSPENDED_WORKLOAD
STOP = RepairRequest(5000, ACTION)
UP = {"vmid": 5000, "status": "running"}
PLATFORM = (container_instance, provisioning_operation)


@dataclass
class Agent:
    """Says these states in turn, the last for ever; an exception is raised instead."""

    states: list = field(default_factory=lambda: ["running", "stopping", "stopped"])
    refuses: str | None = None
    stops: list = field(default_factory=list)
    asked: list = field(default_factory=list)

    def state(self, ip):
        self.asked.append(ip)
        said = self.states.pop(0) if len(self.states) > 1 else self.states[0]
        if isinstance(said, Exception):
            raise said
        return said

    def stop(self, ip):
        self.stops.append(ip)
        if self.refuses is not None:
            raise Unreachable(self.refuses)


@pytest.fixture
def services(platform):
    change_server(platform.engine, 5000, billingStatus="suspended")
    return platform.services()


@pytest.fixture
def run(services, monkeypatch):
    monkeypatch.setattr(workload_repairs, "STOP_SECONDS", 0.05)
    monkeypatch.setattr(workload_repairs, "POLL_SECONDS", 0.005)
    with bench(services) as made:

        def run(
            request=STOP,
            *,
            agent=None,
            proxmox=None,
            read_operations=None,
            level2=(ACTION.value,),
            **values,
        ):
            batch = made.batch(request, **values)
            made.agent = agent or Agent()
            made.read_operations = read_operations or services.read_operations
            made.proxmox = Proxmox([UP]) if proxmox is None else proxmox
            repairs = WorkloadRepairs(
                agent=made.agent,
                read_payloads=services.read_payloads,
                read_operations=made.read_operations,
                list_containers=made.proxmox.list_containers if made.proxmox else None,
                lease=made.lease,
                **made.parts(batch, level2=level2),
            )
            return repairs.repair(batch, request)

        run.bench = made
        yield run


def ip_of(services, vmid=5000):
    rows = services.read_payloads([vmid])
    return rows["ip"].iloc[0]


# --- done ----------------------------------------------------------------------------------------


def test_the_workload_is_stopped_and_only_a_fresh_state_proves_it(run, services, platform):
    before = table_rows(platform.engine, *PLATFORM)
    outcome = run()
    assert code(outcome) == ("succeeded", "")
    assert outcome.changes == ("server 5000 (was running)",)
    agent = run.bench.agent
    assert agent.stops == [ip_of(services)], "asked once, at the address of its row"
    assert len(agent.asked) == 3
    [event] = run.bench.events()
    assert (event["status"], event["action"], event["level"]) == ("succeeded", ACTION.value, 2)
    assert event["before"] == {"state": "running", "billingStatus": "suspended"}
    assert event["after"] == {"state": "stopped"}
    assert run.bench.opened == []
    assert table_rows(platform.engine, *PLATFORM) == before, "the platform's rows are its own"


def test_an_answer_that_is_lost_though_the_server_stops_is_a_success(run):
    outcome = run(agent=Agent(refuses="agent: no whole answer within 3 s"))
    assert code(outcome) == ("succeeded", "")


def test_an_agent_that_is_silent_for_a_moment_is_asked_again(run):
    agent = Agent(["running", Unreachable("no connection"), "stopped"])
    assert code(run(agent=agent)) == ("succeeded", "")


@pytest.mark.parametrize("state", ["stopped", "stopping", "offline"])
def test_what_does_not_run_needs_nothing(run, state):
    outcome = run(agent=Agent([state]))
    assert outcome.status is None
    assert run.bench.agent.stops == []
    assert run.bench.events() == []


# --- failed --------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("agent", "why", "state"),
    [
        (Agent(["running"]), "it was asked to stop and is running", "running"),
        (Agent(["running"], refuses="agent: HTTP 500"), "agent: HTTP 500", "running"),
        (
            Agent(["running", Unreachable("no connection")]),
            "is unknown (no connection)",
            "unknown (no connection)",
        ),
    ],
)
def test_a_server_that_goes_on_is_a_failure(run, agent, why, state):
    outcome = run(agent=agent)
    assert code(outcome) == ("failed", "repair_failed")
    assert why in outcome.reason
    assert len(agent.stops) == 1, "never asked a second time"
    [event] = run.bench.events()
    assert (event["status"], event["after"]) == ("failed", {"state": state})
    assert why in event["error"]["message"]
    assert run.bench.opened == [STOP.failure_incident]


# --- refused -------------------------------------------------------------------------------------


def refused(run, **options):
    outcome = run(**options)
    assert outcome.status.value == "refused"
    assert run.bench.agent.stops == []
    [event] = run.bench.events()
    assert (event["status"], event["error"]["code"]) == ("refused", outcome.code)
    return outcome.code


@pytest.mark.parametrize("level2", [(), ("restart_agent",)])
@pytest.mark.parametrize("requested_by", ["controller", "operator"])
def test_it_is_off_until_it_is_switched_on_by_name(run, level2, requested_by):
    assert refused(run, level2=level2, requested_by=requested_by) == "level_off"
    assert run.bench.agent.asked == []


@pytest.mark.parametrize(
    ("values", "why"),
    [
        ({"billingStatus": "active"}, "billing"),
        ({"billingStatus": "past_due"}, "billing"),
        ({"lifecycle": "deleting"}, "lifecycle"),
        ({"maintenanceReason": "moving"}, "maintenance"),
        ({"ctype": "dev"}, "server_type"),
    ],
)
def test_the_row_as_it_is_now_decides(run, platform, values, why):
    change_server(platform.engine, 5000, **values)
    assert refused(run) == why
    assert run.bench.agent.asked == []


def test_a_server_without_a_row_is_not_stopped(run):
    assert refused(run, request=RepairRequest(4999, ACTION)) == "not_published"


@pytest.mark.parametrize(
    ("proxmox", "why"),
    [
        (Proxmox([{**UP, "status": "stopped"}]), "not_running"),
        (Proxmox([{**UP, "status": "unknown"}]), "not_running"),
        (Proxmox([{**UP, "vmid": 5001}]), "not_running"),
        (Proxmox([{**UP, "lock": "backup"}]), "container_locked"),
        (Proxmox(error="HTTP 500"), "proxmox_unseen"),
        (False, "proxmox_unseen"),
    ],
)
def test_only_a_container_that_is_seen_to_run_is_touched(run, proxmox, why):
    assert refused(run, proxmox=proxmox) == why
    assert run.bench.agent.asked == []


@pytest.mark.parametrize("state", ["active", "wait", "gone"])
@pytest.mark.parametrize("vmid", [5000, 5001])
def test_work_under_way_is_not_stopped_in_the_middle(run, services, platform, state, vmid):
    """A job that is gone at one read only may be one that is just being written down."""
    running(platform.engine, services.redis, state=state, vmid=vmid, type="restore")
    if vmid == 5000:
        assert refused(run) == "operation_open"
        assert run.bench.agent.asked == []
    else:
        assert code(run()) == ("succeeded", "")


def test_work_that_is_dead_protects_nothing(run, services, platform):
    running(platform.engine, services.redis)
    services.count_operations()
    a_minute_passes(services)
    services.count_operations()
    assert code(run()) == ("succeeded", "")


def test_work_that_begins_while_the_agent_is_asked_is_not_stopped(run, services, platform):
    class Restored(Agent):
        def state(self, ip):
            running(platform.engine, services.redis, state="active", type="restore")
            return super().state(ip)

    outcome = run(agent=Restored())
    assert outcome.code == "operation_open"
    assert run.bench.agent.stops == []


def test_without_the_queues_nothing_is_stopped(run):
    def unread():
        raise Unreachable("no such queue")

    with pytest.raises(Unreachable):
        run(read_operations=unread)
    assert run.bench.agent.asked == []


def test_a_silent_agent_is_not_asked_to_stop(run):
    assert refused(run, agent=Agent([Unreachable("no connection")])) == "agent_silent"


@pytest.mark.parametrize(
    ("mine", "other"),
    [
        ("10.0.0.5", " 10.0.0.5"),
        ("10.0.0.5", "::ffff:10.0.0.5"),
        ("fd00::1", "FD00:0:0::1"),
    ],
)
def test_an_address_in_another_spelling_is_the_same_address(run, platform, mine, other):
    """The agent that answers there may be the other server's."""
    change_server(platform.engine, 5000, ip=mine)
    change_server(platform.engine, 5001, ip=other)
    agent = Agent()
    assert refused(run, agent=agent) == "address_shared"
    assert agent.asked == []


def test_a_pause_refuses(run, services):
    services.gate.pause(Pause(EVERYTHING, "x", 1.0))
    assert refused(run) == "paused"


# --- dry run, lease, fencing ---------------------------------------------------------------------


def test_a_dry_run_asks_for_the_state_and_stops_nothing(run):
    outcome = run(live=False)
    assert code(outcome) == ("dry_run", "")
    assert run.bench.agent.stops == []
    [event] = run.bench.events()
    assert (event["status"], event["after"]) == ("dry_run", {"state": "stopped"})
    assert run.bench.opened == [STOP.dry_run_incident]


def test_without_the_lease_nothing_is_stopped(run):
    run.bench.take_lease_away()
    outcome = run()
    assert code(outcome) == ("failed", "not_tried")
    assert run.bench.agent.stops == []
    assert run.bench.events() == []


def test_a_replaced_controller_stops_nothing(run):
    run.bench.be_replaced()
    with pytest.raises(Fenced):
        run()
    assert run.bench.agent.stops == []


def test_the_row_is_there_before_the_agent_is_asked(run):
    class Looking(Agent):
        def stop(self, ip):
            self.seen = run.bench.events()[0]["status"]
            super().stop(ip)

    agent = Looking()
    run(agent=agent)
    assert agent.seen == "running"


def test_a_row_that_a_later_controller_closed_is_no_success(run):
    class Replacing(Agent):
        def stop(self, ip):
            run.bench.services.ledger.interrupt_below(run.bench.lease.fence + 1)
            super().stop(ip)

    outcome = run(agent=Replacing())
    assert code(outcome)[0] == "failed"
    assert "another controller" in outcome.reason
    [event] = run.bench.events()
    assert event["status"] == "interrupted"


def test_a_lease_that_is_lost_directly_before_the_stop_stops_nothing(run, monkeypatch):
    """The row is open by then, and closed as what was not tried."""
    real = Ledger.open

    def and_lost(self, entry):
        event_id = real(self, entry)
        run.bench.take_lease_away()
        return event_id

    monkeypatch.setattr(Ledger, "open", and_lost)
    outcome = run()
    assert code(outcome) == ("failed", "not_tried")
    assert run.bench.agent.stops == []
    [event] = run.bench.events()
    assert (event["status"], event["error"]["code"]) == ("refused", "not_tried")


@pytest.mark.parametrize("taken_by_another", [True, False])
def test_an_address_that_is_given_away_while_the_agent_is_asked_stops_nothing(
    run, services, platform, taken_by_another
):
    class Moved(Agent):
        def state(self, ip):
            if taken_by_another:
                change_server(platform.engine, 5001, ip=f" {ip}")
            else:
                change_server(platform.engine, 5000, ip="10.0.0.99")
            return super().state(ip)

    outcome = run(agent=Moved())
    assert outcome.code == ("address_shared" if taken_by_another else "changed_meanwhile")
    assert run.bench.agent.stops == []


def test_a_bill_that_is_paid_while_the_agent_is_asked_stops_nothing(run, services, platform):
    class Paid(Agent):
        def state(self, ip):
            change_server(platform.engine, 5000, billingStatus="active")
            return super().state(ip)

    outcome = run(agent=Paid())
    assert outcome.status.value == "refused"
    assert run.bench.agent.stops == []
