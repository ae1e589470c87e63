"""`zlh drill`: takes away one record of a disposable server and watches the loop put it back.

It is the one place of this program that deletes anything: one record, read a moment before, of a
server whose row says that drills may use it.
"""

import json
import time
from collections.abc import Callable, Sequence
from contextlib import closing
from dataclasses import dataclass, field
from datetime import datetime, timezone
from typing import Any

import pandas as pd

from zlh_dagster.cli.authority import Nameserver, NotAsked, srv_at
from zlh_dagster.cli.health import look as look_at_health
from zlh_dagster.cli.parts import Drill
from zlh_dagster.cli.text import utc, wrapped
from zlh_dagster.core.compare import compare
from zlh_dagster.core.desired import desired_edge
from zlh_dagster.core.guards import budget_refusal, edge_refusals, row_of
from zlh_dagster.core.model import Action, Record, Surface, rows_of
from zlh_dagster.core.repair import RepairRequest, Status
from zlh_dagster.resources.cloudflare import Cloudflare
from zlh_dagster.resources.edge import WRITE_TIMEOUT
from zlh_dagster.resources.http import EdgeError
from zlh_dagster.resources.preconditions import BUDGET_WINDOW
from zlh_dagster.resources.services import Services

WAIT_SECONDS = 240.0
"""For the loop: a minute until its tick, the cold start of two runs, and as much again."""

POLL_SECONDS = 2.0
DNS_SECONDS = 60.0
_WIDTH = 80


class DrillRefused(Exception):
    """The drill was not begun; the message says why."""


@dataclass(frozen=True, slots=True)
class Target:
    """The record that is taken away: as it is wanted, and under which identifier it stands."""

    vmid: int
    wanted: Record
    record_id: str


@dataclass(slots=True)
class Report:
    """What happened.

    Attributes:
        target: The record.
        began: When it was deleted.
        steps: Seconds since then and what was seen, in order.
        problems: Why the drill is not passed.
        skipped: What was not to be verified.
    """

    target: Target
    began: datetime
    steps: list[tuple[float, str]] = field(default_factory=list)
    problems: list[str] = field(default_factory=list)
    skipped: list[str] = field(default_factory=list)

    def to_json(self) -> dict[str, Any]:
        """As `zlh drill --json` prints it; docs/json.md has the keys."""
        return {
            "passed": not self.problems,
            "vmid": self.target.vmid,
            "record": self.target.wanted.to_json(),
            "began": self.began.isoformat(),
            "steps": [{"seconds": round(at, 1), "seen": seen} for at, seen in self.steps],
            "problems": self.problems,
            "skipped": self.skipped,
        }

    def markdown(self) -> str:
        """The report as it can be pasted into an issue."""
        wanted = self.target.wanted
        deleted = f"SRV `{wanted.content}`, deleted at {utc(self.began)}"
        steps = [f"- {at:.0f} s: {seen}" for at, seen in self.steps]
        problems = [f"- {problem}" for problem in self.problems]
        verdict = "**not passed**" if self.problems else "**passed**"
        verdict = ", ".join((verdict, *(f"{what} not asked" for what in self.skipped)))
        return "\n".join(
            [
                f"## Drill {Drill.CLOUDFLARE_SRV.value}, server {self.target.vmid}: {verdict}",
                "",
                *wrapped(f"`{wanted.name}` {deleted}", _WIDTH),
                "",
                "After the deletion:",
                "",
                *(line for step in steps for line in _item(step)),
                *(["", "Problems:", ""] if problems else []),
                *(line for problem in problems for line in _item(problem)),
            ]
        )


def _item(text: str) -> list[str]:
    """An item of a list, its further lines below the first."""
    first, *more = wrapped(text, _WIDTH - 2)
    return [first, *(f"  {line}" for line in more)]


class _Breakable(Cloudflare):
    """Cloudflare with the one call that the controller does not have."""

    def delete(self, record_id: str) -> None:
        self._request("DELETE", f"{self._path}/{record_id}", timeout=WRITE_TIMEOUT)


def prepare(services: Services, vmid: int) -> Target:
    """The record to take away, once it is certain that the loop will put it back.

    Raises:
        DrillRefused: If the server may not be used, or the loop would not repair it.
        DatabaseError, EdgeError, RedisUnavailable: If that cannot be read.
    """
    settings = services.settings
    if not settings.cloudflare_on:
        raise DrillRefused("Cloudflare is not configured")
    _wanted(services, vmid)
    listed = services.surfaces[Surface.CLOUDFLARE].list_records()
    # Again, for the listing may have taken its time.
    desired = _wanted(services, vmid)
    wanted = Record.from_row(rows_of(desired)[0])
    found = listed[(listed["name"] == wanted.name) & (listed["type"] == "SRV")]
    if len(found) != 1 or len(compare(desired, listed)):
        raise DrillRefused(f"{wanted.name} is not in step now; wait until the loop has mended it")
    return Target(vmid, wanted, str(found["record_id"].iloc[0]))


