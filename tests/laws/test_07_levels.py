"""Law 7: what is above the level that is on is never executed, whatever the config says."""

import ast
import re
from pathlib import Path

import pytest

import zlh_dagster
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


def test_levels_nothing_of_level_3_has_an_executor():
    assert [a for a in Action if a.level == 3 and a.built] == []


WATCHED = ("core", "resources", "assets", "sensors", "hooks", "checks")
"""Rooms that know outside systems; retention, in `jobs`, deletes from Dagster's own storage."""


NAMES = {"delete_container"}
"""Of an action of level 3, which is a name only."""


def deletions(source: str) -> list[str]:
    """What in a program deletes: an SQL delete, or a word such as DELETE anywhere but in prose."""
    tree = ast.parse(source)
    prose = {
        id(node.value)
        for node in ast.walk(tree)
        if isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant)
    }
    words = re.compile(r"(?i)(^|[/_.])(deletes?|unregister|destroy|drop)($|[/_.])")
    found = []
    for node in ast.walk(tree):
        if isinstance(node, ast.Constant) and isinstance(node.value, str):
            if id(node) not in prose and node.value not in NAMES and words.search(node.value):
                found.append(node.value)
        elif isinstance(node, ast.Call):
            called = ast.unparse(node.func)
            if called in ("sa.delete", "sa.text", "session.delete"):
                found.append(ast.unparse(node))
    return found


@pytest.mark.parametrize(
    "line",
    [
        'self._http.request("DELETE", f"/zones/{zone}/dns_records/{record}")',
        'self._http.send("POST", path, json={"deletes": [{"id": record}]})',
        'self._http.get("/api/zones/records/delete", {"domain": name})',
        'self._http.request("POST", "/zpack/unregister", body)',
        '_PATH = "/zpack/unregister"',
        "connection.execute(sa.delete(container_instance))",
    ],
)
def test_levels_a_deletion_would_be_found(line):
    assert deletions(line)


def test_levels_no_code_path_deletes_anything_outside():
    root = Path(zlh_dagster.__file__).parent
    files = [path for room in WATCHED for path in (root / room).rglob("*.py")]
    assert len(files) > 50
    found = {str(path.relative_to(root)): deletions(path.read_text()) for path in files}
    # The controller's own table of pauses, which is not the platform's.
    assert set(found.pop("resources/pauses.py")) == {"sa.delete(repair_pause)"}
    assert {name: calls for name, calls in found.items() if calls} == {}
