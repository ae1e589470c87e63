"""What the operator does by hand: plan, pause, approve, breakers, revert, and the digest."""

import json
from datetime import datetime, timedelta, timezone

import dagster as dg
import pytest
from rich.console import Console

from tests.docs.pages import documented_keys
from tests.harness import edge_state, statuses, titles, writes
from zlh_dagster.cli import main
from zlh_dagster.cli.holds import BadRequest, scope_of, seconds_of
from zlh_dagster.cli.parts import Repair
from zlh_dagster.cli.repair import RepairFailed
from zlh_dagster.core.model import Action, Surface
from zlh_dagster.core.rules import POLICY
from zlh_dagster.resources.database import DatabaseError
from zlh_dagster.resources.history import History
from zlh_dagster.resources.services import Services
from zlh_dagster.sandbox.cloudflare_records import new_record

HOST = "mc-5000.example.gg"
SRV = f"_minecraft._tcp.{HOST}"


@pytest.fixture
def wrong(sandbox):
    """The public A record points elsewhere, as somebody may have meant it."""
    [record] = [r for r in sandbox.edge.cloudflare.named(HOST) if r.type == "A"]
    sandbox.edge.cloudflare.remove(record.id)
    sandbox.edge.cloudflare.put(new_record(HOST, "A", "198.51.100.7", ttl=300, proxied=False))


def revert(loop, event_id, *, live=True):
    config = {
        "repairs": [{"action": "revert", "target": event_id}],
        "requested_by": "operator",
        "live": live,
    }
    return loop.repair({"ops": {"level1_repair": {"config": config}}})


def address(sandbox):
    [record] = [r for r in sandbox.edge.cloudflare.named(HOST) if r.type == "A"]
    return record.content, record.ttl


def test_a_revert_puts_back_what_was_overwritten_and_pauses_the_server(loop, sandbox, wrong):
    loop.minute()
    [event] = loop.services.ledger.events()
    assert event["status"] == "succeeded"
    assert address(sandbox) == ("203.0.113.10", 60)
    assert revert(loop, event["id"]).success
    assert address(sandbox) == ("198.51.100.7", 300)
    newest = loop.services.ledger.events()[0]
    assert (newest["action"], newest["status"], newest["vmid"]) == ("revert", "succeeded", 5000)
    assert newest["before"][0]["records"][0]["content"] == "203.0.113.10"
    assert newest["after"][0]["records"][0]["content"] == "198.51.100.7"
    # The loop would undo it: the server is paused, and the operator hears how to end that.
    done = len(writes(sandbox))
    loop.minute()
    loop.minute()
    assert len(writes(sandbox)) == done
    assert "zlh resume --vmid 5000" in str(sandbox.edge.discord.inbox()[-1].payload)
    loop.services.gate.resume("server:5000")
    loop.minute()
    assert address(sandbox) == ("203.0.113.10", 60)


def test_a_revert_puts_back_an_automatic_ttl_too(loop, sandbox):
    """A proxied record has no TTL of its own."""
    [record] = [r for r in sandbox.edge.cloudflare.named(HOST) if r.type == "A"]
    sandbox.edge.cloudflare.remove(record.id)
    sandbox.edge.cloudflare.put(new_record(HOST, "A", "198.51.100.7", ttl=1, proxied=True))
    loop.minute()
    [event] = loop.services.ledger.events()
    assert revert(loop, event["id"]).success
    [record] = [r for r in sandbox.edge.cloudflare.named(HOST) if r.type == "A"]
    assert (record.content, record.ttl, record.proxied) == ("198.51.100.7", 1, True)


def test_a_revert_without_live_changes_nothing(loop, sandbox, wrong):
    loop.minute()
    [event] = loop.services.ledger.events()
    before = edge_state(sandbox)
    assert revert(loop, event["id"], live=False).success
    assert edge_state(sandbox) == before
    assert loop.services.gate.pauses() == {}
    assert statuses(loop.services) == ["succeeded", "dry_run"]


def test_a_revert_deletes_nothing_that_the_repair_created(loop, sandbox):
    [record] = sandbox.edge.cloudflare.named(SRV)
    sandbox.edge.cloudflare.remove(record.id)
    loop.minute()
    [event] = loop.services.ledger.events()
    before = edge_state(sandbox)
    revert(loop, event["id"])
    assert edge_state(sandbox) == before
    assert loop.services.ledger.events()[0]["error"]["code"] == "not_revertible"


