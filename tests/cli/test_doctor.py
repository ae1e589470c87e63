"""`zlh doctor` over the sandbox: what it names, and that it never writes."""

import json
import re

import pytest
from rich.console import Console
from typer.testing import CliRunner

from tests.harness import edge_state
from zlh_dagster.cli import main
from zlh_dagster.resources.settings import Settings
from zlh_dagster.sandbox.config import SandboxConfig
from zlh_dagster.sandbox.server import Sandbox
from zlh_dagster.schema.tables import container_instance

EVERYTHING = {
    "ZLH_REPAIR_MODE",
    "DAGSTER_HOME",
    "ZLH_DATABASE_URL",
    "ledger",
    "ZLH_REDIS_URL",
    "ZLH_BULLMQ_PREFIX",
    "cloudflare",
    "technitium",
    "velocity",
    "proxmox",
    "agents",
    "DISCORD_WEBHOOK_CRITICAL",
    "DISCORD_WEBHOOK_WARNING",
    "DISCORD_WEBHOOK_REPAIR",
    "DISCORD_WEBHOOK_INFO",
    "ZLH_HEARTBEAT_URL",
}


@pytest.fixture
def doctor(platform, monkeypatch):
    """The command with some settings changed: its exit status, and what it found by name."""
    client = platform.services().redis
    for queue in ("provisioning", "operation"):
        client.hset(f"bull:{queue}:meta", "opts.maxLenEvents", "10000")
    monkeypatch.setattr(main, "_out", Console(highlight=False, soft_wrap=True, width=200))

    def run(**overrides):
        with pytest.MonkeyPatch.context() as patch:
            for name, value in platform.environment(**overrides).items():
                patch.setenv(name, value)
            done = CliRunner().invoke(main.app, ["doctor", "--json"])
        answer = json.loads(done.output)
        assert answer["well"] is (done.exit_code == 0)
        found: dict[str, list[dict[str, str]]] = {}
        for finding in answer["findings"]:
            found.setdefault(finding["name"], []).append(finding)
        return done.exit_code, found

    return run


@pytest.fixture
def elsewhere(platform):
    """A second edge with other rights, on which the fleet is published; its settings."""
    started: list[Sandbox] = []

    def start(**config):
        sandbox = Sandbox(SandboxConfig(**config))
        sandbox.start()
        started.append(sandbox)
        sandbox.seed_from_database(platform.url)
        return sandbox.environment()

    yield start
    for sandbox in started:
        sandbox.stop()


def problems(found):
    return {
        name: finding
        for name, findings in found.items()
        for finding in findings
        if finding["state"] == "problem"
    }


def test_a_platform_in_order_has_no_problem_and_is_not_written_to(doctor, platform):
    before, client = edge_state(platform.sandbox), platform.services().redis
    keys, revision = sorted(client.keys()), platform.url.removeprefix("sqlite:///")
    with open(revision, "rb") as file:
        database = file.read()
    status, found = doctor()
    assert (status, problems(found)) == (0, {})
    assert set(found) == EVERYTHING
    assert {f["state"] for findings in found.values() for f in findings} == {"ok"}
    assert [f["got"] for f in found["cloudflare"]][1] == "it may repair"
    assert found["agents"][0]["got"] == "9 of 9 are well"
    entries = platform.sandbox.edge.journal.entries()
    assert len(entries) > 8
    assert [entry for entry in entries if entry.write] == []
    assert platform.sandbox.edge.discord.inbox() == []
    assert [entry for entry in entries if entry.surface == "heartbeat"] == []
    assert edge_state(platform.sandbox) == before
    assert sorted(client.keys()) == keys
    assert not platform.home.exists()
    with open(revision, "rb") as file:
        assert file.read() == database


def test_rights_to_read_are_enough_for_a_dry_run_and_not_for_more(doctor, elsewhere):
    edge = elsewhere(cloudflare_may_edit=False, technitium_may_modify=False)
    status, found = doctor(**edge, ZLH_REPAIR_MODE="dry-run")
    assert status == 0
    assert [f["state"] for f in found["cloudflare"]] == ["ok", "note"]
    status, found = doctor(**edge, ZLH_REPAIR_MODE="live")
    assert status == 1
    assert set(problems(found)) == {"cloudflare", "technitium"}
    assert "DNS:Edit" in problems(found)["cloudflare"]["got"]
    assert "Modify on zone example.gg for the user zlh" in problems(found)["technitium"]["got"]


