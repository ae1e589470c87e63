"""What `zlh status`, `plan` and `resume` say while a part of what they read is not there."""

import json

import pytest
from sqlalchemy.exc import SQLAlchemyError

from tests.harness import writes
from zlh_dagster.core.model import Surface
from zlh_dagster.core.policy import AGENTS
from zlh_dagster.core.repair import Status
from zlh_dagster.resources.ledger import Entry
from zlh_dagster.resources.redis import RedisUnavailable
from zlh_dagster.sandbox.platform_rows import change_server, write_operation

SRV = "_minecraft._tcp.mc-5000.example.gg"


@pytest.fixture
def without_redis(zlh, monkeypatch, tmp_path):
    monkeypatch.setenv("ZLH_REDIS_URL", f"unix://{tmp_path}/nobody.sock")


def status(zlh):
    return json.loads(zlh("status", "--json").output)


@pytest.mark.usefixtures("without_redis")
def test_a_pause_that_only_the_database_has_is_shown_and_can_be_ended(zlh, sandbox):
    zlh("pause", "--reason", "DNS move")
    assert status(zlh)["pauses_from"] == "database"
    assert status(zlh)["paused"] == {"everything": "paused: DNS move"}
    assert "as the database keeps them; Redis does not answer" in zlh("status").output
    [record] = sandbox.edge.cloudflare.named(SRV)
    sandbox.edge.cloudflare.remove(record.id)
    plan = json.loads(zlh("plan", "--json").output)
    assert plan["pauses_from"] == "database"
    assert plan["repairs"] == []
    assert [kept["code"] for kept in plan["kept_back"]] == ["paused"]
    assert "pauses only as the database keeps them" in zlh("plan").output
    said = zlh("resume").output
    assert "the pause that the database kept is ended" in said
    assert "run `zlh resume` once Redis answers" in said
    assert status(zlh)["paused"] == {}


def test_a_pause_that_was_ended_without_redis_stays_ended(zlh, loop, sandbox, platform):
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("ZLH_REDIS_URL", f"unix://{platform.home}/nobody.sock")
        zlh("pause")
        zlh("resume")
    [record] = sandbox.edge.cloudflare.named(SRV)
    sandbox.edge.cloudflare.remove(record.id)
    loop.minute()
    assert len(writes(sandbox)) == 1


@pytest.mark.usefixtures("without_redis")
def test_a_resume_that_can_end_nothing_says_what_to_start(zlh, monkeypatch):
    with pytest.raises(RedisUnavailable, match="start the one that ZLH_REDIS_URL names"):
        zlh("resume", "--vmid", "5000")
    monkeypatch.delenv("ZLH_REDIS_URL")
    with pytest.raises(
        RedisUnavailable, match=r"run `zlh resume` once Redis answers \(start `zlh up"
    ):
        zlh("resume")


@pytest.mark.usefixtures("without_redis")
def test_pauses_that_nobody_knows_are_not_shown_as_none(zlh, platform):
    with platform.engine.begin() as connection:
        connection.exec_driver_sql('DROP TABLE "RepairPause"')
    assert status(zlh)["pauses_from"] is None
    assert " ".join(zlh("status").output.split()).count("paused not known") == 1
    plan = zlh("plan")
    assert "pauses and breakers are not known" in plan.output


def test_a_tick_that_is_being_written_hides_not_the_one_before(zlh, loop):
    assert "problem: no tick was observed here yet" in zlh("status").output
    assert "start `zlh up`, or call this where its .env is" in zlh("status").output
    loop.minute()
    loop.minute()
    store = loop.services.snapshots
    newest, _ = store.newest_first()
    store._fs.rm(store.path(AGENTS, newest))
    told = status(zlh)
    assert told["last_tick_age_seconds"] is not None
    assert told["problems"] == []


def test_what_was_not_seen_says_why(zlh, loop, sandbox):
    sandbox.edge.faults.switch_on("technitium", "status", code=500)
    loop.minute()
    surfaces = status(zlh)["surfaces"]
    assert surfaces["cloudflare"]["reason"] is None
    assert "HTTP 500" in surfaces["technitium"]["reason"]
    [line] = [line for line in zlh("status").output.splitlines() if line.startswith("technitium")]
    assert "unobserved: technitium: HTTP 500" in line
    assert "rows" not in line