def test_a_revert_leaves_alone_what_somebody_has_changed_since(loop, sandbox, wrong):
    loop.minute()
    [event] = loop.services.ledger.events()
    [record] = [r for r in sandbox.edge.cloudflare.named(HOST) if r.type == "A"]
    sandbox.edge.cloudflare.remove(record.id)
    sandbox.edge.cloudflare.put(new_record(HOST, "A", "198.51.100.99", ttl=60, proxied=False))
    revert(loop, event["id"])
    assert address(sandbox) == ("198.51.100.99", 60)
    assert loop.services.ledger.events()[0]["status"] == "refused"


def test_a_revert_of_what_is_not_in_the_ledger_is_refused(loop, sandbox):
    revert(loop, "nothing")
    assert writes(sandbox) == []
    assert loop.services.ledger.events()[0]["error"]["code"] == "no_such_event"


def test_the_command_pauses_and_resumes(zlh, loop, sandbox):
    assert "paused until" in zlh("pause", "--for", "2h", "--reason", "DNS move").output
    assert "DNS move" in zlh("status").output
    [record] = sandbox.edge.cloudflare.named(SRV)
    sandbox.edge.cloudflare.remove(record.id)
    plan = zlh("plan", "--json")
    assert plan.exit_code == 2
    [kept] = json.loads(plan.output)["kept_back"]
    assert (kept["vmid"], kept["code"]) == (5000, "paused")
    loop.minute()
    assert writes(sandbox) == []
    assert "goes on" in zlh("resume").output
    assert "nothing to resume: everything has no pause" in zlh("resume").output
    loop.minute()
    assert len(writes(sandbox)) == 1


def test_a_pause_that_redis_does_not_have_yet_is_seen_and_can_be_ended(
    zlh, loop, sandbox, platform
):
    """Begun while Redis was away; the next tick would bring it back."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("ZLH_REDIS_URL", f"unix://{platform.home}/nobody.sock")
        zlh("pause", "--reason", "DNS move")
        zlh("pause", "--vmid", "5001")
    assert loop.services.gate.pauses() == {}
    assert "everything paused: DNS move" in " ".join(zlh("status").output.split())
    [record] = sandbox.edge.cloudflare.named(SRV)
    sandbox.edge.cloudflare.remove(record.id)
    plan = json.loads(zlh("plan", "--json").output)
    assert plan["repairs"] == []
    assert [kept["code"] for kept in plan["kept_back"]] == ["paused"]
    told = zlh("resume").output.replace("\n", " ")
    assert "everything goes on. Still paused: server:5001" in told
    assert "nothing to resume: everything has no pause" in zlh("resume").output
    loop.minute()
    assert len(writes(sandbox)) == 1


def test_the_end_of_one_pause_names_those_that_still_hold(zlh):
    for of_what in ([], ["--vmid", "5000"], ["--surface", "cloudflare"]):
        assert zlh("pause", *of_what).exit_code == 0
    told = zlh("resume").output.replace("\n", " ")
    assert "everything goes on. Still paused: server:5000 (`zlh resume --vmid 5000`)" in told
    assert "surface:cloudflare" in told
    zlh("resume", "--vmid", "5000")
    assert "Still paused" not in zlh("resume", "--surface", "cloudflare").output


def test_the_command_shows_and_closes_breakers(zlh, loop):
    assert "all breakers are closed" in zlh("breakers").output
    loop.services.gate.open_server(5000, "3 repairs within an hour")
    [breaker] = json.loads(zlh("breakers", "--json").output)
    assert (breaker["name"], breaker["state"]) == ("server:5000", "open")
    assert "server:5000" in zlh("status").output
    assert "is closed" in zlh("breakers", "reset", "server:5000").output
    assert loop.services.gate.breakers() == {}


def test_four_restarts_of_velocity_within_an_hour_are_one_line_and_one_command_mends_it(
    zlh, loop, sandbox
):
    """Each server's budget is spent then, and nothing is registered until somebody looks."""
    before = edge_state(sandbox)
    for _ in range(4):
        sandbox.edge.velocity.restart()
        loop.minute()
    told = sandbox.edge.discord.inbox()[-1]
    assert told.level == "critical"
    [line] = told.payload["embeds"][0]["description"].splitlines()
    assert line.count("something may undo them") == 1
    assert "zlh breakers reset --servers" in line
    assert sandbox.edge.velocity.backends() == []
    open_before = len(loop.services.gate.breakers())
    assert open_before > 5
    assert zlh("breakers", "reset", "--servers").output.count("is closed") == open_before
    assert "no server's was open" in zlh("breakers", "reset", "--servers").output
    loop.minute()
    assert edge_state(sandbox) == before


