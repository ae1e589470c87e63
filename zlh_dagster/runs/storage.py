"""Where Dagster keeps its runs: SQLite below `$DAGSTER_HOME`, or a PostgreSQL that machines share.

Dagster loads this class from dagster.yaml, where nothing but its name stands. The settings decide
at run time, so that no address and no password is in that file.
"""

from collections.abc import Mapping
from typing import Any

from dagster._core.storage.base_storage import DagsterStorage
from dagster._serdes import ConfigurableClass, ConfigurableClassData
from dagster_postgres.storage import DagsterPostgresStorage

from zlh_dagster.resources.private import keep_private
from zlh_dagster.resources.settings import Settings, load_settings
from zlh_dagster.runs.sqlite import PooledSqliteStorage

STATEMENT_MILLISECONDS = 30_000
_RECYCLE_SECONDS = 300
_MORE_CONNECTIONS = 4


class ChosenStorage(DagsterStorage, ConfigurableClass):
    """Never built itself: stands for the storage that the settings ask for."""

    @classmethod
    def config_type(cls) -> dict[str, Any]:
        return {}

    @classmethod
    def from_config_value(  # type: ignore[override]
        cls, inst_data: ConfigurableClassData, config_value: Mapping[str, Any]
    ) -> DagsterStorage:
        """The storage of this deployment.

        Raises:
            SettingsError: If a setting is missing or malformed.
            NotPrivate: If ``$DAGSTER_HOME`` is in another user's hands.
        """
        settings = load_settings()
        keep_private(settings.home)
        return open_storage(settings, inst_data)


def open_storage(
    settings: Settings, inst_data: ConfigurableClassData | None = None
) -> DagsterStorage:
    """Opens the storage; tables that are not there yet are made.

    Args:
        settings: Whether ``ZLH_DAGSTER_DATABASE_URL`` is set decides.
        inst_data: Dagster's note of where the class was named.
    """
    url = settings.dagster_database_url
    if url is None:
        return PooledSqliteStorage(str(settings.home), inst_data)
    storage = DagsterPostgresStorage(url, inst_data=inst_data)
    # Dagster opens a connection for each statement unless it is told that somebody waits; a run's
    # sixty events need sixty of them then.
    for part in (storage.run_storage, storage.event_log_storage, storage.schedule_storage):
        part.optimize_for_webserver(STATEMENT_MILLISECONDS, _RECYCLE_SECONDS, _MORE_CONNECTIONS)
    return storage
