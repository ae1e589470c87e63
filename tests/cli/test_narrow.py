"""A window of 80 columns: lines that wrap, and no name cut off."""

import io
from datetime import date, datetime, timezone

from rich.console import Console

from zlh_dagster.cli import doctor, history, plan
from zlh_dagster.cli.drill import Report, Target
from zlh_dagster.cli.text import hang
from zlh_dagster.core.digest import Day
from zlh_dagster.core.model import Record, Surface
from zlh_dagster.core.rules import POLICY

SRV = "_minecraft._tcp.mc-5000.example.gg"


def printed(show) -> list[str]:
    out = io.StringIO()
    show(Console(file=out, width=80, soft_wrap=True, highlight=False))
    lines = out.getvalue().splitlines()
    assert all(len(line) <= 80 for line in lines)
    assert [line.rstrip() for line in lines] == lines
    return lines


def test_a_long_text_hangs_below_its_beginning_and_is_no_markup():
    lines = printed(lambda out: hang(out, "[bold]name[/bold]  ", "[word] " * 20))
    assert lines[0].startswith("name  [word] [word]")
    assert lines[1].startswith("      [word]")


def test_the_policy_has_every_name_whole():
    text = "\n".join(printed(lambda out: plan.show_policy(out, as_text=True)))
    for rule in POLICY:
        assert rule.kind.value in text
        if rule.action:
            assert f"{rule.action.value}, level {rule.level}" in text


def test_the_findings_of_doctor_hang_below_the_text():
    finding = doctor.Finding("ZLH_REDIS_URL", doctor.State.PROBLEM, "tried " * 9, "got " * 20, "do")
    first, second, *_ = printed(lambda out: doctor.show(out, [finding], as_text=True))
    assert second.index("got") == first.index("tried")


def test_a_day_is_a_line_and_what_was_missed_stands_below():
    day = Day(
        1440, {"technitium_records": 0.5, "agents": 0.75}, 12, {"succeeded": 3}, (7.5, "5000")
    )
    head, first, second = printed(
        lambda out: history.show(out, {date(2026, 11, 26): day}, as_text=True)
    )
    assert first.split() == ["2026-11-26", "1440", "12", "3", "0", "0", "0", "0", "7.5", "s"]
    assert second.strip() == "not always seen: technitium_records 50 %, agents 75 %"
    assert head.split()[-3:] == ["dry", "run", "longest"]


def test_the_report_of_a_drill_fits():
    wanted = Record(Surface.CLOUDFLARE, SRV, "SRV", "0 0 25565 mc-5000.example.gg")
    report = Report(Target(5000, wanted, "id"), datetime(2026, 11, 26, tzinfo=timezone.utc))
    row = "ledger row c434ce7f: dns_republish succeeded, by the controller, run 0123abcd"
    report.steps.append((61.2, row))
    report.problems.append("the loop did not put it back within 240 s, and " + "more " * 20)
    lines = report.markdown().splitlines()
    assert max(map(len, lines)) <= 80
    assert f"`{SRV}`" in lines[2]
    assert row in " ".join(" ".join(lines).split())
