"""`zlh health`: whether the loop works, for probes; and who tells the operator when it does not."""

import contextlib
import fcntl
import json
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from rich.console import Console

from zlh_dagster.cli.children import lock_of
from zlh_dagster.cli.parts import Part
from zlh_dagster.core.launch import DRIFT_SENSOR_FAILED, REPAIR_RUN_FAILED
from zlh_dagster.core.messages import Message
from zlh_dagster.core.pulse import GOOD_SECONDS
from zlh_dagster.core.rules import Severity
from zlh_dagster.core.times import words
from zlh_dagster.resources.leader import has_run
from zlh_dagster.resources.redis import RedisUnavailable
from zlh_dagster.resources.services import Services
from zlh_dagster.runs.locks import locked

STALL_SECONDS = 300.0
"""For so long the loop may be unwell before it is told: a restart of everything takes less."""

AGAIN_SECONDS = 600.0
"""After so long without a good tick what may hang is started once more."""

LOOP_STALLED = "loop_stalled"
"""Its heading in the runbook."""

OF_ITSELF = (REPAIR_RUN_FAILED, DRIFT_SENSOR_FAILED)
"""Incidents of the loop itself: what would remind of them is what fails."""


@dataclass(frozen=True, slots=True)
class Health:
    """What was found.

    Attributes:
        last_good_tick_age: In seconds, or null while none is known.
        role: ``leading``, ``standby`` or ``unknown``.
        leader: Name of the leader, where there is one.
        problems: Why it is not healthy, for people.
    """

    last_good_tick_age: float | None = None
    role: str = "unknown"
    leader: str | None = None
    problems: list[str] = field(default_factory=list)

    @property
    def healthy(self) -> bool:
        return not self.problems

    def to_json(self) -> dict[str, Any]:
        """As `zlh health --json` prints it."""
        age = self.last_good_tick_age
        return {
            "healthy": self.healthy,
            "last_good_tick_age_seconds": None if age is None else round(age, 1),
            "role": self.role,
            "leader": self.leader,
            "problems": self.problems,
        }

    def line(self) -> str:
        """The same in one line."""
        if self.problems:
            return f"not healthy: {'; '.join(self.problems)}"
        return f"healthy: {self.role}, last good tick {self.last_good_tick_age or 0:.0f} s ago"


def look(services: Services, *, now: float | None = None) -> Health:
    """Asks Redis for the last good tick and the leader, and whether the daemon's process is here.

    Args:
        services: Of this deployment.
        now: Seconds since the epoch, the present unless given.
    """
    moment = time.time() if now is None else now
    settings = services.settings
    if not has_run(settings.home, settings.zlh_deployment):
        return Health(problems=[f"no controller has run yet with DAGSTER_HOME {settings.home}"])
    problems: list[str] = []
    try:
        last = services.pulse.last()
        leader = services.leadership.current()
        known = [i for n, i in services.incidents.all_open().items() if n in OF_ITSELF]
    except RedisUnavailable as error:
        return Health(problems=[str(error)])
    age = None if last is None else moment - last
    if age is None:
        problems.append("no good tick yet")
    elif not -GOOD_SECONDS < age < GOOD_SECONDS:
        problems.append(f"the last good tick was {words(abs(age))} ago")
    role = "unknown"
    if leader is None:
        problems.append("nobody leads: the drift sensor does not run")
    else:
        role = "leading" if leader.deployment == services.deployment else "standby"
    # What is over but could not be told yet is no problem any more.
    failing = [i for i in known if i.absent_since is None]
    problems += [f"{i.title} since {words(max(moment - i.opened_at, 0))}" for i in failing]
    # With a deployment of several machines the daemon may be on another one, whose tick is fresh.
    if (problems or settings.zlh_deployment is None) and not _daemon_lives(settings.home):
        problems.append(f"no daemon runs on this machine's {settings.home}")
    return Health(age, role, leader.name if leader else None, problems)


