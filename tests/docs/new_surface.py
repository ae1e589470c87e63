"""What somebody writes who adds a surface by docs/development.md, and the loop over it.

The surface is Hickory, a second DNS server for the internal zone with an API of its own. The steps
are edits of a copy of the package; run as a program in that copy, this breaks one of its records
and lets the loop mend it.
"""

import json
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

ADDRESS = "10.70.0.9"

CLIENT = '''
"""Hickory, a DNS server with a JSON API: GET and POST ``/records``."""

from typing import Any, ClassVar

import pandas as pd

from zlh_dagster.core.changes import Change
from zlh_dagster.core.model import DriftKind, Surface, records_frame
from zlh_dagster.resources.edge import READ_TIMEOUT, WRITE_TIMEOUT, field
from zlh_dagster.resources.http import ApiClient, HttpApi, Incomplete, Rejected


class Hickory(ApiClient):
    surface = Surface.HICKORY
    at_once: ClassVar[int] = 4
    per_call: ClassVar[int] = 1

    def __init__(self, *, base_url: str, token: str) -> None:
        headers = {"Authorization": f"Bearer {token}"}
        super().__init__(HttpApi("hickory", base_url, headers=headers, timeout=READ_TIMEOUT))

    def list_records(self) -> pd.DataFrame:
        status, answer = self._api.read(lambda: self._api.call("GET", "/records"))
        if status != 200:
            raise Rejected(f"hickory: HTTP {status} to the list")
        listed = field(answer, "records", list, "hickory: the answer")
        if not listed:
            raise Incomplete("hickory: an empty zone")
        return records_frame([_row(record) for record in listed])

    def apply(self, change: Change) -> None:
        if change.kind is not DriftKind.MISSING:
            raise Rejected(f"hickory: {change.describe()}: only absent records are made")
        wanted = change.wanted
        body = {"name": wanted.name, "type": wanted.type, "content": wanted.content}
        body["ttl"] = wanted.ttl
        status, _ = self._api.call("POST", "/records", json=body, timeout=WRITE_TIMEOUT)
        if status >= 400:
            raise Rejected(f"hickory: HTTP {status} to the record")


def _row(record: Any) -> dict[str, Any]:
    texts = {name: field(record, name, str, "hickory") for name in ("name", "type", "content")}
    ttl = field(record, "ttl", int, "hickory")
    return {"surface": Surface.HICKORY.value, **texts, "ttl": ttl}
'''

STEPS: dict[int, dict[str, list[tuple[str, str]]]] = {
    1: {
        "core/model.py": [
            ('    VELOCITY = "velocity"\n', '    VELOCITY = "velocity"\n    HICKORY = "hickory"\n'),
            (
                "DNS_SURFACES = (Surface.CLOUDFLARE, Surface.TECHNITIUM)",
                "DNS_SURFACES = (Surface.CLOUDFLARE, Surface.TECHNITIUM, Surface.HICKORY)",
            ),
        ],
        "core/policy.py": [
            (
                '    Surface.VELOCITY: "velocity_backends",\n',
                '    Surface.VELOCITY: "velocity_backends",\n'
                '    Surface.HICKORY: "hickory_records",\n',
            )
        ],
    },
    2: {
        "core/desired.py": [
            (
                "    velocity: bool = False\n",
                "    velocity: bool = False\n    hickory_ip: str | None = None\n",
            ),
            (
                "        (Surface.TECHNITIUM, internal, None),\n",
                "        (Surface.TECHNITIUM, internal, None),\n"
                "        (Surface.HICKORY, config.hickory_ip, None),\n",
            ),
        ],
        "core/changes.py": [
            (
                "    if surface is Surface.VELOCITY:\n        return kind",
                "    if surface in (Surface.VELOCITY, Surface.HICKORY):\n        return kind",
            )
        ],
    },
    3: {"resources/hickory.py": [("", CLIENT)]},
    4: {
        "resources/settings.py": [
            (
                "    dagster_home: Path",
                "    hickory_url: str | None = None\n"
                "    hickory_token: SecretStr | None = None\n"
                "    hickory_edge_ip: str | None = None\n\n"
                "    dagster_home: Path",
            ),
            (
                "            velocity=self.velocity_on,\n",
                "            velocity=self.velocity_on,\n"
                "            hickory_ip=self.hickory_edge_ip if self.hickory_url else None,\n",
            ),
        ],
        "resources/services.py": [
            (
                "        return {client.surface: client for client in clients}",
                "        if settings.hickory_url:\n"
                "            token = _value(settings.hickory_token)\n"
                "            clients.append(Hickory(base_url=settings.hickory_url, token=token))\n"
                "        return {client.surface: client for client in clients}",
            ),
            (
                "from zlh_dagster.resources.incidents",
                "from zlh_dagster.resources.hickory import Hickory\n"
                "from zlh_dagster.resources.incidents",
            ),
        ],
        "cli/doctor_checks.py": [
            (
                "\n}\n_SETTINGS_OF",
                '\n    Surface.HICKORY: "HICKORY_TOKEN must be one that may edit the zone",\n}\n'
                "_SETTINGS_OF",
            ),
            (
                '(it ends before /zpack)"),\n',
                '(it ends before /zpack)"),\n'
                '    Surface.HICKORY: ("HICKORY_TOKEN", "HICKORY_URL"),\n',
            ),
        ],
    },
    5: {
        "assets/specs.py": [
            (
                "    _spec(\n        CONTAINERS,\n",
                "    _spec(SOURCE_OF[Surface.HICKORY], {'hickory'}, 'At Hickory.', _UNOBSERVED),\n"
                "    _spec(\n        CONTAINERS,\n",
            )
        ]
    },
}
"""Step of the page, file below the package, and what is replaced there by what."""


