"""Signs of life for systemd."""

import contextlib
import socket

import pytest

from zlh_dagster.resources.watchdog import keep_awake


@pytest.fixture
def systemd(tmp_path, monkeypatch):
    """What systemd listens on."""
    path = str(tmp_path / "notify")
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as listening:
        listening.bind(path)
        listening.settimeout(0.5)
        monkeypatch.setenv("NOTIFY_SOCKET", path)
        yield listening


def test_a_program_gives_a_sign_of_life_for_as_long_as_it_works(systemd):
    works = True
    keep_awake(lambda: works, interval=0.01)
    assert systemd.recv(100) == b"WATCHDOG=1"
    works = False
    with contextlib.suppress(TimeoutError):
        for _ in range(1000):
            systemd.recv(100)
    with pytest.raises(TimeoutError):
        systemd.recv(100)
    works = True
    assert systemd.recv(100) == b"WATCHDOG=1"


def test_without_systemd_nothing_is_asked(monkeypatch):
    monkeypatch.delenv("NOTIFY_SOCKET", raising=False)
    asked = []
    keep_awake(lambda: asked.append(1) or True, interval=0.0)
    assert asked == []


def test_a_socket_that_is_gone_hurts_nobody(systemd, tmp_path):
    (tmp_path / "notify").unlink()
    asked = []
    keep_awake(lambda: asked.append(1) or True, interval=0.01)
    while len(asked) < 3:
        pass
