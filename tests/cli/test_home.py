"""What `zlh up` says before its first part starts: of what is missing and of what is silent."""

import pytest

from tests.stack.stack import free_port
from zlh_dagster.cli.home import prepare
from zlh_dagster.resources.settings import Settings


def told(home, **values):
    said = []
    settings = Settings(_env_file=None, dagster_home=home, **values)
    prepare(settings, {"python_module": "nothing"}, said.append)
    assert (home / "workspace.yaml").is_file()
    assert (home / "history").is_dir(), "Dagster's storage was made"
    return said


def test_without_settings_it_has_nothing_to_say(tmp_path):
    assert told(tmp_path / "home") == []


@pytest.mark.parametrize("url", ["redis://a..b:1", "redis://127.0.0.1:1?foo=1"])
def test_a_redis_url_that_the_client_does_not_take_keeps_nothing_from_starting(tmp_path, url):
    [said] = told(tmp_path / "home", zlh_redis_url=url)
    assert said.startswith("ZLH_REDIS_URL: no Redis answers (its URL cannot be used)")


def test_a_misspelt_setting_is_named(tmp_path, monkeypatch):
    monkeypatch.setenv("ZLH_REPAIRMODE", "live")
    file = tmp_path / ".env"
    file.write_text("ZLH_ANOTHER_THING=9\n")
    monkeypatch.setitem(Settings.model_config, "env_file", str(file))
    assert told(tmp_path / "home") == [
        "ZLH_ANOTHER_THING is no setting and changes nothing",
        "ZLH_REPAIRMODE is no setting and changes nothing; ZLH_REPAIR_MODE is one",
    ]


def test_what_is_silent_is_told_and_keeps_nothing_from_starting(tmp_path):
    database, redis = told(
        tmp_path / "home",
        zlh_database_url=f"sqlite:///{tmp_path / 'nowhere.db'}",
        zlh_redis_url=f"redis://:a-secret@127.0.0.1:{free_port()}/0",
    )
    assert database.endswith("nothing is repaired until it answers")
    assert redis == (
        "ZLH_REDIS_URL: no Redis answers (connection refused); nothing is repaired until it does"
    )
