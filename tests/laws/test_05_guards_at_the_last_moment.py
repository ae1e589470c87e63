"""Law 5: lifecycle, maintenance, billing and server type are read again inside the repair."""

import pytest

from tests.harness import edge_state, statuses, writes
from zlh_dagster.core.model import Surface
from zlh_dagster.sandbox.platform_rows import change_server

GUARDS = [
    ({"lifecycle": "suspended"}, "lifecycle"),
    ({"lifecycle": "deleting"}, "lifecycle"),
    ({"lifecycle": "provisioning"}, "lifecycle"),
    ({"billingStatus": "suspended"}, "billing"),
    ({"maintenanceReason": "moving disks"}, "maintenance"),
    ({"ctype": "dev"}, "server_type"),
    ({"hostname": "mc 5000"}, "row_unusable"),
]


@pytest.fixture
def restarted(sandbox):
    """A proxy without registrations: every Minecraft server drifts."""
    sandbox.edge.velocity.restart()


@pytest.mark.parametrize(("columns", "code"), GUARDS)
def test_guards_at_the_last_moment(loop, sandbox, platform, restarted, columns, code):
    """The row changes between tick and repair: that server is refused, the others repaired."""
    assert loop.observe().success
    [request] = loop.judge()
    change_server(platform.engine, 5000, **columns)
    loop.repair(request.run_config)
    names = {backend.name for backend in sandbox.edge.velocity.backends()}
    assert "mc-5000" not in names
    assert "mc-5001" in names
    assert len(writes(sandbox, "velocity")) == len(names)
    [event] = loop.services.ledger.events(vmid=5000)
    assert (event["status"], event["error"]["code"]) == ("refused", code)


@pytest.mark.parametrize(("columns", "code"), GUARDS)
def test_guards_hold_for_the_operator_too(loop, sandbox, platform, restarted, columns, code):
    change_server(platform.engine, 5000, **columns)
    before = edge_state(sandbox)
    loop.by_hand((5000, "edge_republish"), live=True)
    assert edge_state(sandbox) == before
    assert statuses(loop.services) == ["refused"]
    assert loop.services.ledger.events()[0]["error"]["code"] == code


@pytest.mark.parametrize(
    ("columns", "code"), [*GUARDS[:5], ({"ip": "10.9.9.9"}, "changed_meanwhile")]
)
def test_guards_at_the_last_moment_before_each_server_of_a_batch(
    loop, sandbox, platform, restarted, monkeypatch, columns, code
):
    """The second server's row changes while the first is written to."""
    velocity = loop.services.surfaces[Surface.VELOCITY]
    real = velocity.apply

    def apply(change):
        change_server(platform.engine, 5001, **columns)
        real(change)

    monkeypatch.setattr(velocity, "apply", apply)
    loop.minute()
    names = {backend.name for backend in sandbox.edge.velocity.backends()}
    assert "mc-5000" in names
    assert "mc-5001" not in names
    assert len(writes(sandbox)) == len(names) > 2
    [event] = loop.services.ledger.events(vmid=5001)
    assert (event["status"], event["error"]["code"]) == ("refused", code)


@pytest.mark.parametrize(
    ("columns", "code"),
    [
        ({"lifecycle": "deleting"}, "lifecycle"),
        ({"maintenanceReason": "moving disks"}, "maintenance"),
        ({"ctype": "dev"}, "server_type"),
    ],
)
def test_guards_at_the_last_moment_beside_the_edge(beside, columns, code):
    config = beside.asked()
    change_server(beside.engine, beside.vmid, **columns)
    beside.loop.repair(config)
    assert beside.untouched()
    assert beside.event() == ("refused", code)


def test_guards_at_the_last_moment_know_who_has_paid(beside):
    """An operation of a suspended server is left alone, and so is the workload of a paid one."""
    config = beside.asked()
    status = "active" if beside.operation is None else "suspended"
    change_server(beside.engine, beside.vmid, billingStatus=status)
    beside.loop.repair(config)
    assert beside.untouched()
    assert beside.event() == ("refused", "billing")
