"""Which surface fails at present, how, and how many times more."""

import threading
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any

from zlh_dagster.sandbox.exchange import JsonObject
from zlh_dagster.sandbox.fault_kinds import COMMON_OPTIONS, FAULT_KINDS, FAULTY_SURFACES


class UnknownFault(Exception):
    """A fault that was asked for and does not exist."""


@dataclass(frozen=True, slots=True)
class Fault:
    """A failure of one surface.

    Attributes:
        kind: One of the names in ``FAULT_KINDS``.
        options: Every option of that kind, with its value.
        reads: Whether reading calls fail.
        writes: Whether writing calls fail.
        times: How many calls it takes before it ends; nothing for no end.
    """

    kind: str
    options: Mapping[str, Any] = field(default_factory=dict)
    reads: bool = True
    writes: bool = True
    times: int | None = None

    def concerns(self, *, write: bool, listing: bool, page: str | None) -> bool:
        """Whether a call is one of those that fail."""
        scope = FAULT_KINDS[self.kind].scope
        if not (self.writes if write else self.reads):
            return False
        if scope == "writes":
            return write
        if scope == "listings" and not listing:
            return False
        return self.kind != "missing_page" or page == str(self.options["page"])

    def to_json(self) -> JsonObject:
        """The fault as the control API shows it."""
        return {
            "kind": self.kind,
            **self.options,
            "reads": self.reads,
            "writes": self.writes,
            "times": self.times,
        }


def make_fault(surface: str, kind: str, **options: Any) -> Fault:
    """A fault from its name and options.

    Raises:
        UnknownFault: If the surface, the kind or an option does not exist or does not fit; the
            message names those that do.
    """
    if surface not in FAULTY_SURFACES:
        raise UnknownFault(f"no surface {surface!r}; there are: {', '.join(FAULTY_SURFACES)}")
    possible = [name for name, rule in FAULT_KINDS.items() if surface in rule.surfaces]
    if kind not in possible:
        raise UnknownFault(
            f"no fault kind {kind!r} for {surface}; there are: {', '.join(possible)}"
        )
    rule = FAULT_KINDS[kind]
    known = {**COMMON_OPTIONS, **rule.options}
    for name, value in options.items():
        if name not in known:
            raise UnknownFault(f"no option {name!r} of {kind}; there are: {', '.join(known)}")
        if not known[name].accepts(value):
            raise UnknownFault(f"option {name!r} of {kind} cannot be {value!r}")
    return Fault(
        kind,
        {name: options.get(name, option.default) for name, option in rule.options.items()},
        **{name: options[name] for name in COMMON_OPTIONS if name in options},
    )


class FaultBoard:
    """At most one fault for each surface."""

    def __init__(self, lock: threading.RLock) -> None:
        self._lock = lock
        self._active: dict[str, Fault] = {}

    def switch_on(self, surface: str, kind: str, **options: Any) -> Fault:
        """Make a surface fail from now on, in place of the fault it had.

        Raises:
            UnknownFault: If there is no such fault.
        """
        fault = make_fault(surface, kind, **options)
        with self._lock:
            self._active[surface] = fault
        return fault

    def switch_off(self, surface: str) -> None:
        """Make a surface well again."""
        with self._lock:
            self._active.pop(surface, None)

    def clear(self) -> None:
        """Make all surfaces well again."""
        with self._lock:
            self._active.clear()

    def active(self) -> dict[str, Fault]:
        """The faults by surface, each with the number of times that are left."""
        with self._lock:
            return dict(self._active)

    def take(self, surface: str, *, write: bool, listing: bool, page: str | None) -> Fault | None:
        """The fault that a call meets, which uses it up by one."""
        with self._lock:
            fault = self._active.get(surface)
            if fault is None or not fault.concerns(write=write, listing=listing, page=page):
                return None
            if fault.times is not None:
                left = replace(fault, times=fault.times - 1)
                if left.times:
                    self._active[surface] = left
                else:
                    del self._active[surface]
            return fault