def _wanted(services: Services, vmid: int) -> pd.DataFrame:
    """The desired SRV record of a server that may be drilled, read and judged as the loop does."""
    # All rows: a host name that another server has as well is nobody's.
    payloads = services.read_payloads()
    row = row_of(payloads, vmid)
    if row is None:
        raise DrillRefused(f"server {vmid}: the platform has none with this VMID")
    if not _disposable(row["payload"]):
        raise DrillRefused(
            f'server {vmid} is not disposable: its payload must carry "disposable": true'
        )
    edge = desired_edge(payloads, services.settings.edge)
    desired, asked = edge.records, RepairRequest(vmid, Action.DNS_REPUBLISH)
    guards = edge_refusals([asked], payloads=payloads, desired=desired, invalid=edge.invalid)
    if vmid in guards:
        raise DrillRefused(
            f"server {vmid} is guarded, the loop leaves it alone: {guards[vmid].message}"
        )
    _refuse_a_loop_that_would_not_repair(services, vmid)
    of_server = desired[desired["vmid"] == vmid]
    on_cloudflare = of_server["surface"] == Surface.CLOUDFLARE.value
    return of_server[on_cloudflare & (of_server["type"] == "SRV")]


def _disposable(payload: object) -> bool:
    try:
        read = json.loads(str(payload))
    except ValueError:
        return False
    return isinstance(read, dict) and read.get("disposable") is True


def _refuse_a_loop_that_would_not_repair(services: Services, vmid: int) -> None:
    health = look_at_health(services)
    if not health.healthy:
        raise DrillRefused(f"the loop is not well: {'; '.join(health.problems)}")
    leader = services.leadership.current()
    if leader is None or leader.mode != "live":
        mode = "nobody leads" if leader is None else f"the leader runs in mode {leader.mode}"
        raise DrillRefused(f"{mode}: nothing would be put back; set ZLH_REPAIR_MODE=live")
    holds = services.gate.holds()
    resets = services.gate.counted_since([vmid])
    spent = services.ledger.repairs_since([vmid], BUDGET_WINDOW, resets=resets)
    refusal = (
        holds.server(vmid)
        or holds.surface(Surface.CLOUDFLARE)
        or budget_refusal(vmid, spent, services.settings.zlh_max_repairs_per_server_hour)
    )
    if refusal is not None:
        raise DrillRefused(f"the loop would not repair it: {refusal.message}")


