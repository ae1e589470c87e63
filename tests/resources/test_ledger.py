"""The repair ledger on SQLite, PostgreSQL and MariaDB: written first, closed once, fenced."""

from datetime import datetime, timedelta, timezone

import pytest
import sqlalchemy as sa

from zlh_dagster.core.repair import Status
from zlh_dagster.resources import ledger as ledger_module
from zlh_dagster.resources.database import DatabaseError, connect
from zlh_dagster.resources.ledger import Closing, Entry, Fenced, Ledger
from zlh_dagster.schema.tables import repair_event

HOUR = timedelta(hours=1)


@pytest.fixture
def ledger(engine) -> Ledger:
    return Ledger(engine)


def entry(vmid: int | None = 5000, fence: int = 1, **values) -> Entry:
    given = {
        "action": "dns_republish",
        "level": 1,
        "reason": "cloudflare A missing",
        "requested_by": "controller",
        "run_id": "run-1",
        "fencing_token": fence,
        "vmid": vmid,
        "surface": "cloudflare",
    }
    return Entry(**{**given, **values})


def rows(ledger) -> list[tuple]:
    return [(e["vmid"], e["status"]) for e in reversed(ledger.events())]


# --- a repair's life -----------------------------------------------------------------------------


def test_a_row_stands_as_running_before_the_write_and_is_closed_after_it(ledger):
    before = [{"surface": "cloudflare", "name": "a", "type": "A", "records": []}]
    after = [{"surface": "cloudflare", "name": "a", "type": "A", "records": [{"ttl": 60}]}]
    event_id = ledger.open(entry(before=before))
    [event] = ledger.events()
    assert event["id"] == event_id
    assert (event["status"], event["finishedAt"], event["after"]) == ("running", None, None)
    assert event["before"] == before
    assert ledger.close(event_id, Status.SUCCEEDED, after=after)
    [event] = ledger.events()
    assert (event["status"], event["before"], event["after"]) == ("succeeded", before, after)
    assert event["error"] is None
    assert event["createdAt"] <= event["finishedAt"] <= datetime.now(timezone.utc)


def test_every_field_comes_back_as_it_was_written(ledger):
    given = entry(
        vmid=4_000_000,
        fence=2**53 + 1,
        surface=None,
        action="edge_republish",
        reason="ü – 日本 – 💥 – " + "x" * 20_000,
        requested_by="operator",
        run_id="0" * 36,
        before={"deep": [{"a": [1, 2.5, None, True, "💥", "quote ' \" \\ %s %(x)s :y {z}"]}]},
        error={"code": "refused", "message": "line\nbreak"},
    )
    ledger.record(given, Status.REFUSED)
    [event] = ledger.events()
    for field in ("action", "level", "reason", "vmid", "surface", "before", "after", "error"):
        assert event[field] == getattr(given, field)
    assert event["requestedBy"] == "operator"
    assert event["runId"] == "0" * 36
    assert event["fencingToken"] == 2**53 + 1
    assert event["status"] == "refused"
    assert event["finishedAt"] == event["createdAt"]


def test_a_row_is_closed_once(ledger):
    event_id = ledger.open(entry())
    assert ledger.close(event_id, Status.FAILED, error={"code": "repair_failed"})
    assert not ledger.close(event_id, Status.SUCCEEDED, after=[])
    [event] = ledger.events()
    assert (event["status"], event["error"]) == ("failed", {"code": "repair_failed"})


def test_an_unknown_row_cannot_be_closed(ledger):
    assert not ledger.close("nobody", Status.SUCCEEDED)


def test_closing_one_row_leaves_the_others_open(ledger):
    first, _ = ledger.open(entry(5000)), ledger.open(entry(5001))
    ledger.close(first, Status.SUCCEEDED)
    assert sorted(rows(ledger)) == [(5000, "succeeded"), (5001, "running")]


def test_absent_json_is_null_in_the_database_and_not_the_text_null(ledger, engine):
    ledger.open(entry())
    with engine.connect() as connection:
        found = connection.execute(
            sa.select(sa.func.count()).where(repair_event.c.before.is_(sa.null()))
        )
        assert found.scalar_one() == 1


def test_rows_of_a_group_are_opened_together_and_closed_together(ledger):
    ids = ledger.open_all([entry(vmid) for vmid in (5000, 5001, 5002)])
    assert len(set(ids)) == 3
    assert sorted(rows(ledger)) == [(v, "running") for v in (5000, 5001, 5002)]
    ledger.close(ids[1], Status.INTERRUPTED)
    closed = ledger.close_all(
        [
            Closing(ids[0], Status.SUCCEEDED, after=[1]),
            Closing(ids[1], Status.SUCCEEDED, after=[2]),
            Closing(ids[2], Status.FAILED, error={"code": "x"}),
        ]
    )
    assert closed == {ids[0], ids[2]}
    assert sorted(rows(ledger)) == [(5000, "succeeded"), (5001, "interrupted"), (5002, "failed")]
    assert ledger.close_all([]) == set()


def test_a_fenced_group_opens_none_of_its_rows(ledger):
    ledger.record(entry(5999, fence=7), Status.DRY_RUN)
    with pytest.raises(Fenced, match="fencing token 6"):
        ledger.open_all([entry(5000, fence=6), entry(5001, fence=6)])
    # A token that is new enough does not carry an old one with it.
    with pytest.raises(Fenced):
        ledger.open_all([entry(5000, fence=7), entry(5001, fence=6)])
    assert rows(ledger) == [(5999, "dry_run")]


# --- a crash and a takeover ----------------------------------------------------------------------


