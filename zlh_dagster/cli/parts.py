"""What commands take as an argument, apart from the modules that do the work."""

from enum import Enum
from typing import Annotated

import typer

SURFACES = ("cloudflare", "technitium", "velocity")
"""What `--surface` takes."""

AsJson = Annotated[bool, typer.Option("--json", help="Print JSON.")]
Live = Annotated[bool, typer.Option("--live", help="Write; else only record.")]
OfSurface = Annotated[
    str | None,
    typer.Option(
        "--surface",
        help=f"Only this surface: {', '.join(SURFACES)}.",
        autocompletion=lambda: list(SURFACES),
    ),
]
OfServer = Annotated[int | None, typer.Option("--vmid", help="Only this server.")]


class Part(str, Enum):
    """What `zlh serve` takes; of the daemon a deployment has one, of the others any number."""

    WEB = "web"
    DAEMON = "daemon"
    WORKER = "worker"


class Repair(str, Enum):
    """What `zlh repair` carries out; see docs/safety.md."""

    DNS_REPUBLISH = "dns_republish"
    VELOCITY_REREGISTER = "velocity_reregister"
    EDGE_REPUBLISH = "edge_republish"
    CLEAR_STALE_OPERATION_LOCK = "clear_stale_operation_lock"
    FAIL_STUCK_PROVISIONING = "fail_stuck_provisioning"
    STOP_SUSPENDED_WORKLOAD = "stop_suspended_workload"


def known_action(text: str) -> str:
    """``text``, where it names an action.

    Raises:
        typer.BadParameter: If it names none.
    """
    if text not in action_names():
        raise typer.BadParameter(f"{text!r} is not one of {', '.join(action_names())}")
    return text


def action_names() -> list[str]:
    """For the shell's completion."""
    return [one.value for one in Repair]


class Drill(str, Enum):
    """What `zlh drill` takes away."""

    CLOUDFLARE_SRV = "cloudflare-srv"