@pytest.mark.parametrize("words", [(), ("cloudflare", "--servers")])
def test_a_reset_of_nothing_or_of_two_things_is_refused(zlh, words):
    with pytest.raises(BadRequest, match="name one breaker"):
        zlh("breakers", "reset", *words)


def test_a_pause_says_what_ends_it(zlh):
    assert "`zlh resume` ends it" in zlh("pause").output
    assert "`zlh resume --vmid 5000` ends it" in zlh("pause", "--vmid", "5000").output
    assert "`zlh resume --surface velocity`" in zlh("pause", "--surface", "velocity").output


def test_a_slip_of_the_hand_is_refused_and_leaves_nothing(zlh, loop):
    for slip, why in (
        (("pause", "--vmid", "4711"), "no server and no operation"),
        (("repair", "dns_republish", "--vmid", "4711"), "no server and no operation"),
        (
            ("repair", "dns_republish", "--vmid", "5000", "--operation", "op-1"),
            "clear_stale_operation_lock and fail_stuck_provisioning",
        ),
        (("breakers", "reset", "cloudflair"), "known are cloudflare, technitium, velocity"),
        (("breakers", "reset", "server:x"), "server:VMID"),
    ):
        with pytest.raises(BadRequest, match=why):
            zlh(*slip)
    assert zlh("repair", "restart_agent", "--vmid", "5000").exit_code == 2
    assert zlh("repair", "revert", "--vmid", "5000").exit_code == 2
    assert loop.services.gate.pauses() == {}
    assert loop.services.ledger.events() == []


def test_repairs_are_stopped_also_while_the_database_is_away(zlh, loop, monkeypatch):
    """The table of pauses is out of reach too; in Redis the pause holds."""

    def away(*_):
        raise DatabaseError("platform database: away")

    monkeypatch.setattr(Services, "read_payloads", away)
    zlh("pause", "--vmid", "4711")
    assert list(loop.services.gate.pauses()) == ["server:4711"]


def test_repairs_are_stopped_also_while_redis_is_away(
    zlh, loop, sandbox, platform, monkeypatch, tmp_path
):
    """Nothing is repaired without it; once it answers the pause is there before the first write."""
    [record] = sandbox.edge.cloudflare.named(SRV)
    sandbox.edge.cloudflare.remove(record.id)
    monkeypatch.setenv("ZLH_REDIS_URL", f"unix://{tmp_path}/nobody.sock")
    said = zlh("pause", "--reason", "DNS move").output
    assert "kept in the database" in said
    assert "`zlh resume` ends it" in said
    loop.minute()
    assert writes(sandbox) == []
    assert loop.services.gate.pauses()["everything"].reason == "DNS move"


def test_nothing_trails_behind_a_line_of_the_ledger(zlh, loop, sandbox):
    [record] = sandbox.edge.cloudflare.named(SRV)
    sandbox.edge.cloudflare.remove(record.id)
    loop.minute()
    lines = zlh("events").output.splitlines()
    assert len(lines) == 2
    assert [line.rstrip() for line in lines] == lines


def test_what_zlh_repair_takes_is_what_is_built():
    assert {one.value for one in Repair} == {
        action.value for action in Action if action.built and action is not Action.REVERT
    }


def test_the_ledger_is_readable_on_a_narrow_window(zlh, monkeypatch, sandbox):
    [record] = sandbox.edge.cloudflare.named(SRV)
    sandbox.edge.cloudflare.remove(record.id)
    assert zlh("repair", "dns_republish", "--vmid", "5000").exit_code == 0
    monkeypatch.setattr(main, "_out", Console(highlight=False, soft_wrap=True, width=80))
    first, *rest = zlh("events").output.splitlines()
    assert first.endswith("UTC  5000 dns_republish dry_run")
    assert "".join(line.strip() for line in rest) == (
        f"by the operator: dns_republish asked for by hand; cloudflare SRV{SRV}"
    )
    assert all(len(line) <= 80 for line in (first, *rest))


def test_a_ledger_that_is_not_there_says_what_makes_it(zlh, loop):
    with loop.services.engine.begin() as connection:
        connection.exec_driver_sql('DROP TABLE "RepairEvent"')
    with pytest.raises(DatabaseError, match="zlh db upgrade"):
        zlh("events")


def test_the_command_approves_only_what_is_open(zlh):
    with pytest.raises(BadRequest, match="no incident"):
        zlh("approve", "mass_drift:cloudflare")