def apply(package: Path, steps: dict[int, dict[str, list[tuple[str, str]]]]) -> None:
    """Edits a copy of the package.

    Raises:
        AssertionError: If an edit no longer fits: then the page has to be read again too.
    """
    for step, files in steps.items():
        for name, edits in files.items():
            path = package / name
            text = path.read_text() if path.exists() else ""
            for old, new in edits:
                assert old in text or not old, f"step {step}: {name} has no {old!r} any more"
                text = text.replace(old, new, 1) if old else new
            path.write_text(text)


@contextmanager
def pretend(records: list[dict[str, Any]], calls: list[str]) -> Iterator[str]:
    """A Hickory with these records; its URL."""

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self._answer({"records": records})

        def do_POST(self) -> None:
            length = int(self.headers["Content-Length"])
            records.append(json.loads(self.rfile.read(length)))
            self._answer({})

        def _answer(self, value: Any) -> None:
            calls.append(self.command)
            body = json.dumps(value).encode()
            self.send_response(200)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *_: Any) -> None:
            return

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    try:
        yield f"http://127.0.0.1:{server.server_port}"
    finally:
        server.shutdown()
        server.server_close()


def main() -> None:
    """One record of Hickory is gone; a minute later it is there again. Prints what was seen."""
    import dagster as dg
    from pydantic import SecretStr

    from tests.harness import Loop
    from zlh_dagster.cli.doctor import examine
    from zlh_dagster.cli.doctor_checks import checks_of
    from zlh_dagster.core.desired import desired_edge
    from zlh_dagster.core.model import Surface, rows_of
    from zlh_dagster.resources.services import Services
    from zlh_dagster.resources.settings import load_settings
    from zlh_dagster.sensors import drift

    drift.WAIT_SECONDS = 0.0
    records: list[dict[str, Any]] = []
    calls: list[str] = []
    with pretend(records, calls) as url, Services(load_settings(env_file=None)) as plain:
        given = {"hickory_url": url, "hickory_token": SecretStr("t"), "hickory_edge_ip": ADDRESS}
        services = Services(plain.settings.model_copy(update=given))
        wanted = desired_edge(services.read_payloads(), services.settings.edge).records
        mine = rows_of(wanted[wanted["surface"] == Surface("hickory").value])
        keys = ("name", "type", "content", "ttl")
        records += [{key: row[key] for key in keys} for row in mine]
        before = sorted(json.dumps(record, sort_keys=True) for record in records)
        with dg.DagsterInstance.ephemeral() as instance:
            Loop.through_dagster = True
            loop = Loop(services, instance)
            quiet = loop.minute()
            del records[0]
            calls.clear()
            [repair] = loop.minute()
        after = sorted(json.dumps(record, sort_keys=True) for record in records)
        events = [(e["surface"], e["action"], e["status"]) for e in services.ledger.events()]
        named = {finding.name: finding.state.value for finding in examine(checks_of(services))}
        services.close()
    seen = {
        "quiet": len(quiet),
        "repaired": repair.success,
        "same": before == after,
        "writes": calls.count("POST"),
        "events": events,
        "doctor": named["hickory"],
    }
    sys.stdout.write(f"SEEN {json.dumps(seen)}\n")


if __name__ == "__main__":
    main()