class Exercise:
    """One drill.

    Args:
        services: Of the deployment whose loop is drilled.
        target: From :func:`prepare`.
        nameservers: Asked at the end; without any, DNS is not.
        say: Told of each step as it happens.
        sleep: Waits; for tests.
        wait: Seconds that the loop has.
    """

    def __init__(
        self,
        services: Services,
        target: Target,
        *,
        say: Callable[[str], None],
        nameservers: Sequence[Nameserver] = (),
        sleep: Callable[[float], None] = time.sleep,
        wait: float = WAIT_SECONDS,
    ) -> None:
        self._services, self._target = services, target
        self._say, self._sleep, self._wait = say, sleep, wait
        self._nameservers = nameservers
        self._report = Report(target, datetime.now(timezone.utc))
        self._started = time.monotonic()

    def run(self) -> Report:
        """Deletes, waits, verifies; whatever happens, the record stands again afterwards.

        Raises:
            DrillRefused: If the target may not be taken away any more; nothing was deleted.
            DatabaseError, EdgeError, RedisUnavailable: If that cannot be read.
        """
        backends = self._backends()
        if prepare(self._services, self._target.vmid) != self._target:
            name = self._target.wanted.name
            raise DrillRefused(f"{name} is not what it was a moment ago; begin again")
        with closing(self._services.cloudflare_as(_Breakable)) as client:
            self._report.began = datetime.now(timezone.utc)
            self._started = time.monotonic()
            try:
                client.delete(self._target.record_id)
                self._saw("deleted over Cloudflare's API")
                if self._until(lambda: self._stands(client), self._wait):
                    self._saw("a fresh listing shows it again")
                    self._verify(client, backends)
                else:
                    self._report.problems.append(
                        f"the loop did not put it back within {self._wait:.0f} s"
                    )
            finally:
                if not self._listed(client):
                    self._put_back(client)
        return self._report

    def _verify(self, client: Cloudflare, backends: set[str] | None) -> None:
        self._ask_the_ledger()
        self._ask_the_nameservers()
        self._wait_for_another_tick()
        rows = [e for e in self._events() if e["status"] != Status.RUNNING.value]
        if len(rows) > 1:
            told = ", ".join(f"{e['action']} {e['status']}" for e in rows)
            self._report.problems.append(f"one repair was due, the ledger has {told}")
        if not self._stands(client):
            self._report.problems.append("after the next tick it does not stand exactly once")
        now = self._backends()
        if backends is not None and now is not None:
            if now == backends:
                self._saw(f"Velocity has the same {len(now)} registrations as before")
            else:
                self._report.problems.append("Velocity's registrations are not those of before")

    def _ask_the_ledger(self) -> None:
        done = self._until(lambda: [e for e in self._events() if e["finishedAt"]], DNS_SECONDS)
        if not done:
            self._report.problems.append("the ledger has no closed row of it")
            return
        event = done[-1]
        row = f"row {event['id'][:8]}: {event['action']} {event['status']}"
        self._saw(f"ledger {row}, by the {event['requestedBy']}, run {event['runId'][:8]}")
        if event["status"] != Status.SUCCEEDED.value:
            self._report.problems.append(f"the ledger's {row}, not succeeded")

    def _ask_the_nameservers(self) -> None:
        if not self._nameservers:
            self._report.skipped.append("DNS")
        name, content = self._target.wanted.name, str(self._target.wanted.content)
        try:
            for server in self._nameservers:
                if self._until(lambda: srv_at(server, name) == {content}, DNS_SECONDS):  # noqa: B023
                    self._saw(f"{server.name} answers with it")
                else:
                    self._report.problems.append(f"{server.name} does not answer with it")
        except NotAsked as error:
            self._report.problems.append(f"DNS was not asked: {error}")

    def _wait_for_another_tick(self) -> None:
        since = time.time()

        def judged() -> bool:
            return (self._services.pulse.last() or 0.0) > since

        if self._until(judged, self._wait):
            self._saw("another tick was judged")
        else:
            self._report.problems.append(
                "no other tick was judged, a second write was not excluded"
            )

    def _stands(self, client: Cloudflare) -> bool:
        """Whether it is there, once and as it is wanted."""
        return self._listed(client) == [self._target.wanted.content]

    def _listed(self, client: Cloudflare) -> list[str] | None:
        """What stands under its name and type, or ``None`` when the listing failed."""
        try:
            listed = client.list_records()
        except EdgeError:
            return None
        wanted = self._target.wanted
        mine = (listed["name"] == wanted.name) & (listed["type"] == wanted.type)
        return [str(content) for content in listed.loc[mine, "content"]]

    def _put_back(self, client: Cloudflare) -> None:
        """As an operator's repair, through guards, lease and ledger."""
        from zlh_dagster.cli.repair import repair

        self._say("the loop did not put it back, so this command does")
        vmid = self._target.vmid
        try:
            repair(self._services, vmid=vmid, action="dns_republish", live=True)
        except Exception as error:  # noqa: BLE001 - the operator must hear that it is not there
            self._report.problems.append(f"putting it back failed: {error}")
        if self._stands(client):
            self._saw("put back by `zlh repair dns_republish`, not by the loop")
        else:
            name = self._target.wanted.name
            command = f"zlh repair dns_republish --vmid {vmid} --live"
            self._report.problems.append(f"{name} IS STILL MISSING: {command}")

    def _events(self) -> list[dict[str, Any]]:
        events = self._services.ledger.events(vmid=self._target.vmid, limit=20)
        return [e for e in events if e["createdAt"] >= self._report.began]

    def _backends(self) -> set[str] | None:
        velocity = self._services.surfaces.get(Surface.VELOCITY)
        return None if velocity is None else set(velocity.list_records()["name"])

    def _until(self, look: Callable[[], Any], seconds: float) -> Any:
        give_up = time.monotonic() + seconds
        while True:
            found = look()
            if found or time.monotonic() > give_up:
                return found
            self._sleep(POLL_SECONDS)

    def _saw(self, text: str) -> None:
        at = time.monotonic() - self._started
        self._report.steps.append((at, text))
        self._say(f"{at:4.0f} s  {text}")
