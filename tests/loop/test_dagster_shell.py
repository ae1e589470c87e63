"""What a Dagster user sees: assets, metadata, checks, tags, skip reasons, hooks."""

import json
import os
import re
import subprocess
import sys
from dataclasses import replace
from datetime import datetime, timedelta, timezone
from pathlib import Path

import dagster as dg
import pytest

from tests.clock import pass_time
from tests.harness import statuses, titles, writes
from zlh_dagster.assets.specs import TICK_ASSETS
from zlh_dagster.definitions import defs
from zlh_dagster.resources import discord
from zlh_dagster.resources.history import counted
from zlh_dagster.sandbox.cloudflare_records import new_record

pytestmark = pytest.mark.usefixtures("through_dagster")
ROOT = Path(__file__).parents[2]
SRV = "_minecraft._tcp.mc-5000.example.gg"
NOON = datetime(2026, 1, 1, 12, tzinfo=timezone.utc)
NUMBERS = {"rows", "observed", "requests", "seconds"}


def delete_srv(sandbox):
    sandbox.edge.cloudflare.remove(sandbox.edge.cloudflare.named(SRV)[0].id)


def test_whatever_is_started_runs_in_the_process_that_it_is_given():
    """A worker's process may have no children; Dagster's own default starts some."""
    executors = {job.name: job.executor_def.name for job in defs.resolve_all_job_defs()}
    assert len(executors) == 6
    assert set(executors.values()) == {"in_process"}


def ours(job) -> bool:
    """Whether it is not the one that Dagster makes of all assets."""
    return not job.name.startswith("__")


def latest(loop, asset: str) -> dg.AssetMaterialization:
    event = loop.instance.get_latest_materialization_event(dg.AssetKey(asset))
    assert event is not None
    assert event.asset_materialization is not None
    return event.asset_materialization


def test_every_asset_has_a_group_kinds_an_owner_and_a_first_line():
    for spec in defs.resolve_all_asset_specs():
        assert spec.group_name in {"desired", "observed", "drift"}
        assert spec.kinds
        assert spec.owners == ["team:operator"]
        first = (spec.description or "").splitlines()[0]
        assert first.endswith("."), f"{spec.key}: {first!r}"


def test_no_job_runs_for_ever():
    """Within a tick's minute or a few of them; the longest is the deletion of old runs."""
    jobs = defs.resolve_all_job_defs()
    limits = {job.name: int(job.tags["dagster/max_runtime"]) for job in jobs if ours(job)}
    assert set(limits) == {"observe", "probe_agents", "level1_repair", "digest", "retention"}
    assert all(60 <= seconds <= 3600 for seconds in limits.values()), limits


@pytest.mark.parametrize("fault", [None, "disconnect"])
def test_every_tick_has_the_same_numbers_observed_or_not(loop, sandbox, fault):
    if fault:
        sandbox.edge.faults.switch_on("cloudflare", fault)
    loop.minute()
    for asset in ("persisted_payloads", "desired_edge", "cloudflare_records"):
        metadata = latest(loop, asset).metadata
        assert set(metadata) >= NUMBERS | {"first_rows", "outcome", "reason"}
        assert all(isinstance(metadata[name].value, (int, float)) for name in NUMBERS)
    assert latest(loop, "cloudflare_records").metadata["observed"].value == (0 if fault else 1)


def test_drift_is_reported_with_counts_and_rows(loop, sandbox):
    loop.minute()
    quiet = latest(loop, "drift").metadata
    delete_srv(sandbox)
    loop.minute()
    found = latest(loop, "drift").metadata
    assert set(quiet) == set(found)
    assert (quiet["drifting"].value, found["drifting"].value) == (0, 1)
    assert (found["missing"].value, found["repairs"].value) == (1, 1)
    [row] = found["first_rows"].records
    assert row.data["name"] == SRV


