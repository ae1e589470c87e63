"""Prepares `$DAGSTER_HOME` in one process, before several start on it.

Two processes that create Dagster's SQLite files at the same moment can corrupt them.
"""

from dagster import DagsterInstance


def main() -> None:
    """Creates or migrates Dagster's own storage."""
    with DagsterInstance.get() as instance:
        instance.upgrade()
        instance.get_runs(limit=1)
        instance.all_instigator_state()
        instance.get_asset_keys(limit=1)


if __name__ == "__main__":
    main()
