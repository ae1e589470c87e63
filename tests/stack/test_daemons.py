"""The whole stack as processes: nobody does anything, the loop repairs.

With Dagster's storage on SQLite and on PostgreSQL, with a warm worker and with a process for each
run.
"""

import json
import re
import tempfile
import time
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import httpx
import pytest

from tests.browser import browser_page, open_checks, open_graph
from tests.cli.nameserver import nameserver
from tests.harness import edge_state
from tests.resources.databases import empty_database, postgresql
from tests.stack.listening import listening
from tests.stack.planted import (
    NOT_PLANTED,
    SECRET_SETTINGS,
    files,
    leaks,
    redis_keys,
    rows,
    secrets_of,
    web_pages,
)
from tests.stack.stack import Stack, alive, children_of, free_port, repair_yaml, until
from zlh_dagster.assets.specs import TICK_ASSETS
from zlh_dagster.core.policy import AGENTS
from zlh_dagster.resources.redis import connect
from zlh_dagster.resources.snapshots import SnapshotMissing, SnapshotStore

pytestmark = pytest.mark.slow

SRV = "_minecraft._tcp.mc-5000.example.gg"
A_TICK = 150.0
"""Seconds for what the next tick brings: a minute's wait and a cold start on a busy machine."""

SHIPPED, OTHER = ("sqlite", "celery"), ("postgresql", "default")
SELDOM = [("sqlite", "default"), ("postgresql", "celery")]
ALL = [SHIPPED, OTHER, *SELDOM]


def deployments(*often: tuple[str, str]) -> pytest.MarkDecorator:
    """Storages and launchers of a test; all four combinations take part with `-m long`."""
    seldom = [both for both in ALL if both not in often]
    return pytest.mark.parametrize(
        "live",
        [
            *(pytest.param(both, id="-".join(both)) for both in often),
            *(pytest.param(both, id="-".join(both), marks=pytest.mark.long) for both in seldom),
        ],
        indirect=True,
        scope="module",
    )


@pytest.fixture(scope="module")
def live(request: pytest.FixtureRequest) -> Iterator[Stack]:
    storage, launcher = request.param
    with ExitStack() as opened:
        directory = opened.enter_context(tempfile.TemporaryDirectory(prefix="zlh-"))
        overrides = {"ZLH_WEB_PORT": str(free_port()), "ZLH_RUN_LAUNCHER": launcher}
        if storage == "postgresql":
            server = opened.enter_context(postgresql())
            overrides["ZLH_DAGSTER_DATABASE_URL"] = opened.enter_context(empty_database(server))
            overrides["ZLH_DEPLOYMENT"] = "tests"
            overrides["ZLH_SNAPSHOT_URL"] = f"file://{directory}/elsewhere"
            overrides["ZLH_REDIS_URL"] = _emptied(request.getfixturevalue("redis_server"))
        stack = Stack(Path(directory), ZLH_AGENT_SHARD_SIZE="4", **overrides)
        opened.callback(stack.close)
        yield stack.up()


def _emptied(url: str) -> str:
    with connect(url) as client:
        client.flushall()
    return url


def redis_of(stack: Stack) -> str:
    environment = stack.environment
    return environment.get("ZLH_REDIS_URL", f"unix://{environment['DAGSTER_HOME']}/redis.sock")


def snapshots_of(stack: Stack) -> str:
    environment = stack.environment
    if "ZLH_SNAPSHOT_URL" in environment:
        return f"{environment['ZLH_SNAPSHOT_URL']}/{environment['ZLH_DEPLOYMENT']}"
    return f"{environment['DAGSTER_HOME']}/snapshots"


@pytest.fixture(scope="module")
def dry() -> Iterator[Stack]:
    with tempfile.TemporaryDirectory(prefix="zlh-") as directory:
        stack = Stack(Path(directory), ZLH_REPAIR_MODE="dry-run", ZLH_WEB_PORT=str(free_port()))
        # Broken before the start: dry-run then has the most ticks in which to do too much.
        stack.delete_over_api(SRV)
        try:
            yield stack.up()
        finally:
            stack.close()


