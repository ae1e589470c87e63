"""Which kind of lock tells who is alive: files on one machine, the database on several."""

from zlh_dagster.resources.settings import Settings
from zlh_dagster.runs.locks import Locks, RunLocks
from zlh_dagster.runs.shared_locks import SharedLocks


def locks_of(settings: Settings) -> RunLocks:
    """The locks of this deployment."""
    url = settings.dagster_database_url
    if url is None:
        return Locks(settings.home)
    return SharedLocks(url, settings.zlh_deployment or "")
