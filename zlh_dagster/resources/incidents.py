"""Open incidents, so that each is told once and not once a minute. Kept in Redis."""

from collections.abc import Collection, Iterable
from dataclasses import replace
from typing import Any

import redis

from zlh_dagster.core.incidents import Changes, Incident
from zlh_dagster.core.repair import Finding
from zlh_dagster.resources.table import RedisTable

KEY = "zlh:incidents"


class Incidents:
    """Open incidents by name.

    Should Redis lose everything, each incident that lasts is opened, and told, once more. Every
    method raises ``RedisUnavailable`` when Redis does not answer.
    """

    def __init__(self, client: "redis.Redis") -> None:
        self._table = RedisTable(client, KEY, "incidents")

    def open(self, incident: Incident) -> bool:
        """Opens an incident; returns whether it was not open before."""
        return self._table.put_new(incident.name, incident.to_json())

    def found(self, incident: Incident) -> Incident | None:
        """Opens an incident, or keeps that it lasts; returns it as it was open, or ``None``."""
        if self.open(incident):
            return None
        self._update(incident.name, absent_since=None)
        # One that was closed just now was told by whoever closed it.
        return self.all_open().get(incident.name, incident)

    def close(self, names: Collection[str]) -> None:
        """Closes incidents."""
        self._table.remove(*names)

    def all_open(self) -> dict[str, Incident]:
        """Every open incident by name; one whose details cannot be read is open all the same."""
        return {name: Incident.from_json(name, value) for name, value in self._table.all().items()}

    def note(self, changes: Changes, *, now: float) -> None:
        """Keeps what a tick did not find, what it found again, and what is tried again."""
        self.absent(changes.absent, now=now)
        for name in changes.back:
            self._update(name, absent_since=None)
        for name in changes.tried:
            self._update(name, tried_at=now)

    def absent(self, names: Iterable[str], *, now: float) -> None:
        """Keeps that incidents are over, which is not told yet."""
        for name in names:
            self._update(name, absent_since=now)

    def told(self, names: Iterable[str], message: str | None) -> None:
        """Keeps by which message incidents were told, or that there is no channel for it.

        One that was told before became worse: both messages are its own.
        """
        for name in names:
            told_before = (self._table.get(name) or {}).get("message")
            field = "worse" if told_before else "message"
            self._update(name, **{field: message}, untold_at=None)

    def change(self, finding: Finding, *, code: str, untold_at: float | None) -> None:
        """Keeps that a repair is refused for another reason, and that this is not told yet."""
        values = {} if untold_at is None else {"untold_at": untold_at}
        severity, text = finding.severity, finding.text
        self._update(finding.incident, severity=severity, text=text, code=code, **values)

    def reminded(self, incidents: Iterable[Incident], *, now: float) -> None:
        """Keeps that incidents were reminded of; one reminder stands for all that were due."""
        for incident in incidents:
            self._update(incident.name, reminded=incident.reminders_until(now), untold_at=None)

    def untold(self, names: Iterable[str], *, now: float) -> None:
        """Keeps that Discord did not take the message about incidents."""
        for name in names:
            self._update(name, untold_at=now)

    def _update(self, name: str, **values: Any) -> None:
        """Changes an incident as it stands now; one that was closed meanwhile stays closed."""
        value = self._table.get(name)
        if value is not None:
            incident = replace(Incident.from_json(name, value), **values)
            self._table.put_known(name, incident.to_json())