def test_a_proxmox_token_that_sees_nothing_lacks_vm_audit(doctor, elsewhere):
    status, found = doctor(**elsewhere(proxmox_may_audit=False))
    assert (status, set(problems(found))) == (1, {"proxmox"})
    assert "VM.Audit on /vms" in found["proxmox"][0]["got"]
    assert "PVEAuditor" in found["proxmox"][0]["todo"]


@pytest.mark.parametrize(
    ("setting", "value", "name", "todo"),
    [
        ("CLOUDFLARE_API_TOKEN", "another", "cloudflare", "Zone:DNS:Read"),
        ("CLOUDFLARE_ZONE_ID", "0" * 32, "cloudflare", "CLOUDFLARE_ZONE_ID"),
        ("TECHNITIUM_API_TOKEN", "another", "technitium", "View on the zone"),
        ("ZPACK_SECRET", "another", "velocity", "ZPACK_SECRET"),
        ("VELOCITY_URL", "http://127.0.0.1:1", "velocity", "VELOCITY_URL"),
        ("PROXMOX_TOKEN_SECRET", "another", "proxmox", "PROXMOX_TOKEN_SECRET"),
        ("PROXMOX_NODE", "pve9", "proxmox", "PROXMOX_NODE"),
        ("ZLH_AGENT_NETWORKS", "10.0.0.0/8", "agents", "ZLH_AGENT_NETWORKS"),
        ("ZLH_BULLMQ_PREFIX", "bull2", "ZLH_BULLMQ_PREFIX", "prefix"),
        ("ZLH_REDIS_URL", "redis://127.0.0.1:1/0", "ZLH_REDIS_URL", "URL"),
        ("ZLH_DATABASE_URL", "sqlite:////nowhere/at/all.db", "ZLH_DATABASE_URL", "platform's"),
    ],
)
def test_each_wrong_setting_is_named_with_what_to_do(doctor, setting, value, name, todo):
    status, found = doctor(**{setting: value})
    assert status == 1
    wrong = problems(found)
    assert name in wrong
    assert todo in wrong[name]["todo"]
    # What hangs together with it may be named too, and nothing else.
    assert set(wrong) <= {name, "ZLH_BULLMQ_PREFIX", "ledger"}
    assert value not in json.dumps(found) or not value.startswith("another")


@pytest.mark.parametrize("surface", ["cloudflare", "technitium", "velocity", "proxmox"])
def test_an_error_of_the_system_itself_blames_no_token(doctor, platform, surface):
    platform.sandbox.edge.faults.switch_on(surface, "status", code=502)
    status, found = doctor()
    assert (status, set(problems(found))) == (1, {surface})
    wrong = problems(found)[surface]
    assert wrong["got"] == f"{surface}: HTTP 502"
    assert "answers with an error of its own" in wrong["todo"]
    assert not {"TOKEN", "SECRET"} & set(re.split(r"\W|_", wrong["todo"]))


def test_what_cannot_be_reached_is_named(doctor):
    _, found = doctor(CLOUDFLARE_API_BASE="http://127.0.0.1:1/client/v4")
    wrong = problems(found)["cloudflare"]
    assert wrong["got"] == "cloudflare: 127.0.0.1:1 cannot be reached (Connection refused)"
    assert "CLOUDFLARE_API_BASE" in wrong["todo"]


def test_snapshots_elsewhere_are_looked_for(doctor, tmp_path):
    status, found = doctor(ZLH_SNAPSHOT_URL=f"file://{tmp_path}/shared")
    [finding] = found["ZLH_SNAPSHOT_URL"]
    assert (status, finding["state"]) == (0, "note")
    assert finding["got"].startswith("nothing, or no such place")
    assert not (tmp_path / "shared").exists()
    (tmp_path / "shared").mkdir()
    (tmp_path / "shared" / "t1").touch()
    _, found = doctor(ZLH_SNAPSHOT_URL=f"file://{tmp_path}/shared")
    assert found["ZLH_SNAPSHOT_URL"][0]["got"] == "there are snapshots"
    status, found = doctor(ZLH_SNAPSHOT_URL="ftp://127.0.0.1:1/snapshots")
    assert (status, set(problems(found))) == (1, {"ZLH_SNAPSHOT_URL"})
    assert "credentials" in problems(found)["ZLH_SNAPSHOT_URL"]["todo"]


