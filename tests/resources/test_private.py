"""Directories that are this user's alone."""

import logging
import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from zlh_dagster.resources import private
from zlh_dagster.resources.private import NotPrivate, keep_private, private_directory

OTHER = 65534


@pytest.fixture(autouse=True)
def usual_umask() -> Iterator[None]:
    before = os.umask(0o022)
    yield
    os.umask(before)


def modes(*paths: Path) -> list[int]:
    return [path.stat().st_mode & 0o777 for path in paths]


@pytest.fixture
def home(tmp_path: Path) -> Path:
    """Open to all, with a file and a link out of it."""
    home = tmp_path / "home"
    (home / "history").mkdir(parents=True)
    (home / "history" / "runs.db").write_text("")
    (tmp_path / "outside").write_text("")
    (home / "link").symlink_to(tmp_path / "outside")
    (tmp_path / "outside").chmod(0o644)
    (home / "history" / "runs.db").chmod(0o644)
    (home / "history").chmod(0o755)
    home.chmod(0o755)
    return home


def test_an_open_home_is_closed_with_all_that_is_in_it(home, caplog):
    with caplog.at_level(logging.WARNING):
        keep_private(home)
    assert modes(home, home / "history", home / "history" / "runs.db") == [0o700, 0o700, 0o600]
    assert modes(home.parent / "outside") == [0o644], "what a link leads to is elsewhere"
    assert f"{home} was open to other users" in caplog.text
    caplog.clear()
    keep_private(home)
    assert caplog.text == "", "said once"


def test_a_home_that_is_not_there_or_closed_is_left_alone(home, tmp_path, caplog):
    home.chmod(0o700)
    keep_private(home)
    keep_private(tmp_path / "none")
    assert modes(home / "history") == [0o755]
    assert caplog.text == ""
    assert not (tmp_path / "none").exists()


def test_an_open_home_of_another_user_is_refused(home, monkeypatch):
    owner = os.stat(home).st_uid
    monkeypatch.setattr(private.os, "geteuid", lambda: OTHER)
    monkeypatch.setattr(private, "_ROOT", OTHER - 1)
    with pytest.raises(NotPrivate, match=f"belongs to user {owner}.*set another DAGSTER_HOME"):
        keep_private(home)
    assert modes(home) == [0o755]


def test_an_open_home_of_root_is_a_volume_and_is_told(home, monkeypatch, caplog):
    """Kubernetes makes volumes so; whoever is root could do everything anyway."""
    monkeypatch.setattr(private.os, "geteuid", lambda: OTHER)
    monkeypatch.setattr(private, "_ROOT", os.stat(home).st_uid)
    keep_private(home)
    assert modes(home) == [0o755]
    assert "is open to other users" in caplog.text


def test_what_is_written_from_now_on_is_the_owners(tmp_path):
    keep_private(tmp_path / "none")
    (tmp_path / "file").write_text("")
    assert modes(tmp_path / "file") == [0o600]


def test_a_private_directory_is_made_and_found_again(tmp_path):
    made = private_directory(tmp_path / "zlh-0-1")
    assert private_directory(made) == made
    assert modes(made) == [0o700]


@pytest.mark.parametrize("kind", ["open", "link", "file", "of another"])
def test_a_directory_that_somebody_else_may_have_made_is_refused(tmp_path, monkeypatch, kind):
    path = tmp_path / "zlh-0-1"
    if kind == "file":
        path.write_text("")
    elif kind == "link":
        (tmp_path / "theirs").mkdir(mode=0o700)
        path.symlink_to(tmp_path / "theirs")
    else:
        path.mkdir(mode=0o700)
    if kind == "open":
        path.chmod(0o777)
    if kind == "of another":
        monkeypatch.setattr(private.os, "geteuid", lambda: OTHER)
    with pytest.raises(NotPrivate, match=f"{path} .*remove it"):
        private_directory(path)
