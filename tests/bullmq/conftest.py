import contextlib
import json
import re
import shutil
import subprocess
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

HERE = Path(__file__).parent
_INSTALL_SECONDS = 180
_NO_NETWORK = re.compile(r"\b(ENOTFOUND|EAI_AGAIN|ECONNREFUSED|ECONNRESET|ETIMEDOUT|ENOTCACHED)\b")


@dataclass
class Process:
    """One process that has BullMQ open; killing it is what a crash of a worker looks like."""

    popen: "subprocess.Popen[str]"

    def __call__(self, action: str, queue: str, job: str | None = None, **values: Any) -> Any:
        line = json.dumps({"action": action, "queue": queue, "job": job, **values})
        self.popen.stdin.write(line + "\n")
        self.popen.stdin.flush()
        answer = json.loads(self.popen.stdout.readline())
        assert "error" not in answer, answer["error"]
        return answer["value"]

    def kill(self) -> None:
        self.popen.kill()
        self.popen.wait(10)


Start = Callable[[], Process]


@pytest.fixture(scope="session")
def installed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with BullMQ in it, as its lock pins it."""
    for program in ("node", "npm"):
        if shutil.which(program) is None:
            pytest.skip(f"{program} is not installed, so there is no BullMQ to compare with")
    folder = tmp_path_factory.mktemp("bullmq")
    for name in ("package.json", "package-lock.json", "worker.mjs"):
        shutil.copy(HERE / name, folder)
    done = subprocess.run(
        ["npm", "ci", "--ignore-scripts", "--no-audit", "--no-fund", "--loglevel=error"],
        cwd=folder,
        capture_output=True,
        text=True,
        timeout=_INSTALL_SECONDS,
    )
    if done.returncode and (failure := _NO_NETWORK.search(done.stderr)):
        pytest.skip(f"npm reaches no registry here ({failure[0]}), so there is no BullMQ")
    assert done.returncode == 0, done.stderr[-2000:]
    return folder


@pytest.fixture(params=["5", "6"], ids=["bullmq5", "bullmq6"])
def start(request, installed: Path, redis_url: str) -> Iterator[Start]:
    """Starts processes of one major version of BullMQ on an empty Redis."""
    with contextlib.ExitStack() as stack:

        def make() -> Process:
            popen = subprocess.Popen(
                [
                    *("node", "worker.mjs", request.param),
                    *(redis_url.removeprefix("unix://"), "bull"),
                ],
                cwd=installed,
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                text=True,
            )
            made = Process(stack.enter_context(popen))
            stack.callback(made.kill)
            return made

        yield make


@pytest.fixture
def bull(start: Start) -> Process:
    """A process that adds jobs and tells what BullMQ says of them; it works on none."""
    return start()