def test_an_address_that_is_not_the_bridges_names_its_setting(doctor, platform):
    url = f"{platform.environment()['VELOCITY_URL']}/zpack"
    _, found = doctor(VELOCITY_URL=url)
    assert "HTTP 404" in problems(found)["velocity"]["got"]
    assert "VELOCITY_URL (it ends before /zpack)" in problems(found)["velocity"]["todo"]


def test_a_zone_that_is_not_the_settings_zone_is_told(doctor):
    status, found = doctor(ZLH_ZONE="example.org")
    assert status == 1
    assert "different zones" in problems(found)["cloudflare"]["todo"]


def test_a_dead_webhook_is_named_without_its_url(doctor, platform):
    url = f"{platform.sandbox.url}/discord/nobody-there"
    status, found = doctor(DISCORD_WEBHOOK_CRITICAL=url)
    assert (status, set(problems(found))) == (1, {"DISCORD_WEBHOOK_CRITICAL"})
    assert "nobody-there" not in json.dumps(found)


def test_the_ledger_that_is_not_there_asks_for_an_upgrade(doctor, platform):
    with platform.engine.begin() as connection:
        connection.exec_driver_sql("DROP TABLE zlh_alembic_version")
    status, found = doctor(ZLH_REPAIR_MODE="live")
    assert (status, set(problems(found))) == (1, {"ledger"})
    assert "zlh db upgrade" in found["ledger"][0]["todo"]
    # Who only looks needs no table yet.
    status, found = doctor(ZLH_REPAIR_MODE="dry-run")
    assert (status, found["ledger"][0]["state"]) == (0, "note")


def test_a_column_of_a_wrong_type_is_named_and_a_broken_row_is_not(doctor, platform):
    """As from a view that passes numbers or uuids on where text is read."""
    broken = """UPDATE "ContainerInstance" SET "hostname" = x'00' WHERE "vmid" = 5000"""
    with platform.engine.begin() as connection:
        connection.exec_driver_sql(broken)
    assert doctor()[0] == 0
    others = [f'"{c.name}"' for c in container_instance.columns if c.name != "hostname"]
    view = f'SELECT {", ".join(others)}, 7 AS "hostname" FROM servers'
    with platform.engine.begin() as connection:
        connection.exec_driver_sql('ALTER TABLE "ContainerInstance" RENAME TO servers')
        connection.exec_driver_sql(f'CREATE VIEW "ContainerInstance" AS {view}')
    status, found = doctor()
    assert (status, set(problems(found))) == (1, {"ZLH_DATABASE_URL"})
    wrong = problems(found)["ZLH_DATABASE_URL"]
    assert "no row of ContainerInstance can be read: hostname: 7 is not text" in wrong["got"]
    assert "docs/migrating.md" in wrong["todo"]


def test_a_column_that_is_not_there_is_named(doctor, platform):
    with platform.engine.begin() as connection:
        connection.exec_driver_sql('ALTER TABLE "VmidReservation" DROP COLUMN "releasedAt"')
    status, found = doctor()
    assert status == 1
    assert "releasedAt" in problems(found)["ZLH_DATABASE_URL"]["got"]


def test_what_is_not_set_is_off_and_no_problem(doctor):
    off = ("CLOUDFLARE_API_TOKEN", "CLOUDFLARE_ZONE_ID", "CLOUDFLARE_EDGE_IP")
    off += ("PROXMOX_URL", "PROXMOX_NODE", "PROXMOX_TOKEN_ID", "PROXMOX_TOKEN_SECRET")
    off += ("ZLH_REDIS_URL", "ZLH_HEARTBEAT_URL", "DISCORD_WEBHOOK_INFO")
    status, found = doctor(**dict.fromkeys(off))
    assert status == 0
    names = ("cloudflare", "proxmox", "agents", "ZLH_REDIS_URL", "DISCORD_WEBHOOK_INFO")
    assert {found[name][0]["state"] for name in (*names, "ZLH_HEARTBEAT_URL")} == {"off"}


