"""Installs a lock file with pip and shows how far it is; needs only the standard library."""

import re
import subprocess
import sys
from pathlib import Path

_PINNED = re.compile(r"^[A-Za-z0-9]", re.MULTILINE)


def main() -> int:
    """Installs the lock file named on the command line; prints all of pip's output on failure."""
    lock = Path(sys.argv[1])
    total = len(_PINNED.findall(lock.read_text()))
    command = [sys.executable, "-m", "pip", "install", "--disable-pip-version-check"]
    command += ["--progress-bar", "off", "--require-hashes", "-r", str(lock)]
    lines: list[str] = []
    seen = 0
    with subprocess.Popen(
        command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
    ) as pip:
        assert pip.stdout is not None
        for line in pip.stdout:
            lines.append(line)
            if line.startswith(("Collecting ", "Requirement already satisfied", "Ignoring ")):
                seen += 1
                _show(f"{lock}: {min(seen, total)} of {total}")
            elif line.startswith("Installing collected"):
                _show(f"{lock}: unpacking")
    if pip.returncode:
        sys.stderr.write("".join(lines))
    _show(f"{lock}: {'failed' if pip.returncode else 'installed'}", last=True)
    return pip.returncode


def _show(text: str, *, last: bool = False) -> None:
    if sys.stdout.isatty():
        sys.stdout.write(f"\r\x1b[K  {text}" + ("\n" if last else ""))
    elif last:
        sys.stdout.write(f"  {text}\n")
    sys.stdout.flush()


if __name__ == "__main__":
    sys.exit(main())