def documented_metrics() -> set[str]:
    section = (ROOT / "docs/how-it-works.md").read_text().split("## Metrics")[1].split("\n## ")[0]
    cells = [row.split("|")[2] for row in section.splitlines() if row.startswith("|")]
    return {name for cell in cells for name in re.findall(r"`([^`]+)`", cell)}


def test_every_metric_is_documented_and_no_other(loop, sandbox):
    delete_srv(sandbox)
    [repaired] = loop.minute()
    assets = [spec.key.path[-1] for spec in TICK_ASSETS] + ["drift"]
    plotted = {
        name
        for asset in assets
        for name, value in latest(loop, asset).metadata.items()
        if isinstance(value.value, (int, float))
    }
    [output] = [e for e in repaired.all_events if e.is_successful_output and metadata_of(e)]
    plotted |= {name for name, value in metadata_of(output).items() if value.value is not None}
    start = datetime.now(timezone.utc).date()
    daily = counted(loop.services, start)
    plotted |= {re.sub(r"^(on|seen):.*", r"\1:SOURCE", name) for name in daily}
    plotted = {re.sub(r"^repairs:.*", "repairs:STATUS", name) for name in plotted}
    assert plotted == documented_metrics()


def metadata_of(event: dg.DagsterEvent) -> dict[str, dg.MetadataValue]:
    return dict(event.step_output_data.metadata)


def test_checks_warn_and_fail_no_run(loop, sandbox, platform):
    with platform.engine.begin() as connection:
        connection.exec_driver_sql(
            "UPDATE \"ContainerInstance\" SET hostname = 'not a host' WHERE vmid = 5001"
        )
    sandbox.edge.faults.switch_on("technitium", "disconnect")
    result = loop.observe()
    assert result.success
    failed = {
        (e.asset_key.path[-1], e.check_name, e.severity)
        for e in result.get_asset_check_evaluations()
        if not e.passed
    }
    assert failed == {
        ("technitium_records", "observed", dg.AssetCheckSeverity.WARN),
        ("desired_edge", "rows_usable", dg.AssetCheckSeverity.WARN),
    }


def test_a_repair_run_says_why_it_exists(loop, sandbox):
    delete_srv(sandbox)
    tick = loop.observe().run_id
    [request] = loop.judge()
    assert request.tags["zlh/tick"] == tick
    assert (request.tags["zlh/vmid"], request.tags["zlh/incident"]) == ("5000", "none")
    [repair] = request.run_config["ops"]["level1_repair"]["config"]["repairs"]
    assert repair["reason"] == "cloudflare SRV missing"


def test_a_run_that_tells_names_its_incidents(loop, sandbox):
    for number in range(7):
        orphan = new_record(f"mc-59{number:02}.example.gg", "A", "203.0.113.10", ttl=60)
        sandbox.edge.cloudflare.put(orphan)
    loop.observe()
    [request] = loop.judge()
    assert request.tags["zlh/vmid"] == "none"
    assert request.tags["zlh/incident"].startswith("orphan:")
    assert request.tags["zlh/incident"].endswith(" and 2 more")


def test_a_skip_says_what_was_compared(loop):
    loop.minute()
    assert "compared on cloudflare, technitium, velocity, 0 drifting" in loop.skips[-1]


def test_at_most_one_batch_while_a_repair_is_under_way(loop, sandbox):
    delete_srv(sandbox)
    loop.observe()
    loop.instance.create_run_for_job(
        loop.definitions.resolve_job_def("level1_repair"),
        run_config={"ops": {"level1_repair": {"config": {}}}},
        status=dg.DagsterRunStatus.STARTED,
    )
    for _ in range(2):
        assert loop.judge() == []
    assert "is under way" in loop.skips[-2]
    assert "was judged already" in loop.skips[-1]
    now = datetime.now(timezone.utc)
    counts = loop.services.figures.since(now - timedelta(hours=1), now)
    assert counts["ticks"] == 1, "seen once is counted once, whatever was asked for"