def test_rows_left_open_by_lower_tokens_are_closed_as_interrupted(ledger):
    left = [ledger.open(entry(5000, 1)), ledger.open(entry(5001, 2))]
    done = ledger.open(entry(5002, 2))
    ledger.close(done, Status.SUCCEEDED)
    mine = ledger.open(entry(5003, 3))
    assert sorted(ledger.interrupt_below(3)) == sorted(left)
    assert sorted(rows(ledger)) == [
        (5000, "interrupted"),
        (5001, "interrupted"),
        (5002, "succeeded"),
        (5003, "running"),
    ]
    assert ledger.interrupt_below(3) == []
    assert ledger.close(mine, Status.SUCCEEDED)
    [event] = [e for e in ledger.events() if e["vmid"] == 5000]
    assert event["error"]["code"] == "interrupted"
    assert event["finishedAt"] is not None


def test_a_controller_that_was_replaced_cannot_close_its_row(ledger):
    event_id = ledger.open(entry(fence=1))
    ledger.interrupt_below(2)
    assert not ledger.close(event_id, Status.SUCCEEDED)
    assert rows(ledger) == [(5000, "interrupted")]


@pytest.mark.parametrize(
    "claim", [Ledger.open, lambda ledger, row: ledger.record(row, Status.DRY_RUN)]
)
def test_a_lower_token_can_claim_nothing(ledger, claim):
    ledger.open(entry(5001, fence=7))
    with pytest.raises(Fenced, match="fencing token 6 is not the newest"):
        claim(ledger, entry(5000, fence=6))
    assert rows(ledger) == [(5001, "running")]


def test_the_same_and_a_higher_token_may_go_on(ledger):
    for fence in (7, 7, 8):
        ledger.open(entry(fence=fence))
    assert len(ledger.events()) == 3


def test_the_highest_token_is_remembered(ledger):
    assert ledger.max_fencing_token() == 0
    ledger.open(entry(fence=5))
    ledger.record(entry(fence=2**40), Status.REFUSED)
    assert ledger.max_fencing_token() == 2**40


# --- the budget ----------------------------------------------------------------------------------


def test_what_wrote_or_may_have_written_counts_against_the_budget(ledger):
    for status in (Status.SUCCEEDED, Status.FAILED):
        ledger.close(ledger.open(entry(5000)), status)
    ledger.open(entry(5000))
    ledger.interrupt_below(2)
    ledger.open(entry(5000, fence=2))
    ledger.record(entry(5000, fence=2), Status.REFUSED)
    ledger.record(entry(5000, fence=2), Status.DRY_RUN)
    ledger.open(entry(5001, fence=2))
    assert ledger.repairs_since([5000, 5001, 5002], HOUR) == {5000: 4, 5001: 1}
    assert ledger.repairs_since([5002], HOUR) == {}
    assert ledger.repairs_since([], HOUR) == {}


def test_what_is_older_does_not_count(ledger, monkeypatch):
    now = datetime.now(timezone.utc)
    for minutes in (61, 59, 1):
        monkeypatch.setattr(ledger_module, "_now", lambda m=minutes: now - timedelta(minutes=m))
        ledger.open(entry())
    monkeypatch.setattr(ledger_module, "_now", lambda: now)
    assert ledger.repairs_since([5000], HOUR) == {5000: 2}


def test_many_servers_are_asked_for_at_once(ledger):
    ledger.open(entry(5000))
    assert ledger.repairs_since(range(5000, 6000), HOUR) == {5000: 1}


# --- reading -------------------------------------------------------------------------------------


def test_events_come_newest_first_and_by_server(ledger, monkeypatch):
    now = datetime.now(timezone.utc)
    for n in range(5):
        monkeypatch.setattr(ledger_module, "_now", lambda n=n: now + timedelta(seconds=n))
        ledger.open(entry(5000 + n % 2, reason=str(n)))
    assert [e["reason"] for e in ledger.events()] == ["4", "3", "2", "1", "0"]
    assert [e["reason"] for e in ledger.events(vmid=5001)] == ["3", "1"]
    assert [e["reason"] for e in ledger.events(limit=2)] == ["4", "3"]
    assert ledger.events(vmid=1) == []


def test_times_are_utc_to_the_microsecond(ledger, monkeypatch):
    moment = datetime(2030, 1, 2, 3, 4, 5, 678_901, tzinfo=timezone.utc)
    monkeypatch.setattr(ledger_module, "_now", lambda: moment)
    ledger.open(entry())
    [event] = ledger.events()
    assert event["createdAt"] == moment
    assert event["createdAt"].tzinfo is timezone.utc


# --- a database that fails -----------------------------------------------------------------------


def test_without_the_table_every_call_says_so_without_data(empty_engine):
    ledger = Ledger(empty_engine)
    for call in (
        lambda: ledger.open(entry(reason="hunter22")),
        lambda: ledger.record(entry(reason="hunter22"), Status.REFUSED),
        lambda: ledger.close("x", Status.SUCCEEDED, after={"a": "hunter22"}),
        lambda: ledger.interrupt_below(2),
        ledger.max_fencing_token,
        lambda: ledger.repairs_since([5000], HOUR),
        ledger.events,
    ):
        with pytest.raises(DatabaseError, match=r"^platform database: ") as failed:
            call()
        assert "hunter22" not in str(failed.value)
        assert "\n" not in str(failed.value)


@pytest.mark.parametrize(
    "url",
    [
        "postgresql+psycopg2://zlh:hunter22@127.0.0.1:1/zlh",
        "mysql+pymysql://zlh:hunter22@127.0.0.1:1/zlh",
    ],
)
def test_an_unreachable_database_is_told_without_its_password(url):
    engine = connect(url)
    with pytest.raises(DatabaseError) as failed:
        Ledger(engine).max_fencing_token()
    assert "hunter22" not in str(failed.value)
    engine.dispose()