@deployments(*ALL)
@pytest.mark.timeout(400)
def test_a_record_deleted_over_the_api_comes_back_by_itself(live):
    """At the minute's own tick."""
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


@deployments(SHIPPED)
@pytest.mark.timeout(400)
def test_an_emptied_velocity_is_filled_again_once_in_one_run(live):
    before = edge_state(live.sandbox)
    backends = live.sandbox.edge.velocity.backends()
    done = len(live.finished_events())
    live.sandbox.edge.journal.clear()
    live.sandbox.edge.velocity.restart()
    time.sleep(4)  # a tick from before the end of the last repair run would decide nothing
    live.ask_for_a_tick()
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


@deployments(SHIPPED, OTHER)
@pytest.mark.timeout(120)
def test_the_web_server_shows_the_runs(live):
    url = f"http://127.0.0.1:{live.environment['ZLH_WEB_PORT']}/graphql"
    query = "{ runsOrError { ... on Runs { results { jobName status runConfigYaml } } } }"
    answer = httpx.post(url, json={"query": query}, timeout=30)
    runs = answer.json()["data"]["runsOrError"]["results"]
    # A round of the agents, a full hour or 09:00 UTC may or may not have come meanwhile.
    by_the_clock = {"probe_agents", "retention", "digest"}
    assert {run["jobName"] for run in runs} - by_the_clock == {"observe", "level1_repair"}


LAUNCH = """
mutation($given: ExecutionParams!) {
  launchPipelineExecution(executionParams: $given) {
    __typename
    ... on LaunchRunSuccess { run { runId } }
  }
}
"""


@deployments(SHIPPED)
@pytest.mark.timeout(120)
@pytest.mark.parametrize("what", ["the check of the drift", "the observed assets"])
def test_what_a_person_starts_in_the_web_ui_succeeds_and_changes_nothing(live, what):
    """Not a job of this project: Dagster makes one of whatever assets and checks are chosen."""
    url = f"http://127.0.0.1:{live.environment['ZLH_WEB_PORT']}/graphql"
    live.sandbox.edge.journal.clear()
    told = len(live.sandbox.edge.discord.inbox())
    check = [{"assetKey": {"path": ["drift"]}, "name": "in_step"}]
    chosen = {"assetSelection": [], "assetCheckSelection": check}
    if what == "the observed assets":
        paths = [{"path": [spec.key.to_user_string()]} for spec in TICK_ASSETS]
        chosen = {"assetSelection": paths, "assetCheckSelection": None}
    job = {
        "repositoryLocationName": "zlh",
        "repositoryName": "__repository__",
        "pipelineName": "__ASSET_JOB",
    }
    given = {"selector": job | chosen, "mode": "default"}
    answer = httpx.post(url, json={"query": LAUNCH, "variables": {"given": given}}, timeout=30)
    launched = answer.json()["data"]["launchPipelineExecution"]
    assert launched["__typename"] == "LaunchRunSuccess", launched
    query = "query($id: ID!) { runOrError(runId: $id) { ... on Run { status } } }"

    def ended():
        asked = {"query": query, "variables": {"id": launched["run"]["runId"]}}
        status = httpx.post(url, json=asked, timeout=30).json()["data"]["runOrError"]["status"]
        return status if status in ("SUCCESS", "FAILURE", "CANCELED") else None

    assert until(ended, seconds=60, what="the end of the run") == "SUCCESS"
    assert live.controller_writes() == []
    assert len(live.sandbox.edge.discord.inbox()) == told


@deployments(SHIPPED)
@pytest.mark.timeout(120)
def test_nothing_listens_but_on_loopback(live):
    """The web server has a port there; a Redis of its own has none at all."""
    assert live.process is not None
    family = children_of(live.process.pid)
    found = listening(family)
    assert f"127.0.0.1:{live.environment['ZLH_WEB_PORT']}" in found
    assert {address for address in found if not address.startswith(("127.", "::1:"))} == set()
    redis = [pid for pid in family if "redis" in Path(f"/proc/{pid}/comm").read_text()]
    assert len(redis) == int("ZLH_REDIS_URL" not in live.environment)
    assert listening(redis) == set()


