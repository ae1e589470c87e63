"""Files and directories that are this user's alone."""

import contextlib
import logging
import os
import stat
from collections.abc import Iterator
from pathlib import Path

OWNER_ONLY = 0o077
"""As a umask: what is made is for its owner alone."""

_ROOT = 0
_log = logging.getLogger(__name__)


class NotPrivate(Exception):
    """A directory is in another user's hands; the message says what to do."""


def keep_private(home: Path) -> None:
    """Makes what this process writes its owner's alone, and closes a home that is open to others.

    Args:
        home: State directory; it need not be there yet.

    Raises:
        NotPrivate: If another user made it and others may look into it.
    """
    os.umask(OWNER_ONLY)
    try:
        found = home.stat()
    except OSError:
        return
    if not found.st_mode & OWNER_ONLY:
        return
    if found.st_uid == os.geteuid():
        for path in (home, *_below(home)):
            _close(path)
        _log.warning("%s was open to other users; it is now open to its owner only", home)
    elif found.st_uid == _ROOT:
        # A volume of Kubernetes is made so, and cannot be closed by its user.
        _log.warning("%s belongs to root and is open to other users", home)
    else:
        raise NotPrivate(
            f"{home} belongs to user {found.st_uid} and is open to others:"
            " close it (chmod -R go= as that user), or set another DAGSTER_HOME"
        )


def private_directory(path: Path) -> Path:
    """A directory in a place where everybody may make one; made if it is not there.

    Raises:
        NotPrivate: If it is not surely this user's own.
    """
    with contextlib.suppress(FileExistsError):
        path.mkdir(mode=0o700)
    found = path.lstat()
    if not stat.S_ISDIR(found.st_mode):
        wrong = "is no directory"
    elif found.st_uid != os.geteuid():
        wrong = f"belongs to user {found.st_uid}"
    elif found.st_mode & OWNER_ONLY:
        wrong = "is open to other users"
    else:
        return path
    raise NotPrivate(
        f"{path} {wrong}; sockets are there because the path of DAGSTER_HOME is long:"
        " remove it, or set a shorter DAGSTER_HOME"
    )


def _below(directory: Path) -> Iterator[Path]:
    """All that is in it; what links lead to is not."""
    for folder, names, files in os.walk(directory):
        for name in (*names, *files):
            yield Path(folder, name)


def _close(path: Path) -> None:
    """Takes from others what they may, where the file is ours; it may vanish meanwhile."""
    with contextlib.suppress(OSError):
        found = path.lstat()
        if found.st_uid == os.geteuid() and not stat.S_ISLNK(found.st_mode):
            path.chmod(stat.S_IMODE(found.st_mode) & ~OWNER_ONLY)
