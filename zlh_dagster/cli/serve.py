"""`zlh serve`: one part of the controller, for a supervisor that keeps each of them running.

Below systemd, compose or Kubernetes there is already somebody who restarts what ends. Each part is
then a process of its own, on one machine or several; `zlh up` is all of them with a supervisor.
"""

import fcntl
import os
import sys
from collections.abc import Callable
from typing import NoReturn

from zlh_dagster.cli.home import (
    LOCATION,
    LOG_LEVEL,
    MODULE,
    claim,
    environment_of,
    prepare,
    web_command,
    workspace_of,
)
from zlh_dagster.cli.parts import Part
from zlh_dagster.resources.settings import Settings, SettingsError


def run(settings: Settings, part: Part, *, say: Callable[[str], None]) -> NoReturn:
    """Becomes one part of the controller; a SIGTERM ends it.

    Args:
        settings: The settings, already checked.
        part: Which one.
        say: Where one-line messages go.

    Raises:
        SettingsError: If ``ZLH_REDIS_URL`` is not set, for the embedded Redis is `zlh up`'s.
        AlreadyUp: If the same part, or `zlh up`, runs on this `$DAGSTER_HOME`.
        NotStarted: If something that it needs is not there.
    """
    if settings.zlh_redis_url is None:
        raise SettingsError("ZLH_REDIS_URL: is needed by `zlh serve`; `zlh up` brings its own")
    # The locks go on into the program that takes this process's place.
    locks = [claim(settings.home, fcntl.LOCK_SH), claim(settings.home, fcntl.LOCK_EX, part.value)]
    for lock in locks:
        os.set_inheritable(lock.fileno(), True)
    prepare(settings, {"python_module": {"module_name": MODULE, "location_name": LOCATION}}, say)
    say(f"{part.value} starts")
    # Before the directory changes: a path that is not absolute is one of this directory.
    program, environment = command(settings, part), environment_of(settings)
    os.chdir(settings.home)
    os.execve(sys.executable, program, environment)  # noqa: S606


def command(settings: Settings, part: Part) -> list[str]:
    """The program of a part."""
    if part is Part.WEB:
        return web_command(settings)
    workspace = str(workspace_of(settings))
    arguments = {
        Part.WORKER: ["zlh_dagster.runs.worker"],
        Part.DAEMON: ["dagster._daemon", "run", "--workspace", workspace, "--log-level", LOG_LEVEL],
    }
    return [sys.executable, "-m", *arguments[part]]
