"""Law 7: what is above the level that is on is never executed, whatever the config says."""

import pytest

from tests.harness import edge_state, statuses, writes
from zlh_dagster.core.model import Action
from zlh_dagster.resources.settings import SettingsError
from zlh_dagster.sandbox.platform_rows import change_server

ABOVE = [action for action in Action if action.level > 1]


@pytest.mark.parametrize("action", ABOVE)
@pytest.mark.parametrize("requested_by", ["operator", "controller"])
def test_levels_above_the_one_that_is_on_are_never_executed(
    loop, sandbox, platform, action, requested_by
):
    """By hand, live, with everything drifting and the server suspended: refused."""
    change_server(platform.engine, 5000, billingStatus="suspended")
    sandbox.edge.velocity.restart()
    before, containers = edge_state(sandbox), sandbox.edge.containers.containers()
    config = {
        "repairs": [{"vmid": 5000, "action": action.value}],
        "requested_by": requested_by,
        "live": True,
    }
    loop.repair({"ops": {"level1_repair": {"config": config}}})
    assert edge_state(sandbox) == before
    assert sandbox.edge.containers.containers() == containers
    assert writes(sandbox, "cloudflare", "technitium", "velocity", "agents", "proxmox") == []
    assert statuses(loop.services) == ["refused"]
    [event] = loop.services.ledger.events()
    assert event["error"]["code"] in ("level_off", "not_built")
    assert event["level"] == action.level


def test_levels_switching_one_on_switches_no_other_on(platform):
    services = platform.services(ZLH_LEVEL2_ACTIONS="stop_suspended_workload")
    assert services.settings.zlh_level2_actions == ("stop_suspended_workload",)


@pytest.mark.parametrize(
    "name", ["velocity_repoint", "restart_agent", "delete_container", "dns_republish", "rubbish"]
)
def test_levels_only_a_level_2_action_that_is_built_can_be_switched_on(platform, name):
    with pytest.raises(SettingsError, match=f"ZLH_LEVEL2_ACTIONS: '{name}'"):
        platform.settings(ZLH_LEVEL2_ACTIONS=name)


def test_levels_no_code_path_deletes_anything():
    """Names of level 3 have no executor."""
    assert [a for a in Action if a.level == 3 and a.built] == []
