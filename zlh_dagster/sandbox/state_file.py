"""Tells other programs where the sandbox is, in a file."""

import json
import os
import secrets
from pathlib import Path

from zlh_dagster.sandbox.server import Sandbox


def write_state_file(path: Path, sandbox: Sandbox) -> None:
    """Write URL and settings of a sandbox in one piece, readable by its owner alone."""
    state = {"url": sandbox.url, "environment": sandbox.environment()}
    path.parent.mkdir(parents=True, exist_ok=True)
    draft = path.with_name(f".{path.name}.{secrets.token_hex(8)}")
    descriptor = os.open(draft, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    try:
        with os.fdopen(descriptor, "w", encoding="utf-8") as file:
            json.dump(state, file, indent=2)
            file.write("\n")
            file.flush()
            os.fsync(file.fileno())
        os.replace(draft, path)
    except BaseException:
        draft.unlink(missing_ok=True)
        raise
