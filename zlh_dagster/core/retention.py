"""Which runs are kept, and for how long: so that what is on disk stays bounded."""

from collections.abc import Collection, Sequence
from dataclasses import dataclass
from datetime import timedelta

EVENTFUL_TAG = "zlh/eventful"
"""On a tick's run: why it is kept longer than others."""

NEW_DRIFT = "drift"
"""Value of the tag: the tick showed another set of drifts than the last one that showed any."""

TICK_RUN_TAG = "zlh/tick_run"
"""On a repair run: the run of the tick that asked for it, which is kept as long."""

KEPT = timedelta(days=90)
"""How long runs with drift, repair or failure are kept."""

MOST_KEPT = 5_000
"""How many of them are kept at the most, the newest; a run is a few hundred KB."""


@dataclass(frozen=True, slots=True)
class Ended:
    """Runs of this project that are over, and older than uneventful ones may get.

    Attributes:
        runs: Their identifiers, the newest first.
        routine: Those of jobs that run all the time, which succeeded.
        eventful: Runs that are kept longer although they are routine.
        expired: Runs that are older than :data:`KEPT`.
    """

    runs: Sequence[str]
    routine: Collection[str]
    eventful: Collection[str]
    expired: Collection[str]

    def to_delete(self, *, most: int = MOST_KEPT) -> list[str]:
        """What is to be deleted, the oldest first.

        Args:
            most: How many eventful runs are kept at the most.
        """
        kept = 0
        deleted = []
        for run_id in self.runs:
            uneventful = run_id in self.routine and run_id not in self.eventful
            if uneventful or run_id in self.expired or kept >= most:
                deleted.append(run_id)
            else:
                kept += 1
        return deleted[::-1]