def test_the_command_prints_the_policy(zlh):
    printed = json.loads(zlh("plan", "--policy", "--json").output)
    assert [row["kind"] for row in printed] == [rule.kind.value for rule in POLICY]
    text = zlh("plan", "--policy").output
    assert "nothing is ever deleted" in " ".join(text.split())


def test_a_plan_does_not_count_as_a_read_of_dead_jobs(zlh, loop):
    before = loop.services.redis.hgetall("zlh:dead_jobs")
    zlh("plan")
    assert loop.services.redis.hgetall("zlh:dead_jobs") == before


@pytest.mark.parametrize(
    ("text", "seconds"), [("30m", 1800), ("2h", 7200), ("1d12h", 129_600), ("90s", 90)]
)
def test_a_span_is_read(text, seconds):
    assert seconds_of(text) == seconds


@pytest.mark.parametrize("text", ["", "2", "h", "two hours", "-1h", "0m"])
def test_what_is_no_span_says_what_one_is(text):
    with pytest.raises(BadRequest, match="30m, 2h or 1d12h"):
        seconds_of(text)


@pytest.mark.parametrize(
    "text", ["3651d", "3650d1s", "99999999999d", pytest.param("9" * 5000 + "s", id="digits")]
)
def test_a_pause_of_more_than_ten_years_is_refused_before_it_begins(zlh, loop, text):
    with pytest.raises(BadRequest, match=f"--for '{text}': .* 3650d at the most; without --for"):
        zlh("pause", "--for", text)
    assert loop.services.gate.pauses() == {}
    assert loop.services.gate.kept_pauses() == {}


def test_a_pause_of_ten_years_begins(zlh, loop):
    assert zlh("pause", "--for", "3650d").exit_code == 0
    assert set(loop.services.gate.kept_pauses()) == {"everything"}


def test_a_revert_says_what_it_does_and_its_run_is_found_by_the_server(zlh, loop, wrong):
    loop.minute()
    [event] = loop.services.ledger.events()
    said = f"set back cloudflare A {HOST} to what it was before the repair"
    assert f"5000 dry run: would {said}" in zlh("revert", event["id"]).output.replace("_", " ")
    assert f"5000 succeeded: {said}" in zlh("revert", event["id"], "--live").output
    with dg.DagsterInstance.get() as instance:
        assert {run.tags["zlh/vmid"] for run in instance.get_runs()} == {"5000"}


@pytest.mark.parametrize("beginning", ["", " "])
def test_a_revert_of_no_row_in_particular_is_refused(zlh, loop, sandbox, wrong, beginning):
    """Every row begins with nothing: of a ledger with one row it would be that one."""
    loop.minute()
    mended, rows = edge_state(sandbox), loop.services.ledger.events()
    assert len(rows) == 1
    with pytest.raises(RepairFailed, match="its beginning; zlh events --json lists them"):
        zlh("revert", beginning, "--live")
    assert edge_state(sandbox) == mended
    assert loop.services.ledger.events() == rows
    assert loop.services.gate.pauses() == {}


def test_a_plan_that_meets_a_rate_limit_opens_no_breaker(zlh, loop, sandbox):
    """It changes nothing: the loop's own reads open the breaker, if the limit meets them too."""
    sandbox.edge.faults.switch_on("cloudflare", "status", code=429, retry_after=300)
    assert "cloudflare" in zlh("plan").output
    assert loop.services.gate.breakers() == {}
    assert loop.services.gate.limited(Surface.CLOUDFLARE) is None
    sandbox.edge.faults.switch_off("cloudflare")
    loop.minute()
    assert titles(sandbox) == []


def test_a_scope_is_everything_one_surface_or_one_server():
    assert scope_of(surface=None, vmid=None) == "everything"
    assert scope_of(surface="velocity", vmid=None) == "surface:velocity"
    assert scope_of(surface=None, vmid=5000) == "server:5000"
    with pytest.raises(BadRequest, match="known are"):
        scope_of(surface="route53", vmid=None)
    with pytest.raises(BadRequest, match="not both"):
        scope_of(surface="velocity", vmid=5000)