@deployments(SHIPPED, OTHER)
@pytest.mark.timeout(120)
def test_status_tells_what_the_loop_saw(live):
    status = json.loads(live.run("zlh", "status", "--json").stdout)
    assert status["problems"] == []
    assert 0 <= status["last_tick_age_seconds"] < 180
    outcomes = {name: one["outcome"] for name, one in status["surfaces"].items()}
    del outcomes["agents"]  # asked in rounds, the first of which may not be over
    assert set(outcomes.values()) == {"observed"}
    assert status["last_repairs"][0]["status"] == "succeeded"


@deployments(SHIPPED)
@pytest.mark.timeout(400)
def test_a_person_sees_the_graph_the_drift_its_repair_and_the_plot(live):
    web = f"http://127.0.0.1:{live.environment['ZLH_WEB_PORT']}"
    done = [e for e in live.finished_events() if e["action"] == "dns_republish"]
    with browser_page() as page:
        open_graph(page, web)
        open_checks(page, web)
        page.get_by_text("Execution history").click()
        page.get_by_text("Failed").first.wait_for()
        page.goto(f"{web}/runs")
        for text in ("level1_repair", "zlh/vmid: 5000", "zlh/tick"):
            page.get_by_text(text).first.wait_for()
        page.goto(f"{web}/runs/{done[-1]['runId']}")
        for text in ("level1_repair", "Success"):
            page.get_by_text(text).first.wait_for()
        page.goto(f"{web}/locations")
        page.get_by_text("Loaded").first.wait_for()
        assert page.get_by_text("Failed").count() == 0


@deployments(SHIPPED)
@pytest.mark.timeout(400)
def test_agents_of_a_fleet_that_is_too_large_are_asked_in_runs_of_their_own(live):
    """Nine agents, four at the most in one run."""
    store = SnapshotStore(snapshots_of(live))

    def seen() -> bool:
        try:
            agents = store.read(AGENTS, store.newest_first()[0])
        except SnapshotMissing:
            return False
        return agents.observed and len(agents.rows) == 9

    until(seen, seconds=A_TICK, what="a tick that takes a whole round")
    status = json.loads(live.run("zlh", "status", "--json").stdout)
    agents = status["surfaces"]["agents"]
    assert (agents["outcome"], agents["rows"], agents["reason"]) == ("observed", 9, None)
    assert {one["outcome"] for one in status["surfaces"].values()} == {"observed"}


@deployments()
@pytest.mark.timeout(500)
def test_a_drill_is_passed(live):
    before = edge_state(live.sandbox)
    with nameserver(live.sandbox) as address:
        done = live.run(
            *("zlh", "drill", "cloudflare-srv", "--vmid", "5000", "--yes", "--json"),
            *("--nameserver", address),
            timeout=400,
        )
    report = json.loads(done.stdout)
    assert (done.returncode, report["passed"], report["problems"]) == (0, True, [])
    assert edge_state(live.sandbox) == before
    newest = next(e for e in live.finished_events() if e["vmid"] == 5000)
    assert (newest["action"], newest["status"]) == ("dns_republish", "succeeded")


@deployments(SHIPPED)
@pytest.mark.timeout(500)
def test_no_secret_stands_anywhere_after_everything_has_failed(live):
    """In several manners; then logs, files, databases, Redis, Discord and the web."""
    printed = "".join(_all_fail(live, faults) for faults in _manners(live.environment))
    places = [
        ("what commands print", printed.encode()),
        *files(live.directory),
        *redis_keys(redis_of(live)),
        *web_pages(f"http://127.0.0.1:{live.environment['ZLH_WEB_PORT']}"),
        *(
            (f"Discord {m.level}", str(m.payload).encode())
            for m in live.sandbox.edge.discord.inbox()
        ),
    ]
    if "ZLH_DAGSTER_DATABASE_URL" in live.environment:
        places += rows(live.environment["ZLH_DAGSTER_DATABASE_URL"])
    kinds = {where.split()[0].split(":")[0] for where, _ in places}
    assert {"GraphQL", "Redis", "Discord"} <= kinds
    planted = set(secrets_of(live.environment))
    assert (SECRET_SETTINGS & set(live.environment)) - planted <= set(NOT_PLANTED)
    assert leaks(live.environment, places) == []


