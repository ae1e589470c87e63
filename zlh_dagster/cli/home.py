"""The state directory of one deployment on one machine, and what starts in it."""

import json
import os
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import IO, Any

from sqlalchemy.exc import SQLAlchemyError

import zlh_dagster
from zlh_dagster.cli.children import NotStarted, lock_of
from zlh_dagster.resources.database import connect, explain
from zlh_dagster.resources.redis import silence
from zlh_dagster.resources.settings import Settings, slips
from zlh_dagster.runs.locks import PATIENCE, locked
from zlh_dagster.schema.upgrade import current, head, upgrade

LOCATION = "zlh"
MODULE = "zlh_dagster.definitions"
LOG_LEVEL = "warning"


class AlreadyUp(Exception):
    """Something works on the same `$DAGSTER_HOME` beside which this must not."""


def claim(home: Path, kind: int, name: str = "zlh") -> IO[str]:
    """Makes the directory and claims it, as long as the returned file is open.

    Args:
        home: State directory.
        kind: ``fcntl.LOCK_EX`` to be alone there, ``fcntl.LOCK_SH`` beside others who say so too.
        name: What is claimed: the directory, or one part of the controller.

    Raises:
        AlreadyUp: If somebody else has claimed it.
    """
    home.mkdir(mode=0o700, parents=True, exist_ok=True)
    lock = lock_of(home, name).open("w")
    if not _taken(lock, kind):
        lock.close()
        what = "`zlh up` or `zlh serve`" if name == "zlh" else f"`zlh serve {name}`"
        raise AlreadyUp(
            f"another {what} runs on {home}: stop it, or set another DAGSTER_HOME"
        ) from None
    return lock


def _taken(lock: IO[str], kind: int) -> bool:
    """Whether it could be locked; `zlh health` may hold it for a moment."""
    give_up = time.monotonic() + PATIENCE
    while not locked(lock, kind):
        if time.monotonic() > give_up:
            return False
        time.sleep(0.05)
    return True


def prepare_home(home: Path) -> str | None:
    """Makes the directory and gives it Dagster's configuration, unless it has one of its own.

    Returns:
        What to tell the operator, where there is something.
    """
    home.mkdir(mode=0o700, parents=True, exist_ok=True)
    shipped = Path(zlh_dagster.__file__).parent.parent / "dagster.yaml"
    mine = home / "dagster.yaml"
    if not mine.exists():
        _put(mine, shipped.read_bytes())
    elif shipped.exists() and mine.read_bytes() != shipped.read_bytes():
        return f"{mine} differs from the one that comes with this version; yours is used"
    return None


def prepare(settings: Settings, code: dict[str, Any], say: Callable[[str], None]) -> None:
    """Everything that must be there before the first part starts.

    Args:
        settings: The settings.
        code: Where Dagster finds the code, as its workspace file says it.
        say: Where one-line messages go.

    Raises:
        NotStarted: If something is missing.
    """
    for name, meant in slips().items():
        say(f"{name} is no setting and changes nothing" + (f"; {meant} is one" if meant else ""))
    home = settings.home
    told = prepare_home(home)
    if told is not None:
        say(told)
    _put(workspace_of(settings), json.dumps({"load_from": [code]}).encode())
    _check_ledger(settings, say)
    _check_redis(settings, say)
    prepare_storage(settings)


def prepare_storage(settings: Settings) -> None:
    """Makes or migrates Dagster's storage, and has it forget what is ahead of the clock.

    Raises:
        NotStarted: If that failed.
    """
    done = subprocess.run(
        [sys.executable, "-m", "zlh_dagster.cli.prepare"],
        env=environment_of(settings),
        cwd=settings.home,
        check=False,
        capture_output=True,
        text=True,
    )
    if done.returncode:
        last = (done.stderr.strip().splitlines() or ["no message"])[-1]
        raise NotStarted(f"{settings.home} could not be prepared for Dagster: {last}")


def _put(path: Path, content: bytes) -> None:
    """Writes a file whole: other parts that start at the same moment read it."""
    unfinished = path.with_name(f".{path.name}.{os.getpid()}")
    unfinished.write_bytes(content)
    unfinished.replace(path)


def workspace_of(settings: Settings) -> Path:
    """The file that tells Dagster's processes where the code is."""
    return settings.home / "workspace.yaml"


def web_command(settings: Settings) -> list[str]:
    """The program that serves the web UI."""
    return [
        *(sys.executable, "-m", "zlh_dagster.web.dagster_webserver"),
        *("--workspace", str(workspace_of(settings))),
        *("--host", settings.zlh_web_host, "--port", str(settings.zlh_web_port)),
        *("--dagster-log-level", LOG_LEVEL),
    ]


def environment_of(settings: Settings) -> dict[str, str]:
    """The environment of all parts."""
    # Celery lets its own variables overrule the settings; another program's are not meant.
    given = {k: v for k, v in os.environ.items() if not k.startswith("CELERY_")}
    return {**given, **settings.environment()}


def _check_redis(settings: Settings, say: Callable[[str], None]) -> None:
    """An embedded one is not there yet; another should be."""
    silent = None if settings.zlh_redis_url is None else silence(settings.redis_url)
    if silent is not None:
        say(f"ZLH_REDIS_URL: no Redis answers ({silent}); nothing is repaired until it does")


def _check_ledger(settings: Settings, say: Callable[[str], None]) -> None:
    """The ledger's table must be there; our own SQLite gets it, a platform's database is asked."""
    own = settings.zlh_database_url is None
    engine = connect(settings.database_url, create=own)
    try:
        if own:
            upgrade(engine)
        elif current(engine) != head():
            raise NotStarted("the ledger's table is missing or old: run `zlh db upgrade` first")
    except SQLAlchemyError as error:
        say(f"{explain(error)}; nothing is repaired until it answers")
    finally:
        engine.dispose()