def test_the_digest_tells_the_day(loop, sandbox, wrong):
    sandbox.edge.containers.change_agent(5001, mode="refused")
    loop.minute()
    sandbox.edge.faults.switch_on("technitium", "status", code=500)
    loop.minute()
    job = loop.definitions.resolve_job_def("digest")
    assert job.execute_in_process(instance=loop.instance).success
    message = sandbox.edge.discord.inbox()[-1]
    assert message.level == "info"
    text = message.payload["embeds"][0]["description"].replace("\\", "")
    assert "Ticks: 2 of 1440" in text
    assert "cloudflare_records 100 %" in text
    assert "technitium_records 50 %" in text
    assert "Drift found: 1" in text
    assert "Repaired: 1, failed: 0" in text
    assert "(5000)" in text
    assert "Open incidents: 1" in text
    assert "Server 5001: agent offline" in text
    assert "all closed" in text


def test_an_error_of_the_sensor_itself_is_told_once_and_raised(loop, sandbox, monkeypatch):
    loop.minute()
    loop.observe()
    monkeypatch.setattr(loop.services.gate, "holds", lambda: 1 / 0)
    for _ in range(3):
        with pytest.raises(Exception, match="division by zero"):
            loop.judge()
    assert titles(sandbox) == ["The drift sensor fails: nothing is repaired"]


def test_a_failed_repair_raises_an_event_of_its_own(loop, sandbox):
    sandbox.edge.faults.switch_on("cloudflare", "write_ignored")
    [record] = sandbox.edge.cloudflare.named(SRV)
    sandbox.edge.cloudflare.remove(record.id)
    [run] = loop.minute()
    events = [e for e in run.all_events if e.event_type_value == "ASSET_OBSERVATION"]
    [event] = events
    metadata = event.asset_observation_data.asset_observation.metadata
    assert metadata["escalation"].value == "repair_failed"
    assert metadata["vmid"].value == 5000
    assert sandbox.edge.discord.inbox()[-1].level == "critical"


def test_a_repair_that_a_breaker_refused_raises_an_event_of_its_own(loop, sandbox):
    for _ in range(4):
        for record in sandbox.edge.cloudflare.named(SRV):
            sandbox.edge.cloudflare.remove(record.id)
        runs = loop.minute()
    [event] = [e for e in runs[-1].all_events if e.event_type_value == "ASSET_OBSERVATION"]
    metadata = event.asset_observation_data.asset_observation.metadata
    assert metadata["escalation"].value == "breaker_open"
    assert sandbox.edge.discord.inbox()[-1].level == "critical"


def test_today_in_the_history_is_as_it_is_now(zlh, loop, sandbox):
    [record] = sandbox.edge.cloudflare.named(SRV)
    sandbox.edge.cloudflare.remove(record.id)
    loop.minute()
    [today] = json.loads(zlh("history", "--json").output)
    assert (today["ticks"], today["drifts"], today["repairs"]["succeeded"]) == (1, 1, 1)
    assert History(loop.services.engine).newest() is None


def test_history_shows_the_days_that_were_kept_the_newest_first(zlh, loop):
    assert "no figures are kept yet" in zlh("history").output
    today = datetime.now(timezone.utc).date()
    history = History(loop.services.engine)
    seen = {"on:agents": 4, "seen:agents": 3, "on:containers": 4, "seen:containers": 4}
    repairs = {"repairs:succeeded": 2, "repairs:dry_run": 1, "longest_repair_seconds": 7.5}
    history.keep(today, {"ticks": 4, "drifts": 1, **seen, **repairs})
    history.keep(today - timedelta(days=1), {"ticks": 1440, "on:agents": 4, "seen:agents": 4})
    history.keep(today - timedelta(days=2), {"ticks": 1439})
    first, second = json.loads(zlh("history", "--days", "2", "--json").output)
    assert first == {
        "day": today.isoformat(),
        "ticks": 4,
        "seen": {"agents": 0.75, "containers": 1.0},
        "drifts": 1,
        "repairs": {"succeeded": 2, "failed": 0, "refused": 0, "dry_run": 1, "interrupted": 0},
        "longest_repair_seconds": 7.5,
    }
    assert (second["ticks"], second["longest_repair_seconds"]) == (1440, None)
    table = zlh("history").output
    assert "agents 75 %" in table
    assert "7.5 s" in table
    assert "1439" in table


@pytest.mark.parametrize(
    "command",
    ["status", "health", "doctor", "plan", "plan --policy", "breakers", "events", "history"],
)
def test_json_has_the_documented_keys(zlh, loop, sandbox, command):
    [record] = sandbox.edge.cloudflare.named(SRV)
    sandbox.edge.cloudflare.remove(record.id)
    loop.minute()
    loop.services.gate.open_server(5000, "3 repairs within an hour")
    printed = json.loads(zlh(*command.split(), "--json").output)
    one = printed[0] if isinstance(printed, list) else printed
    assert set(one) == documented_keys(command)