def test_the_schedule_skips_while_a_tick_is_under_way(loop, tmp_path):
    instance = dg.DagsterInstance.local_temp(str(tmp_path))
    schedule = loop.definitions.resolve_schedule_def("observe_every_minute")
    assert schedule.cron_schedule == "* * * * *"
    assert schedule.default_status == dg.DefaultScheduleStatus.RUNNING
    context = dg.build_schedule_context(instance=instance, scheduled_execution_time=NOON)
    assert len(schedule.evaluate_tick(context).run_requests) == 1
    instance.create_run_for_job(
        loop.definitions.resolve_job_def("observe"), status=dg.DagsterRunStatus.STARTED
    )
    assert "still under way" in schedule.evaluate_tick(context).skip_message


@pytest.mark.parametrize(
    ("config", "says"),
    [
        ({"repairs": [{"vmid": 5000, "action": "delete_everything"}]}, "is not an action"),
        ({"repairs": [{"vmid": 5000, "action": "dns_republish"}] * 2}, "named twice"),
        ({"requested_by": "somebody"}, "requested_by"),
        (
            {"repairs": [{"vmid": 5000, "action": "dns_republish", "surfaces": ["route53"]}]},
            "'route53' is not a surface",
        ),
    ],
)
def test_a_config_that_cannot_be_used_names_what_is_wrong(loop, sandbox, config, says):
    result = loop.repair({"ops": {"level1_repair": {"config": {**config, "live": True}}}})
    assert not result.success
    [failure] = [e for e in result.all_events if e.is_step_failure]
    assert says in failure.step_failure_data.error.message + str(
        failure.step_failure_data.user_failure_data
    )
    assert writes(sandbox) == []
    assert statuses(loop.services) == []


def test_a_repair_of_a_higher_level_is_refused_whoever_asks(loop, sandbox):
    loop.by_hand((5000, "velocity_repoint"))
    assert writes(sandbox) == []
    [event] = loop.services.ledger.events()
    assert (event["status"], event["level"]) == ("refused", 2)


def test_one_message_for_a_failed_run_hook_and_sensor_together(loop, sandbox):
    delete_srv(sandbox)
    sandbox.edge.faults.switch_on("cloudflare", "write_ignored")
    [run] = loop.minute()
    assert len(sandbox.edge.discord.inbox()) == 1
    tell(loop, run.run_id, "level1_repair")
    assert len(sandbox.edge.discord.inbox()) == 1


def test_a_killed_run_is_told_by_the_sensor_once(loop, sandbox):
    run = loop.instance.create_run_for_job(
        loop.definitions.resolve_job_def("level1_repair"),
        run_config={"ops": {"level1_repair": {"config": {}}}},
        status=dg.DagsterRunStatus.STARTED,
    )
    loop.instance.report_run_failed(run, "the worker was killed")
    for _ in range(2):
        tell(loop, run.run_id, "level1_repair")
    assert titles(sandbox) == ["level1 repair failed"]


def test_a_job_that_fails_every_minute_is_told_once(loop, sandbox):
    for _ in range(3):
        fails(loop, "observe")
    assert titles(sandbox) == ["observe failed"]


def test_a_job_that_fails_now_and_then_is_told_once_and_over_after_two_good_ticks(loop, sandbox):
    for _ in range(3):
        fails(loop, "observe")
        loop.minute()
    assert titles(sandbox) == ["observe failed"]
    loop.minute()
    loop.minute()
    assert titles(sandbox) == ["observe failed", "Over: observe failed"]
    first = sandbox.edge.discord.inbox()[0].current()["embeds"][0]
    assert first["title"] == "Over: observe failed"


