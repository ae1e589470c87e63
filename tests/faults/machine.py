"""The controllers' machine itself: its clock, which can be set, and a disk that can be full."""

import contextlib
import errno
import os
import shutil
import struct
import subprocess
import tempfile
from datetime import datetime, timedelta
from pathlib import Path

_SOURCE = Path(__file__).with_name("clock.c")
_CHUNK = 1024 * 1024


class Clock:
    """The date of the controllers and their Redis; the pretend edge keeps its own.

    Only the date jumps: what counts seconds goes on, as on a machine whose date is set. Debian's
    ``faketime`` 0.9.10 cannot do that: ``time.sleep`` fails in Python 3.11 where it leaves the
    monotonic clock alone. So a few lines of C are compiled; without a compiler the date goes right.
    """

    available = shutil.which("cc") is not None

    def __init__(self, directory: Path) -> None:
        self._file, self._library = directory / "clock", directory / "clock.so"
        self.offsets = [timedelta()]
        self._file.write_bytes(bytes(8))
        if self.available:
            command = ["cc", "-shared", "-fPIC", "-O2", "-o", str(self._library), str(_SOURCE)]
            subprocess.run([*command, "-ldl"], check=True, capture_output=True)

    def environment(self) -> dict[str, str]:
        if not self.available:
            return {}
        return {"LD_PRELOAD": str(self._library), "CLOCK_OFFSET_FILE": str(self._file)}

    def jump(self, span: timedelta) -> None:
        """Sets it forward, or back by a negative span."""
        self.offsets.append(self.offsets[-1] + span)
        with self._file.open("r+b") as file:
            file.write(struct.pack("q", int(self.offsets[-1].total_seconds())))

    def settle(self) -> None:
        """Forgets where it was before."""
        del self.offsets[:-1]

    def real(self, moment: datetime, *, since: datetime, until: datetime) -> datetime:
        """The true time of a moment that the controllers wrote between two true times."""
        for offset in reversed(self.offsets):
            if since <= moment - offset <= until:
                return moment - offset
        return moment - self.offsets[-1]


class Disk:
    """A small disk of its own below a directory, where this process may mount one.

    Args:
        directory: Where it is mounted; made if it is not there.
        megabytes: Its size.
    """

    def __init__(self, directory: Path, *, megabytes: int = 256) -> None:
        directory.mkdir(mode=0o700, exist_ok=True)
        self._directory = directory
        options = f"size={megabytes}m,mode=0700"
        command = ["mount", "-t", "tmpfs", "-o", options, "zlh-faults", str(directory)]
        done = subprocess.run(command, check=False, capture_output=True)
        self.mounted = done.returncode == 0

    @property
    def _ballast(self) -> Path:
        return self._directory / "ballast"

    def fill(self) -> None:
        """Writes until nothing more fits."""
        with self._ballast.open("wb", buffering=0) as file:
            size = _CHUNK
            while size:
                try:
                    file.write(bytes(size))
                except OSError as error:
                    if error.errno != errno.ENOSPC:
                        raise
                    size //= 2

    def free(self) -> None:
        """Takes away what filled it."""
        self._ballast.unlink(missing_ok=True)

    def close(self) -> None:
        if self.mounted:
            subprocess.run(["umount", "--lazy", str(self._directory)], check=False)
            with contextlib.suppress(OSError):
                os.rmdir(self._directory)
            self.mounted = False


def may_mount() -> bool:
    """Whether a disk can be mounted here."""
    with tempfile.TemporaryDirectory(prefix="zlh-") as directory:
        disk = Disk(Path(directory) / "disk", megabytes=1)
        mounted = disk.mounted
        disk.close()
    return mounted
