"""`zlh pause`, `resume`, `approve`, `breakers`: the operator's hand on the loop."""

import getpass
import json
import os
import re
import socket
import time
from contextlib import suppress
from typing import Any

from rich.console import Console
from rich.markup import escape
from rich.table import Table

from zlh_dagster.core import times
from zlh_dagster.core.breaker import Breaker, is_server_breaker, surface_breaker
from zlh_dagster.core.guards import row_of
from zlh_dagster.core.holds import EVERYTHING, Pause, resume_command, server_scope, surface_scope
from zlh_dagster.core.model import OPERATION_ACTIONS, Surface
from zlh_dagster.core.rules import Kind
from zlh_dagster.resources.database import DatabaseError
from zlh_dagster.resources.operations import read_open
from zlh_dagster.resources.redis import RedisUnavailable
from zlh_dagster.resources.services import Services

_SPAN = re.compile(r"(?:(\d{1,9})d)?(?:(\d{1,9})h)?(?:(\d{1,9})m)?(?:(\d{1,9})s)?")
_SECONDS = (86_400, 3_600, 60, 1)
_LONGEST_DAYS = 3650
"""What lasts longer has no end in sight: a pause without one says so, and fits every database."""


class BadRequest(Exception):
    """What was asked for cannot be done; the message says what can."""


def seconds_of(text: str) -> int:
    """The seconds of ``2h``, ``90m``, ``1d12h``.

    Raises:
        BadRequest: If it is no such text, or more than ten years.
    """
    found = _SPAN.fullmatch(text.strip().lower())
    total = 0
    if found:
        total = sum(int(n or 0) * s for n, s in zip(found.groups(), _SECONDS, strict=True))
    if not 0 < total <= _LONGEST_DAYS * _SECONDS[0]:
        raise BadRequest(
            f"--for {text!r}: give a time such as 30m, 2h or 1d12h, {_LONGEST_DAYS}d at the most;"
            " without --for it lasts until zlh resume"
        )
    return total


def scope_of(*, surface: str | None, vmid: int | None) -> str:
    """What a pause covers.

    Raises:
        BadRequest: If both are named, or the surface is none.
    """
    if surface is not None and vmid is not None:
        raise BadRequest("name a surface or a server, not both")
    if surface is not None:
        known = [s.value for s in Surface]
        if surface not in known:
            raise BadRequest(f"--surface {surface}: known are {', '.join(known)}")
        return surface_scope(surface)
    return EVERYTHING if vmid is None else server_scope(vmid)


def require_server(services: Services, vmid: int) -> None:
    """Refuses a VMID that the platform does not have, which is a slip of the hand.

    Raises:
        BadRequest: If neither a server nor an open operation has it.
        DatabaseError: If that cannot be read.
    """
    if row_of(services.read_payloads([vmid]), vmid) is not None:
        return
    if vmid not in set(read_open(services.engine)["vmid"].dropna()):
        raise BadRequest(f"--vmid {vmid}: the platform has no server and no operation of it")


def require_operation_action(action: str) -> None:
    """Refuses an action that has no operation.

    Raises:
        BadRequest: If it is of the edge or of a workload.
    """
    known = sorted(one.value for one in OPERATION_ACTIONS)
    if action not in known:
        raise BadRequest(f"--operation: {action} has none; it goes with {' and '.join(known)}")


def require_breaker(services: Services, name: str) -> None:
    """Refuses the name of a breaker that cannot be.

    Raises:
        BadRequest: If it is neither a surface nor a server.
        RedisUnavailable: If Redis does not answer.
    """
    surfaces = [surface_breaker(surface.value) for surface in Surface]
    numbered = is_server_breaker(name) and name.partition(":")[2].isdecimal()
    if name in surfaces or numbered or name in services.gate.breakers():
        return
    raise BadRequest(f"{name}: known are {', '.join(surfaces)} and server:VMID")


def reset(services: Services, name: str | None, *, servers: bool) -> list[dict[str, Any]]:
    """Closes one breaker or those of all servers; returns what came of each.

    Args:
        services: The outside systems.
        name: Of the one.
        servers: Whether those of all servers instead.

    Raises:
        BadRequest: If none or both are named, or there can be none of that name.
        RedisUnavailable: If Redis does not answer.
    """
    if (name is None) is not servers:
        raise BadRequest("name one breaker (zlh breakers lists them), or give --servers")
    names = (
        [name] if name is not None else sorted(filter(is_server_breaker, services.gate.breakers()))
    )
    answers = []
    for one in names:
        require_breaker(services, one)
        was_open = services.gate.reset(one)
        told = f"{one} is closed" if was_open else f"{one} was not open; its count begins anew"
        answers.append({"name": one, "was_open": was_open, "message": told})
    return answers or [{"name": None, "was_open": False, "message": "no server's was open"}]


