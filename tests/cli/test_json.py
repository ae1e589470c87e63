"""Commands that act print one JSON document, with the keys of docs/json.md."""

import json

import pytest

from tests.docs.pages import documented_keys

SRV = "_minecraft._tcp.mc-5000.example.gg"


def test_an_approval_and_a_revert_print_documented_json(zlh, loop, sandbox):
    for vmid in range(5000, 5008):
        for record in sandbox.edge.cloudflare.records():
            if f"-{vmid}." in record.name:
                sandbox.edge.cloudflare.remove(record.id)
    loop.minute()
    approved = json.loads(zlh("approve", "mass_drift:cloudflare", "--json").output)
    assert set(approved) == documented_keys("approve")
    loop.minute()
    [event, *_] = loop.services.ledger.events()
    told = json.loads(zlh("revert", event["id"], "--json").output)
    assert set(told) == documented_keys("repair")
    assert (told["action"], told["target"]) == ("revert", event["id"])


@pytest.mark.parametrize(
    ("command", "page"),
    [
        ("repair dns_republish --vmid 5000", "repair"),
        ("pause --vmid 5000 --for 2h", "pause"),
        ("resume", "resume"),
        ("breakers reset server:5000", "breakers reset"),
        ("db upgrade", "db upgrade"),
    ],
)
def test_commands_that_act_print_documented_json_too(zlh, sandbox, command, page):
    [record] = sandbox.edge.cloudflare.named(SRV)
    sandbox.edge.cloudflare.remove(record.id)
    done = zlh(*command.split(), "--json")
    assert done.exit_code == 0
    assert set(json.loads(done.output)) == documented_keys(page)


def test_the_exit_status_is_the_same_with_json(zlh):
    zlh("pause")
    done = zlh("repair", "dns_republish", "--vmid", "5000", "--json")
    assert (done.exit_code, json.loads(done.output)["code"]) == (1, "paused")
    assert zlh("repair", "dns_republish", "--vmid", "5000").exit_code == 1
    assert json.loads(zlh("resume", "--json").output)["was_paused"] is True