def test_the_embedded_redis_is_not_asked_for_the_platforms_queues(doctor, platform, redis_server):
    """A running `zlh up` has one, which is in order as it is."""
    short = platform.settings(ZLH_REDIS_URL=None).socket("redis")
    short.parent.mkdir(parents=True, exist_ok=True)
    short.symlink_to(redis_server.removeprefix("unix://"))
    try:
        status, found = doctor(ZLH_REDIS_URL=None)
    finally:
        short.unlink()
    assert status == 0
    assert [finding["state"] for finding in found["ZLH_REDIS_URL"]] == ["off"]
    assert [finding["state"] for finding in found["embedded Redis"]] == ["ok"]
    assert "ZLH_BULLMQ_PREFIX" not in found


@pytest.fixture
def settings_file(monkeypatch, tmp_path):
    """Makes the file that settings are read from, for its owner alone."""

    def make(text):
        file = tmp_path / ".env"
        file.write_text(text)
        file.chmod(0o600)
        monkeypatch.setitem(Settings.model_config, "env_file", str(file))
        return file

    return make


def test_a_misspelt_setting_is_named_with_the_one_that_is_meant(doctor, monkeypatch, settings_file):
    """From the environment and from the file; other programs' names are not."""
    monkeypatch.setenv("ZLH_REPAIRMODE", "live")
    monkeypatch.setenv("ZLH_VERSION", "1.2.3")
    settings_file("CLOUDFLARE_API_TOKN=x\nPOSTGRES_PASSWORD=y\n")
    status, found = doctor()
    assert set(found) - EVERYTHING == {"ZLH_REPAIRMODE", "CLOUDFLARE_API_TOKN"}
    for name, meant in (
        ("ZLH_REPAIRMODE", "ZLH_REPAIR_MODE"),
        ("CLOUDFLARE_API_TOKN", "CLOUDFLARE_API_TOKEN"),
    ):
        [finding] = found[name]
        assert finding["state"] == "note"
        assert finding["todo"] == f"write {meant}, if that is meant"
    assert status == 0


@pytest.mark.parametrize("port", ["3000", "70000"])
def test_a_file_of_settings_that_others_may_read_is_noted(doctor, settings_file, port):
    """Also where a setting cannot be used."""
    file = settings_file("PROXMOX_TOKEN_SECRET=x\n")
    for mode, noted in ((0o644, True), (0o640, True), (0o600, False)):
        file.chmod(mode)
        _, found = doctor(ZLH_WEB_PORT=port)
        assert (".env" in found) is noted
        if noted:
            assert found[".env"][0]["state"] == "note"
            assert found[".env"][0]["todo"] == f"chmod 600 {file}"


def test_an_unknown_setting_in_the_file_is_noted(doctor, monkeypatch, settings_file):
    """The environment is other programs' as well."""
    monkeypatch.setenv("DISCORD_BOT_NAME", "x")
    settings_file("CLOUDFLARE_ACCOUNT=x\nproxmox_verify_ssl=0\nTZ=UTC\nZLH_RUN_LAUNCHER=celery\n")
    status, found = doctor()
    assert status == 0
    assert set(found) - EVERYTHING == {"CLOUDFLARE_ACCOUNT", "PROXMOX_VERIFY_SSL"}
    assert found["CLOUDFLARE_ACCOUNT"][0]["state"] == "note"
    assert found["CLOUDFLARE_ACCOUNT"][0]["got"] == "no setting has that name"


def test_a_misspelt_setting_is_named_where_the_right_one_is_needed(doctor, monkeypatch):
    monkeypatch.setenv("CLOUDFLARE_EDGEIP", "203.0.113.10")
    status, found = doctor(CLOUDFLARE_EDGE_IP=None)
    assert (status, list(found)) == (1, ["settings", "CLOUDFLARE_EDGEIP"])
    assert "CLOUDFLARE_EDGE_IP" in found["CLOUDFLARE_EDGEIP"][0]["todo"]


def test_settings_that_cannot_be_read_are_the_only_finding(doctor):
    status, found = doctor(ZLH_WEB_PORT="70000")
    assert (status, list(found)) == (1, ["settings"])
    assert "ZLH_WEB_PORT" in found["settings"][0]["got"]
