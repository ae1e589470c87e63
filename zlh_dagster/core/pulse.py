"""When the loop counts as alive: a good tick, and for how long one is enough."""

from zlh_dagster.core.judge import Tick
from zlh_dagster.core.snapshot import TICK_SECONDS, Outcome

GOOD_SECONDS = 3 * TICK_SECONDS
"""For so long one good tick is enough: a single late or failed one is no alarm."""


def why_not_good(tick: Tick) -> str | None:
    """Why a tick is not good, if so.

    It is good when the platform's rows were read and, where anything else is configured, at least
    one other source too: one provider that is away has an incident of its own, and says nothing of
    the loop.
    """
    if not tick.payloads.observed:
        return f"the platform's rows were not read: {tick.payloads.reason}"
    others = [s for s in tick.sources if s is not tick.payloads and s.outcome is not Outcome.OFF]
    if others and not any(snapshot.observed for snapshot in others):
        return "no source but the platform's rows was read"
    return None
