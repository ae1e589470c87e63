"""The whole stack as processes: nobody does anything, the loop repairs.

Two deployments run side by side on this machine, one live and one in dry-run. The live one has a
warm worker, the other starts a process for each run.
"""

import json
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest

from tests.harness import edge_state
from tests.stack.stack import Stack, alive, children_of, repair_yaml, until

pytestmark = pytest.mark.slow

SRV = "_minecraft._tcp.mc-5000.example.gg"
A_TICK = 150.0
"""Seconds for what the next tick brings: a minute's wait and a cold start on a busy machine."""


@pytest.fixture(scope="module")
def stacks() -> Iterator[tuple[Stack, Stack]]:
    with tempfile.TemporaryDirectory(prefix="zlh-") as directory:
        for name in ("live", "dry"):
            (Path(directory) / name).mkdir()
        live = Stack(Path(directory) / "live", ZLH_WEB_PORT=str(free_port()))
        dry = Stack(Path(directory) / "dry", ZLH_REPAIR_MODE="dry-run", ZLH_RUN_LAUNCHER="default")
        # Broken before the start: dry-run then has the most ticks in which to do too much.
        dry.delete_over_api(SRV)
        try:
            yield live.up(), dry.up("--no-web")
        finally:
            live.close()
            dry.close()


def free_port() -> int:
    import socket

    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


@pytest.mark.timeout(400)
def test_a_record_deleted_over_the_api_comes_back_by_itself(stacks):
    live, _ = stacks
    before = edge_state(live.sandbox)
    live.delete_over_api(SRV)
    [event] = until(live.finished_events, seconds=A_TICK, what="the repair")
    [message] = until(live.sandbox.edge.discord.inbox, seconds=20, what="the message")
    assert edge_state(live.sandbox) == before
    assert (event["status"], event["vmid"], event["surface"]) == ("succeeded", 5000, "cloudflare")
    assert event["before"][0]["records"] == []
    assert event["after"][0]["records"][0]["content"] == "0 0 25565 mc-5000.example.gg"
    assert message.level == "repair"
    assert live.controller_writes() == [("cloudflare", "POST")]


@pytest.mark.timeout(400)
def test_an_emptied_velocity_is_filled_again_once_in_one_run(stacks):
    live, _ = stacks
    before = edge_state(live.sandbox)
    backends = live.sandbox.edge.velocity.backends()
    done = len(live.finished_events())
    live.sandbox.edge.journal.clear()
    live.sandbox.edge.velocity.restart()
    until(
        lambda: len(live.finished_events()) >= done + len(backends),
        seconds=A_TICK,
        what="the registrations",
    )
    until(lambda: len(live.sandbox.edge.discord.inbox()) == 2, seconds=20, what="the message")
    assert edge_state(live.sandbox) == before
    assert live.controller_writes() == [("velocity", "POST")] * len(backends)
    events = live.finished_events()[: len(backends)]
    assert {(e["action"], e["status"]) for e in events} == {("velocity_reregister", "succeeded")}
    assert len({e["runId"] for e in events}) == 1


@pytest.mark.timeout(400)
def test_dry_run_writes_one_row_and_one_message_over_several_ticks(stacks):
    _, dry = stacks
    until(dry.finished_events, seconds=A_TICK, what="the dry run")
    ticks = Path(dry.environment["DAGSTER_HOME"]) / "snapshots"
    seen = len(list(ticks.iterdir()))
    until(lambda: len(list(ticks.iterdir())) >= seen + 2, seconds=2 * A_TICK, what="two ticks")
    time.sleep(8)
    [event] = dry.finished_events()
    assert event["status"] == "dry_run"
    assert dry.sandbox.edge.cloudflare.named(SRV) == []
    assert dry.controller_writes() == []
    [message] = dry.sandbox.edge.discord.inbox()
    assert "would put back" in message.payload["embeds"][0]["description"]


@pytest.mark.timeout(400)
def test_a_repair_by_hand_goes_through_the_run_queue(stacks):
    """In dry-run mode too, an operator's `live: true` repairs one server."""
    _, dry = stacks
    config = repair_yaml(dry.directory, action="dns_republish")
    done = dry.run(
        *("dagster", "job", "launch", "-w", "workspace.yaml", "-j", "level1_repair"),
        *("-c", str(config)),
    )
    assert done.returncode == 0, done.stderr
    until(
        lambda: [e for e in dry.finished_events() if e["status"] == "succeeded"],
        seconds=A_TICK,
        what="the repair",
    )
    assert len(dry.sandbox.edge.cloudflare.named(SRV)) == 1
    assert dry.controller_writes() == [("cloudflare", "POST")]


@pytest.mark.timeout(120)
def test_the_web_server_shows_the_runs_and_says_nothing_of_secrets(stacks):
    live, _ = stacks
    url = f"http://127.0.0.1:{live.environment['ZLH_WEB_PORT']}/graphql"
    query = "{ runsOrError { ... on Runs { results { jobName status runConfigYaml } } } }"
    answer = httpx.post(url, json={"query": query}, timeout=30)
    runs = answer.json()["data"]["runsOrError"]["results"]
    assert {run["jobName"] for run in runs} == {"observe", "level1_repair"}
    for name in ("CLOUDFLARE_API_TOKEN", "ZPACK_SECRET", "TECHNITIUM_API_TOKEN"):
        assert live.environment[name] not in answer.text


@pytest.mark.timeout(120)
def test_status_tells_what_the_loop_saw(stacks):
    live, _ = stacks
    status = json.loads(live.run("zlh", "status", "--json").stdout)
    assert status["problems"] == []
    assert 0 <= status["last_tick_age_seconds"] < 180
    assert {s["outcome"] for s in status["surfaces"].values()} == {"observed"}
    assert status["last_repairs"][0]["status"] == "succeeded"


@pytest.mark.timeout(200)
def test_sigterm_ends_every_process_and_a_second_up_on_one_home_is_refused(stacks):
    live, dry = stacks
    second = live.run("zlh", "up")
    assert second.returncode == 1
    assert "another `zlh up` or `zlh serve` runs on" in second.stderr
    for stack in (live, dry):
        assert stack.process is not None
        family = children_of(stack.process.pid)
        assert len(family) >= 3
        assert stack.down() == 0
        until(lambda family=family: not alive(family), seconds=5, what="the end of every process")
        for word in ("Traceback", "Warning", "WARNING"):
            assert word not in stack.log.read_text()
