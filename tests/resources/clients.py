"""Clients of the three surfaces, and what tests change on the pretend edge behind them."""

from collections.abc import Callable
from typing import Any

import httpx

from zlh_dagster.core.changes import Change
from zlh_dagster.core.model import DriftKind, Record, Surface
from zlh_dagster.resources.cloudflare import Cloudflare
from zlh_dagster.resources.edge import EdgeSurface
from zlh_dagster.resources.technitium import Technitium
from zlh_dagster.resources.velocity import Velocity

HOST = "mc-5000.example.gg"
SRV = f"_minecraft._tcp.{HOST}"
SRV_CONTENT = f"0 0 25565 {HOST}"
TOKENS = ("sandbox-cloudflare-token", "sandbox-technitium-token", "sandbox-zpack-secret")
CF, TN, VE = Surface.CLOUDFLARE, Surface.TECHNITIUM, Surface.VELOCITY


def make_client(sandbox, surface: Surface, **options: Any) -> EdgeSurface:
    """A client as the controller builds it; ``options`` replace arguments."""
    config, url = sandbox.config, sandbox.url
    if surface is CF:
        given = {
            "base_url": f"{url}/client/v4",
            "token": config.cloudflare_token,
            "zone_id": config.zone_id,
        }
        return Cloudflare(**{**given, **options})
    if surface is TN:
        given = {"base_url": url, "token": config.technitium_token, "zone": config.zone}
        return Technitium(**{**given, **options})
    return Velocity(**{"base_url": url, "secret": config.zpack_secret, **options})


def answering(*answers: Any) -> httpx.MockTransport:
    """A transport that gives these JSON bodies in turn, the last one for ever."""
    left = list(answers)

    def answer(request: httpx.Request) -> httpx.Response:
        body = left.pop(0) if len(left) > 1 else left[0]
        return body if isinstance(body, httpx.Response) else httpx.Response(200, json=body)

    return httpx.MockTransport(answer)


Handler = Callable[[httpx.Request], httpx.Response]


def missing(surface: Surface, name: str, kind: str, content: str) -> Change:
    proxied = False if surface is CF and kind == "A" else None
    ttl = None if surface is VE else 60
    return Change(
        DriftKind.MISSING, Record(surface, name, kind, content, ttl=ttl, proxied=proxied), None
    )


def find(frame, name: str, kind: str) -> Record:
    """The one record of that name and type in a listing."""
    rows = frame[(frame["name"] == name) & (frame["type"] == kind)].to_dict("records")
    assert len(rows) == 1
    return Record.from_row(rows[0])


ABSENT_TECHNITIUM = missing(TN, HOST, "A", "10.70.0.2")
