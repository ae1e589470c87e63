"""The kinds of failure that a surface can be given, and their options."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Literal

from zlh_dagster.sandbox.options import Option

FAULTY_SURFACES = ("cloudflare", "technitium", "velocity", "discord", "proxmox")

Scope = Literal["any", "reads", "listings", "writes"]

_LISTED = ("cloudflare", "technitium", "velocity", "proxmox")
_WRITTEN = ("cloudflare", "technitium", "velocity", "discord")


@dataclass(frozen=True, slots=True)
class FaultKind:
    """What one kind of fault applies to."""

    scope: Scope = "any"
    options: Mapping[str, Option] = field(default_factory=dict)
    surfaces: tuple[str, ...] = FAULTY_SURFACES


FAULT_KINDS: Mapping[str, FaultKind] = {
    "status": FaultKind(
        options={
            "code": Option((int,), 500, low=200, high=599),
            "retry_after": Option((int, float, type(None)), None),
            "body": Option((str, dict, list, type(None)), None),
        }
    ),
    "hang": FaultKind(options={"seconds": Option((int, float), 30)}),
    "disconnect": FaultKind(),
    "html": FaultKind(),
    "truncated_json": FaultKind(),
    "invalid_token": FaultKind(),
    "missing_page": FaultKind(
        scope="listings",
        options={
            "page": Option((int,), 2, low=1),
            "answer": Option((str,), "error", ("error", "empty")),
        },
        surfaces=("cloudflare",),
    ),
    "cut_short": FaultKind(
        scope="listings", options={"fraction": Option((int, float), 0.2, high=1)}, surfaces=_LISTED
    ),
    "empty": FaultKind(scope="listings", surfaces=_LISTED),
    "wrong_types": FaultKind(
        options={"where": Option((str,), "container", ("container", "rows", "fields"))}
    ),
    "huge": FaultKind(options={"megabytes": Option((int, float), 64)}),
    "write_ignored": FaultKind(scope="writes", surfaces=_WRITTEN),
    "write_answer_lost": FaultKind(scope="writes", surfaces=_WRITTEN),
}

COMMON_OPTIONS: Mapping[str, Option] = {
    "reads": Option((bool,), True),
    "writes": Option((bool,), True),
    "times": Option((int, type(None)), None, low=1),
}
