"""What `zlh events` says about a row of the ledger."""

import io
from datetime import datetime, timezone

import pytest
from rich.console import Console

from zlh_dagster.cli.events import show

NAME = "_minecraft._tcp.mc-5000.example.gg"
RECORD = {"surface": "cloudflare", "type": "SRV", "name": NAME, "records": []}


def printed(**row) -> str:
    event = {
        "id": "c434ce7f-0000",
        "createdAt": datetime(2026, 11, 1, 9, 30, tzinfo=timezone.utc),
        "vmid": 5000,
        "action": "dns_republish",
        "status": "succeeded",
        "requestedBy": "controller",
        "error": None,
        "before": [RECORD],
        "reason": "cloudflare SRV missing",
        **row,
    }
    out = io.StringIO()
    show(Console(file=out, width=80), [event], as_text=True)
    return out.getvalue()


@pytest.mark.parametrize(
    ("row", "why"),
    [
        ({}, f"cloudflare SRV missing; {NAME}"),
        (
            {"reason": "dns_republish asked for by hand"},
            f"dns_republish asked for by hand; cloudflare SRV {NAME}",
        ),
        ({"reason": f"revert of dns_republish {NAME}"}, f"revert of dns_republish {NAME}"),
        ({"before": {"status": "queued"}, "reason": "dead for 20 min"}, "dead for 20 min"),
        ({"before": None}, "cloudflare SRV missing"),
        ({"error": {"code": "paused", "message": "all is paused"}}, "all is paused"),
    ],
)
def test_each_record_is_named_once(row, why):
    first, *rest = printed(**row).splitlines()
    assert first.startswith("c434ce7f  2026-11-01 09:30:00 UTC  5000 dns_republish")
    assert " ".join(" ".join(rest).split()) == f"by the controller: {why}"
