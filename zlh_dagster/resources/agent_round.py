"""One round of questions to all agents, side by side: each bounded in time, all by a deadline."""

import asyncio
import errno
from collections import deque
from dataclasses import dataclass, replace

from zlh_dagster.core.fleet import Answer
from zlh_dagster.resources.agent_http import NotHttp, exchange, state_in, why
from zlh_dagster.resources.http import EdgeError

# These tell of this machine, not of the agent: too many files, no ports left, no route, forbidden.
_OUR_OWN = frozenset(
    {
        errno.EACCES,
        errno.EADDRNOTAVAIL,
        errno.EAFNOSUPPORT,
        errno.EMFILE,
        errno.ENETDOWN,
        errno.ENETUNREACH,
        errno.ENFILE,
        errno.ENOBUFS,
        errno.ENOMEM,
        errno.EPERM,
    }
)


@dataclass(frozen=True, slots=True)
class Said:
    """What came of asking one agent."""

    answer: Answer
    state: str | None = None
    detail: str | None = None


@dataclass(frozen=True, slots=True)
class Question:
    """One agent that is still to be asked; ``place`` is that of its answer."""

    place: int
    address: str
    with_state: bool
    again: bool = False


class _TooLate(Exception):
    """The deadline left too little time, or none."""


class Round:
    """One question to each agent, and a second, half as long, to those who kept silent.

    Args:
        port: Where agents listen.
        timeout: Seconds for one question, its whole answer included.
        left: Who is to be asked; empty in the end, unless the deadline came.
        said: The answers by place, filled in.
    """

    def __init__(self, port: int, timeout: float, left: deque[Question], said: list[Said]) -> None:
        self._port, self._timeout, self._left, self._said = port, timeout, left, said
        self._ends = 0.0

    async def run(self, connections: int, deadline: float) -> None:
        """Asks, with so many connections at the most, for so many seconds at the most."""
        self._ends = asyncio.get_running_loop().time() + deadline
        await asyncio.gather(*(self._work() for _ in range(min(connections, len(self._left)))))

    async def _work(self) -> None:
        while self._left:
            question = self._left.popleft()
            said = await self._ask(question)
            if question.again and said.answer in (Answer.SILENT, Answer.UNKNOWN):
                continue  # the first silence was given its whole time, and says how long that was
            self._said[question.place] = said
            if said.answer is Answer.SILENT and not question.again:
                # Behind all others: whoever was busy for a moment has had one.
                self._left.append(replace(question, again=True))

    async def _ask(self, question: Question) -> Said:
        timeout = self._timeout / 2 if question.again else self._timeout
        try:
            status, _ = await self._get(question.address, "/health", timeout)
        except _TooLate:
            return Said(Answer.UNKNOWN, detail="the deadline came before its answer")
        except asyncio.TimeoutError:
            return Said(Answer.SILENT, detail=f"no whole answer within {timeout:g} s")
        except NotHttp:
            return Said(Answer.UNHEALTHY, detail="answers, but not in HTTP")
        except OSError as error:
            kind = Answer.UNKNOWN if error.errno in _OUR_OWN else Answer.SILENT
            return Said(kind, detail=why(error))
        state = await self._state(question.address) if question.with_state else None
        if status == 200:
            return Said(Answer.HEALTHY, state)
        return Said(Answer.UNHEALTHY, state, f"HTTP {status}")

    async def _state(self, address: str) -> str | None:
        try:
            status, body = await self._get(address, "/status", self._timeout)
            return state_in("agent", body) if status == 200 else None
        except (EdgeError, NotHttp, OSError, asyncio.TimeoutError, _TooLate):
            return None

    async def _get(self, address: str, path: str, timeout: float) -> tuple[int, bytes]:
        left = self._ends - asyncio.get_running_loop().time()
        if left <= 0:
            raise _TooLate
        try:
            asked = exchange("GET", address, self._port, path)
            return await asyncio.wait_for(asked, min(left, timeout))
        except asyncio.TimeoutError:
            if left < timeout:
                raise _TooLate from None
            raise