def test_a_first_plan_without_redis_says_what_it_compared(zlh, platform, monkeypatch):
    """Redis is asked about operations as soon as one is open, and not before."""
    monkeypatch.delenv("ZLH_REDIS_URL")
    plan = zlh("plan")
    assert "nothing to do: " in plan.output
    assert "records compared" in plan.output
    assert plan.exit_code == 0
    write_operation(platform.engine, vmid=5900, jobId="12")
    plan = zlh("plan")
    assert "not seen: operations" in plan.output
    assert "nothing to repair in what was seen: " in plan.output
    assert plan.exit_code == 1


def test_a_plan_with_work_says_what_it_compared_too(zlh, sandbox):
    [record] = sandbox.edge.cloudflare.named(SRV)
    sandbox.edge.cloudflare.remove(record.id)
    plan = zlh("plan")
    assert " records compared" in plan.output.splitlines()[-1]
    assert plan.exit_code == 2


def test_one_difference_is_one(zlh, sandbox, platform):
    change_server(platform.engine, 5000, maintenanceReason="new disk")
    [record] = sandbox.edge.cloudflare.named(SRV)
    sandbox.edge.cloudflare.remove(record.id)
    assert ", 1 difference of guarded servers left alone" in zlh("plan").output


def test_a_plan_names_what_would_hold_repairs_back_with_nothing_to_repair(zlh, platform):
    """Or the next drift would wait without anybody expecting it."""
    assert "holds repairs back" not in zlh("plan").output
    zlh("pause", "--reason", "DNS move")
    zlh("pause", "--vmid", "5001", "--reason", "by hand")
    with platform.services() as services:
        services.gate.failed(Surface.VELOCITY, "HTTP 500", at_once=True)
    plan = zlh("plan")
    assert plan.exit_code == 0
    told = [line for line in plan.output.splitlines() if line.startswith("holds repairs back: ")]
    assert len(told) == 3
    for found, words in zip(
        told,
        (
            ("Repairs paused: DNS move", "zlh resume"),
            ("server 5001 paused: by hand", "zlh resume --vmid 5001"),
            ("Breaker open: velocity", "HTTP 500", "zlh breakers reset velocity"),
        ),
        strict=True,
    ):
        assert all(word in found for word in words), found
    assert [h["incident"] for h in json.loads(zlh("plan", "--json").output)["holds"]] == [
        "paused:everything",
        "paused:server:5001",
        "breaker:velocity",
    ]


@pytest.mark.usefixtures("without_redis")
def test_without_redis_nobody_knows_who_leads_and_what_is_open(zlh):
    told = status(zlh)
    assert (told["leader"], told["breakers"], told["incidents"]) == (None, None, None)
    text = " ".join(zlh("status").output.split())
    for what in ("leader", "repairing now", "breakers", "open incidents"):
        assert f"{what} not known" in text


def test_a_row_about_a_whole_surface_names_it(zlh, platform):
    finding = Entry("dns_republish", 1, "mass drift", "controller", "r", 1, surface="cloudflare")
    with platform.services() as services:
        services.ledger.record(finding, Status.REFUSED)
    assert status(zlh)["last_repairs"][0]["surface"] == "cloudflare"
    for command in ("status", "events"):
        assert "UTC cloudflare dns_republish refused" in " ".join(zlh(command).output.split())


def test_an_upgrade_of_a_mistyped_database_makes_none(zlh, monkeypatch, tmp_path):
    monkeypatch.setenv("ZLH_DATABASE_URL", f"sqlite:///{tmp_path}/mistyped.db")
    with pytest.raises(SQLAlchemyError, match=r"no file at .*mistyped\.db; ZLH_DATABASE_URL must"):
        zlh("db", "upgrade")
    assert not (tmp_path / "mistyped.db").exists()


def test_an_upgrade_of_a_database_that_nobody_named_says_so(zlh, monkeypatch):
    assert "not set" not in zlh("db", "upgrade").output
    monkeypatch.delenv("ZLH_DATABASE_URL")
    told = " ".join(zlh("db", "upgrade").output.split())
    assert "ZLH_DATABASE_URL is not set: set it to the platform's database" in told