@pytest.mark.parametrize("job", ["digest", "retention"])
def test_a_job_that_fails_is_over_when_it_succeeds_and_not_before(loop, sandbox, job):
    fails(loop, job)
    for _ in range(3):
        loop.minute()
    assert titles(sandbox) == [f"{job} failed"]
    made = loop.definitions.resolve_job_def(job)
    assert made.execute_in_process(instance=loop.instance).success
    fails(loop, job)
    loop.minute()
    assert f"Over: {job} failed" not in titles(sandbox), "it failed once more before that was told"
    assert made.execute_in_process(instance=loop.instance).success
    loop.minute()
    assert titles(sandbox)[-1] == f"Over: {job} failed"
    assert sandbox.edge.discord.inbox()[0].current()["embeds"][0]["title"] == titles(sandbox)[-1]
    assert loop.services.incidents.all_open() == {}


@pytest.mark.parametrize("job", ["retention", "observe"])
def test_a_failed_run_that_discord_did_not_take_is_told_again(loop, sandbox, monkeypatch, job):
    """By a tick, where there is one, else when it fails again."""
    monkeypatch.setattr(discord, "LONGEST_WAIT", 0.0)
    sandbox.edge.faults.switch_on("discord", "status", code=429, retry_after=60)
    fails(loop, job)
    sandbox.edge.faults.switch_off("discord")
    for minutes in (0, 6, 6):
        pass_time(loop.services, minutes=minutes)
        if job == "retention":
            loop.minute()
        else:
            fails(loop, job)
    [message] = sandbox.edge.discord.inbox()
    embed = message.payload["embeds"][0]
    assert embed["title"] == f"Still open: {job} failed"
    assert "the disk is full" in embed["description"]


def test_a_ledger_that_is_missing_is_told_once_and_again_when_it_is_missing_anew(
    loop, sandbox, platform
):
    """Every minute a repair is due and cannot begin: one message, with what to do."""

    def rename(old: str, new: str) -> None:
        with platform.engine.begin() as connection:
            connection.exec_driver_sql(f'ALTER TABLE "{old}" RENAME TO "{new}"')

    delete_srv(sandbox)
    rename("RepairEvent", "gone")
    for _ in range(3):
        loop.minute()
    [message] = sandbox.edge.discord.inbox()
    assert "zlh db upgrade" in message.payload["embeds"][0]["description"]
    assert writes(sandbox) == []
    rename("gone", "RepairEvent")
    loop.minute()
    assert statuses(loop.services) == ["succeeded"]
    assert titles(sandbox)[1:] == ["Repaired server 5000; Over: level1 repair failed"]
    first = sandbox.edge.discord.inbox()[0].current()["embeds"][0]
    assert first["title"] == "Over: level1 repair failed"
    rename("RepairEvent", "gone")
    delete_srv(sandbox)
    loop.minute()
    assert titles(sandbox)[2:] == ["level1 repair failed"]


def test_a_failure_that_lasts_is_reminded_of_by_what_fails(loop, sandbox, platform):
    """No run can begin that would remind of it."""
    with platform.engine.begin() as connection:
        connection.exec_driver_sql('ALTER TABLE "RepairEvent" RENAME TO gone')
    delete_srv(sandbox)
    loop.minute()
    for incident in loop.services.incidents.all_open().values():
        an_hour_ago = replace(incident, opened_at=incident.opened_at - 3601)
        loop.services.incidents.close([incident.name])
        loop.services.incidents.open(an_hour_ago)
    loop.minute()
    loop.minute()
    assert titles(sandbox) == ["level1 repair failed", "Still open: level1 repair failed"]
    assert "zlh db upgrade" in sandbox.edge.discord.inbox()[-1].payload["embeds"][0]["description"]


def test_a_database_that_stays_away_is_told_once(loop, sandbox, platform):
    with platform.engine.begin() as connection:
        for table in ("ContainerInstance", "RepairEvent"):
            connection.exec_driver_sql(f'ALTER TABLE "{table}" RENAME TO "gone_{table}"')
    for _ in range(loop.services.settings.zlh_surface_failures_to_open + 3):
        loop.minute()
    assert len(sandbox.edge.discord.inbox()) == 1


