"""Prepares Dagster's storage in one process at a time, before several work on it.

Two processes that create Dagster's SQLite files at the same moment can corrupt them. What is ahead
of a clock that was set back is forgotten, so that schedules and sensors go on.
"""

import time

from dagster import DagsterInstance

from zlh_dagster.resources.settings import load_settings
from zlh_dagster.runs.alive import locks_of
from zlh_dagster.runs.clock import forget_the_future

_LOCK = "prepare"
_PATIENCE = 60.0


def main() -> None:
    """Creates or migrates Dagster's own storage."""
    alone = locks_of(load_settings()).hold(_LOCK, patience=_PATIENCE)
    with alone, DagsterInstance.get() as instance:
        instance.upgrade()
        instance.get_runs(limit=1)
        instance.all_instigator_state()
        instance.get_asset_keys(limit=1)
        forget_the_future(instance, now=time.time())


if __name__ == "__main__":
    main()