def pause(
    services: Services, scope: str, *, span: str | None, reason: str | None
) -> dict[str, Any]:
    """Begins a pause, which always has a reason; returns what came of it.

    Raises:
        BadRequest: If the time cannot be read, or the platform has no such server.
        DatabaseError: If the database could not keep it; the message says whether it holds.
    """
    kind, _, number = scope.partition(":")
    if kind == "server":
        with suppress(DatabaseError):  # whoever wants to stop repairs can, whatever else is down
            require_server(services, int(number))
    now = time.time()
    made = Pause(
        scope=scope,
        reason=(reason or "").strip() or f"by hand, {_user()} on {socket.gethostname()}",
        since=now,
        until=None if span is None else now + seconds_of(span),
    )
    told = f"{scope} {made.describe()}; `{resume_command(scope)}` ends it"
    try:
        services.gate.pause(made)
    except RedisUnavailable:
        # Each tick and each repair run sets it before anything else, once Redis answers them.
        services.gate.keep(made)
        told += (
            ". Redis does not answer here: kept in the database, it holds from the next tick"
            " or repair run on; one under way may finish"
        )
        return {**made.to_json(), "scope": scope, "holds_now": False, "message": told}
    return {**made.to_json(), "scope": scope, "holds_now": True, "message": told}


def resume(services: Services, scope: str) -> dict[str, Any]:
    """Ends a pause; returns what came of it.

    Raises:
        DatabaseError: If the database could not forget it; it goes on then.
        RedisUnavailable: If Redis does not answer, and the database kept no pause to end.
    """
    again = f"run `{resume_command(scope)}` once Redis answers ({_how_redis(services)})"
    try:
        ended = services.gate.resume(scope)
    except RedisUnavailable as error:
        if not services.gate.forget(scope):
            raise RedisUnavailable(
                f"the database keeps no pause of {scope}, and whether Redis does is not known:"
                f" {again}. {error}"
            ) from None
        told = (
            f"{scope}: the pause that the database kept is ended. Redis does not answer here: one"
            f" that was begun while it answered still holds; {again} to be sure"
        )
        return {"scope": scope, "was_paused": True, "certain": False, "message": told}
    told = f"{scope} goes on" if ended else f"nothing to resume: {scope} has no pause"
    others: list[str] = []
    with suppress(RedisUnavailable, DatabaseError):
        others = sorted(services.gate.known_pauses())
    if others:
        told += f". Still paused: {', '.join(f'{o} (`{resume_command(o)}`)' for o in others)}"
    return {"scope": scope, "was_paused": ended, "certain": True, "message": told}


def _how_redis(services: Services) -> str:
    """What makes Redis answer."""
    if services.settings.zlh_redis_url is None:
        return "start `zlh up`, or set ZLH_REDIS_URL"
    return "start the one that ZLH_REDIS_URL names"


def _user() -> str:
    try:
        return getpass.getuser()
    except (KeyError, OSError):
        # A container may run under a number that has no name; the switch works all the same.
        return f"user {os.getuid()}"


def approve(services: Services, incident: str) -> dict[str, Any]:
    """Lets the batch of one escalated mass drift through, once; returns what came of it.

    Raises:
        BadRequest: If that incident is not open, or is not one that can be approved.
        RedisUnavailable: If Redis does not answer.
    """
    known = services.incidents.all_open()
    mass = [name for name in known if name.startswith(f"{Kind.MASS_DRIFT.value}:")]
    if incident not in known:
        raise BadRequest(f"no incident {incident!r} is open; open and approvable: {_listed(mass)}")
    if incident not in mass:
        raise BadRequest(f"{incident} needs no approval; approvable: {_listed(mass)}")
    services.gate.approve(incident)
    told = f"{incident} is approved for the next tick that still shows it"
    return {"incident": incident, "message": told}


def _listed(names: list[str]) -> str:
    return ", ".join(sorted(names)) or "none"


def breakers(services: Services) -> list[dict[str, Any]]:
    """All breakers that have seen a failure, as JSON."""
    now = time.time()
    return [
        {"name": name, "state": breaker.state(now).value, **breaker.to_json()}
        for name, breaker in sorted(services.gate.breakers().items())
    ]


def show_breakers(out: Console, found: list[dict[str, Any]], *, as_text: bool) -> None:
    """Prints the breakers."""
    if not as_text:
        out.print_json(json.dumps(found))
        return
    if not found:
        out.print("all breakers are closed")
        return
    now = time.time()
    table = Table("breaker", "state", "failures", "half-open in", "last failure")
    for row in found:
        until = Breaker.from_json(row).until
        left = "-" if until is None or until <= now else times.words(until - now)
        table.add_row(row["name"], row["state"], str(row["failures"]), left, escape(row["reason"]))
    out.print(table)