def fails(loop, job: str) -> None:
    """A run of a job that failed without a hook."""
    run = loop.instance.create_run_for_job(
        loop.definitions.resolve_job_def(job), status=dg.DagsterRunStatus.STARTED
    )
    loop.instance.report_run_failed(run, "the disk is full")
    tell(loop, run.run_id, job)


def tell(loop, run_id: str, job: str) -> None:
    """Evaluates the run-failure sensor for one failed run."""
    run = loop.instance.get_run_by_id(run_id)
    [record] = loop.instance.get_records_for_run(
        run_id, of_type=dg.DagsterEventType.PIPELINE_FAILURE
    ).records
    context = dg.build_run_status_sensor_context(
        sensor_name="tell_failed_runs",
        dagster_event=record.event_log_entry.dagster_event,
        dagster_instance=loop.instance,
        dagster_run=run,
        resources={"services": loop.services},
    ).for_run_failure()
    loop.definitions.resolve_sensor_def("tell_failed_runs")(context)


def test_definitions_validate_without_a_warning(tmp_path):
    """Loading reads no setting: it works on a machine without any."""
    (tmp_path / "dagster.yaml").write_text((ROOT / "dagster.yaml").read_text())
    program = Path(sys.executable).parent / "dagster"
    done = subprocess.run(
        [program, "definitions", "validate", "-w", ROOT / "workspace.yaml"],
        cwd=tmp_path,
        env={"PATH": os.environ["PATH"], "DAGSTER_HOME": str(tmp_path)},
        capture_output=True,
        text=True,
        check=False,
    )
    output = done.stdout + done.stderr
    assert done.returncode == 0, output
    assert "All code locations passed validation" in output
    # The command's own notice of a successor is not ours to silence.
    own = [line for line in output.splitlines() if "SupersessionWarning" not in line]
    assert not [line for line in own if "WARNING" in line or "Warning" in line], output


def test_run_config_of_the_contract_is_accepted(loop):
    config = json.loads(
        '{"ops": {"level1_repair": {"config": {"repairs": [{"vmid": 5000, "action":'
        ' "edge_republish"}], "requested_by": "operator", "live": true}}}}'
    )
    assert loop.repair(config).success


def killed(loop, sandbox, **tags: str) -> None:
    """A repair run whose process died: no hook ran."""
    run = loop.instance.create_run_for_job(
        loop.definitions.resolve_job_def("level1_repair"),
        run_config={"ops": {"level1_repair": {"config": {}}}},
        status=dg.DagsterRunStatus.STARTED,
        tags=tags,
    )
    loop.instance.report_run_failed(run, "the worker was killed")
    tell(loop, run.run_id, "level1_repair")


def test_repair_runs_of_the_loop_that_die_without_a_hook_are_told_once(loop, sandbox):
    for _ in range(3):
        killed(loop, sandbox, **{"zlh/requested_by": "controller"})
    assert titles(sandbox) == ["level1 repair failed"]


@pytest.mark.parametrize("how", ["typo", "killed"])
def test_a_failed_run_by_hand_does_not_silence_the_loops_own_failures(loop, sandbox, platform, how):
    """Each run by hand is told, and says nothing of whether the loop can repair."""
    for count in (1, 2):
        if how == "typo":
            assert not loop.by_hand((5000, "dns_republich")).success
        else:
            killed(loop, sandbox)
        assert len(sandbox.edge.discord.inbox()) == count
    with platform.engine.begin() as connection:
        connection.exec_driver_sql('ALTER TABLE "RepairEvent" RENAME TO gone')
    delete_srv(sandbox)
    loop.minute()
    loop.minute()
    inbox = sandbox.edge.discord.inbox()
    assert len(inbox) == 3
    assert inbox[-1].level == "critical"
    assert "zlh db upgrade" in inbox[-1].payload["embeds"][0]["description"]