def show(out: Console, health: Health, *, as_text: bool) -> int:
    """Prints it and returns the exit status: 0 while healthy, 1 otherwise."""
    if as_text:
        out.print(health.line(), markup=False)
    else:
        out.print_json(json.dumps(health.to_json()))
    return 0 if health.healthy else 1


def _daemon_lives(home: Path) -> bool:
    """Whether there is a daemon, which holds a lock for as long as it lives."""
    try:
        with lock_of(home, Part.DAEMON.value).open() as file:
            return not locked(file, fcntl.LOCK_SH)
    except FileNotFoundError:
        return False


@dataclass(slots=True)
class Stall:
    """What is known of a loop that may stand still.

    Attributes:
        well: When it was well last, or looked at first, in seconds of one clock.
        told: Whether the operator knows that it stands still.
    """

    well: float
    told: bool = False

    def see(self, health: Health, now: float, send: Callable[[Message], bool]) -> None:
        """Tells the operator that it stands still, and that it goes on; once each.

        Args:
            health: How it is now.
            now: Of the same clock.
            send: Takes a message; whether it was delivered.
        """
        unwell = now - self.well
        if health.healthy:
            if self.told:
                self.told = not send(goes_on(unwell))
            self.well = now
        elif unwell >= STALL_SECONDS and not self.told:
            self.told = send(stands_still(unwell, health))


class Watch:
    """Sees to it, in the process that keeps all others, that no stall lasts and none is missed.

    Args:
        look: How it goes now.
        send: Takes a message; whether it was delivered.
        start_again: Called when the loop stands still, and every ten minutes until it goes on.
        clock: Seconds that only go forward.
        say: Told once that it works, and whenever what may hang is started again why.
    """

    def __init__(
        self,
        look: Callable[[], Health],
        send: Callable[[Message], bool],
        start_again: Callable[[], None] = lambda: None,
        clock: Callable[[], float] = time.monotonic,
        say: Callable[[str], None] = lambda _: None,
    ) -> None:
        self._look, self._send, self._say, self._clock = look, send, say, clock
        self._start_again = start_again
        self._said = False
        self._stall = Stall(clock())
        self._due = STALL_SECONDS

    def once(self) -> None:
        """One look; the time before the first good tick counts from the start."""
        health = self._look()
        now = self._clock()
        unwell = now - self._stall.well
        self._stall.see(health, now, self._send)
        if health.healthy:
            self._due = STALL_SECONDS
            if not self._said:
                self._said = True
                self._say(health.line())
        elif unwell >= self._due:
            self._due = unwell + AGAIN_SECONDS
            self._said = False
            self._say(
                f"for {words(unwell)} {health.line()}; `zlh status` and `zlh doctor` say more"
            )
            self._start_again()


def tell(services: Services, health: Health, *, now: float | None = None) -> None:
    """The same for `zlh health --tell`, which knows by a file how it was when it was called last.

    Args:
        services: Of this deployment.
        health: How it is now.
        now: Seconds since the epoch, the present unless given.
    """
    moment = time.time() if now is None else now
    path = services.settings.home / "stall.json"
    try:
        kept = json.loads(path.read_text())
        stall = Stall(min(float(kept["well"]), moment), kept["told"] is True)
    except (OSError, ValueError, TypeError, KeyError):
        stall = Stall(moment)
    stall.see(health, moment, services.discord.send)
    with contextlib.suppress(OSError):
        path.write_text(json.dumps(asdict(stall)))


def stands_still(seconds: float, health: Health) -> Message:
    """What is told when the loop stands still."""
    return Message(
        Severity.CRITICAL,
        "The loop stands still: nothing is observed, nothing repaired",
        (
            f"Since {words(seconds)}: {'; '.join(health.problems)}",
            "`zlh health` says how it is now.",
        ),
        topics=(LOOP_STALLED,),
    )


def goes_on(seconds: float) -> Message:
    """What is told when it is over."""
    lines = (f"It stood still for {words(seconds)}.",)
    return Message(Severity.CRITICAL, "Over: the loop goes on", lines, good=True)
