"""The daily digest: the numbers of a day, and one message that says them."""

from datetime import datetime, timedelta, timezone

import pytest

from zlh_dagster.core.breaker import Breaker
from zlh_dagster.core.digest import Day, digest_message
from zlh_dagster.core.holds import Pause
from zlh_dagster.core.incidents import Incident
from zlh_dagster.core.messages import payload
from zlh_dagster.core.repair import Status
from zlh_dagster.core.rules import Severity
from zlh_dagster.sandbox.discord_limits import broken_limits

END = datetime(2030, 1, 2, 8, tzinfo=timezone.utc)
START = END - timedelta(days=1)
NOW = END.timestamp()
QUIET = Day(1440, {"cloudflare_records": 1.0}, 0, {}, None)


def event(status=Status.SUCCEEDED, took=4.2, vmid=5000, action="dns_republish"):
    finished = None if took is None else START + timedelta(seconds=took)
    return {
        "vmid": vmid,
        "action": action,
        "status": status.value,
        "createdAt": START,
        "finishedAt": finished,
    }


def day(*events, **figures):
    return Day.of(figures, events)


def told(day=QUIET, *, incidents=(), breakers=None, pauses=()):
    return digest_message(
        day,
        start=START,
        end=END,
        incidents=incidents,
        breakers=breakers or {},
        pauses=pauses,
        now=NOW,
    )


# --- the numbers ---------------------------------------------------------------------------------


def test_an_empty_day_has_no_numbers():
    assert day() == Day(0, {}, 0, {}, None)


def test_rows_are_counted_by_status_and_the_longest_repair_is_found():
    made = day(
        event(took=4.2, vmid=5000),
        event(took=9.5, vmid=5001),
        event(Status.FAILED, took=99.0, vmid=5002),
        event(Status.REFUSED, took=0.0),
        event(Status.RUNNING, took=None),
    )
    assert made.statuses == {"succeeded": 2, "failed": 1, "refused": 1, "running": 1}
    assert made.longest == (9.5, "5001")


def test_a_repair_without_a_server_is_named_by_what_it_did():
    assert day(event(vmid=None, action="fail_stuck_provisioning")).longest == (
        4.2,
        "fail_stuck_provisioning",
    )


def test_a_source_is_seen_as_often_as_it_was_on():
    figures = {"ticks": 1440, "drifts": 3, "on:a": 1440, "seen:a": 1440, "on:b": 4, "seen:b": 1}
    made = Day.of({**figures, "on:c": 7, "seen:d": 5}, [])
    assert (made.ticks, made.drifts) == (1440, 3)
    assert made.seen == {"a": 1.0, "b": 0.25, "c": 0.0}


def test_a_source_that_was_never_on_has_no_share():
    assert Day.of({"on:a": 0, "seen:a": 0}, []).seen == {}


# --- the message ---------------------------------------------------------------------------------


def test_a_quiet_day_is_good_and_says_its_numbers():
    message = told()
    assert message.severity is Severity.INFO
    assert message.good
    assert message.title == "Digest: 0 repaired, nothing open"
    assert message.lines == (
        "Ticks: 1440 of 1440",
        "Seen: cloudflare_records 100 %",
        "Drift found: 0",
        "Repaired: 0, failed: 0, refused: 0, interrupted: 0, dry run: 0",
        "Longest repair: none",
        "Open incidents: 0",
        "Breakers: all closed",
    )
    assert message.footer == "01 Jan 08:00 to 02 Jan 08:00 UTC"


def test_a_day_without_a_tick_is_not_good_and_its_title_says_so():
    """The digest itself is what tells that the loop slept."""
    message = told(Day(0, {}, 0, {}, None))
    assert not message.good
    assert message.title == "Digest: no tick was judged"
    assert message.lines[:2] == ("Ticks: 0 of 1440", "Seen: nothing is on")


def test_a_full_day_says_all_of_it():
    made = day(
        event(took=4.25),
        event(Status.FAILED),
        event(Status.REFUSED),
        event(Status.INTERRUPTED),
        event(Status.DRY_RUN),
        drifts=3,
        ticks=1439,
    )
    message = told(made)
    assert "Ticks: 1439 of 1440" in message.lines
    assert "Drift found: 3" in message.lines
    assert "Repaired: 1, failed: 1, refused: 1, interrupted: 1, dry run: 1" in message.lines
    assert "Longest repair: 4.2 s (5000)" in message.lines
    assert message.title.startswith("Digest: 1 repaired")


@pytest.mark.parametrize(
    ("share", "said"),
    [(1.0, "100 %"), (1439 / 1440, "99.9 %"), (0.99999, "99.9 %"), (0.5, "50 %"), (0.0, "0 %")],
)
def test_a_share_is_whole_only_when_nothing_was_missed(share, said):
    assert f"Seen: a {said}" in told(Day(1, {"a": share}, 0, {}, None)).lines


def incident(n, hours=1.0):
    name = f"agent_offline:{n}"
    return Incident(name, Severity.WARNING, f"Server {n}", opened_at=NOW - 3600 * hours)


def test_what_is_open_is_named_the_oldest_first_with_its_age():
    message = told(incidents=[incident(5000, 2), incident(5001, 30)])
    at = message.lines.index("Open incidents: 2")
    assert message.lines[at + 1 : at + 3] == (
        "- Server 5001, for 30 h",
        "- Server 5000, for 2 h",
    )
    assert not message.good
    assert message.title == "Digest: 0 repaired, 2 open"


@pytest.mark.parametrize("count", [6, 7, 500])
def test_many_open_incidents_are_named_in_part_and_counted(count):
    message = told(incidents=[incident(n) for n in range(count)])
    at = message.lines.index(f"Open incidents: {count}")
    assert [line[:8] for line in message.lines[at + 1 : at + 7]] == ["- Server"] * 6
    after = message.lines[at + 7]
    if count == 6:
        assert after == "Breakers: all closed"
    else:
        assert after == f"- and {count - 6} more, see zlh status"
    assert broken_limits(payload(message)) == []


def test_open_breakers_and_pauses_are_said_and_closed_ones_are_not():
    message = told(
        breakers={
            "cloudflare": Breaker(5, NOW - 60, NOW + 60, "HTTP 500"),
            "technitium": Breaker(5, NOW - 960, NOW - 60, "HTTP 500"),
            "velocity": Breaker(2, reason="HTTP 500"),
        },
        pauses=[Pause("server:5000", "moving", NOW - 5)],
    )
    [line] = [line for line in message.lines if line.startswith("Breakers: ")]
    assert "cloudflare" in line
    assert "technitium" not in line
    assert "velocity" not in line
    assert message.lines[-1] == "server 5000: paused: moving"
    assert message.title.endswith("1 breakers open")
    assert not message.good