def _manners(environment: dict[str, str]) -> Iterator[dict[str, tuple[str, dict[str, Any]]]]:
    """How each system fails: says all that it was told, says nothing, refuses its token."""

    def page(name: str) -> tuple[str, dict[str, Any]]:
        said = f"<html>GET {environment[name]} Authorization: Bearer {environment[name]}</html>"
        return "status", {"code": 502, "body": said}

    hang: tuple[str, dict[str, Any]] = ("hang", {"seconds": 20})
    refused: tuple[str, dict[str, Any]] = ("invalid_token", {})
    yield {
        "cloudflare": page("CLOUDFLARE_API_TOKEN"),
        "technitium": page("TECHNITIUM_API_TOKEN"),
        "velocity": page("ZPACK_SECRET"),
        "proxmox": page("PROXMOX_TOKEN_SECRET"),
        "discord": page("DISCORD_WEBHOOK_WARNING"),
    }
    yield {"cloudflare": ("disconnect", {}), "technitium": ("disconnect", {}), "proxmox": hang}
    yield {
        **dict.fromkeys(("cloudflare", "technitium", "velocity", "proxmox"), refused),
        "discord": ("status", {"code": 401}),
    }


def _all_fail(live: Stack, faults: dict[str, tuple[str, dict[str, Any]]]) -> str:
    """A tick, a repair and a look at everything meanwhile, and what the commands print."""
    ticks = SnapshotStore(snapshots_of(live))
    for surface, (kind, options) in faults.items():
        live.sandbox.edge.faults.switch_on(surface, kind, **options)
    seen = set(until(ticks.ticks, seconds=A_TICK, what="the first tick"))
    live.ask_for_a_tick()
    until(lambda: set(ticks.ticks()) - seen, seconds=A_TICK, what="a tick that sees nothing")
    failed = live.run("zlh", "repair", "edge_republish", "--vmid", "5001", "--live")
    doctor = live.run("zlh", "doctor")
    live.sandbox.edge.faults.clear()
    printed = f"{failed.stdout}{failed.stderr}{doctor.stdout}{doctor.stderr}"
    assert (failed.returncode, doctor.returncode) == (1, 1), printed
    return printed


@deployments(SHIPPED, OTHER)
@pytest.mark.timeout(200)
def test_sigterm_ends_every_process_and_a_second_up_on_one_home_is_refused(live):
    second = live.run("zlh", "up")
    assert second.returncode == 1
    assert "another `zlh up` or `zlh serve` runs on" in second.stderr
    assert live.process is not None
    family = children_of(live.process.pid)
    assert len(family) >= 3
    assert live.down() == 0
    until(lambda: not alive(family), seconds=5, what="the end of every process")
    # Before the first round of the agents, and while every token was refused.
    meant = re.compile("is unobserved: |the token or secret was refused|HTTP 401|Discord")
    said = [line for line in live.log.read_text().splitlines() if not meant.search(line)]
    for word in ("Traceback", "Warning", "WARNING"):
        assert [line for line in said if word in line] == []


@pytest.mark.timeout(400)
def test_dry_run_writes_one_row_and_one_message_over_several_ticks(dry):
    dry.ask_for_a_tick()
    until(dry.finished_events, seconds=A_TICK, what="the dry run")
    ticks = SnapshotStore(f"{dry.environment['DAGSTER_HOME']}/snapshots")
    seen = len(ticks.ticks())
    dry.ask_for_a_tick()
    until(lambda: len(ticks.ticks()) > seen, seconds=A_TICK, what="a tick")
    time.sleep(8)
    [event] = dry.finished_events()
    assert event["status"] == "dry_run"
    assert dry.sandbox.edge.cloudflare.named(SRV) == []
    assert dry.controller_writes() == []
    [message] = dry.sandbox.edge.discord.inbox()
    assert "would put back" in message.payload["embeds"][0]["description"]


@pytest.mark.timeout(400)
def test_a_repair_by_hand_goes_through_the_run_queue(dry):
    """In dry-run mode too, an operator's `live: true` repairs one server."""
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
