"""The agents: one small HTTP service in each container, asked all at once within a deadline."""

import asyncio
from collections import deque
from collections.abc import Collection, Iterable, Sequence

import pandas as pd

from zlh_dagster.core.fleet import Answer, agents_frame
from zlh_dagster.resources.agent_http import (
    Network,
    NotHttp,
    allowed_address,
    exchange,
    state_in,
    why,
)
from zlh_dagster.resources.agent_round import Question, Round, Said
from zlh_dagster.resources.http import (
    Rejected,
    Unreachable,
    check_status,
)

TIMEOUT = 3.0
"""Seconds for one question to one agent, from connecting to the end of its answer."""


def probe(
    rows: Iterable[tuple[int, str | None]],
    *,
    port: int,
    networks: Sequence[Network],
    with_state: Collection[int],
    connections: int = 200,
    timeout: float = TIMEOUT,
    deadline: float = 20.0,
) -> pd.DataFrame:
    """Asks every agent whether it is healthy; a silent one is asked once more at the end.

    Args:
        rows: VMID and address of each container.
        port: Where agents listen.
        networks: In which agents may be called.
        with_state: VMIDs whose agents are also asked for the state of their server.
        connections: How many may be open at once.
        timeout: Seconds for one question, its whole answer included.
        deadline: Seconds after which nothing more is waited for; what was not asked by then, or
            not for its whole time, is ``unknown``.

    Returns:
        Frame with ``AGENT_COLUMNS``, in the order of the rows.
    """
    said: list[Said] = []
    left: deque[Question] = deque()
    asked_for = frozenset(with_state)
    given = list(rows)
    for place, (vmid, ip) in enumerate(given):
        said.append(Said(Answer.UNKNOWN, detail=f"not asked within {deadline:g} s"))
        try:
            left.append(Question(place, allowed_address(ip, networks), vmid in asked_for))
        except Rejected as error:
            said[place] = Said(Answer.REFUSED, detail=str(error))
    asyncio.run(Round(port, timeout, left, said).run(connections, deadline))
    return agents_frame(
        {
            "vmid": vmid,
            "address": ip,
            "answer": one.answer.value,
            "state": one.state,
            "detail": one.detail,
        }
        for (vmid, ip), one in zip(given, said, strict=True)
    )


def read_state(
    address: str, port: int, networks: Sequence[Network], timeout: float = TIMEOUT
) -> str:
    """What an agent says its server does: ``running``, or another word of its own.

    Raises:
        EdgeError: If it may not be called, does not answer, or says no state.
    """
    where, status, body = _call("GET", "/status", address, port, networks, timeout)
    if status != 200:
        raise Rejected(f"{where}: HTTP {status} to the question for its state")
    return state_in(where, body)


def stop_workload(
    address: str, port: int, networks: Sequence[Network], timeout: float = TIMEOUT
) -> None:
    """Asks an agent, once, to stop its server; a fresh read tells whether it did.

    Raises:
        EdgeError: If it may not be called, does not answer, or refuses.
    """
    where, status, _ = _call("POST", "/stop", address, port, networks, timeout)
    if not 200 <= status < 300:
        raise Rejected(f"{where}: HTTP {status} to the request to stop")


def _call(
    method: str, path: str, ip: str, port: int, networks: Sequence[Network], timeout: float
) -> tuple[str, int, bytes]:
    address = allowed_address(ip, networks)
    where = f"agent {address}"
    try:
        asked = asyncio.wait_for(exchange(method, address, port, path), timeout)
        status, body = asyncio.run(asked)
    except asyncio.TimeoutError:
        raise Unreachable(f"{where}: no whole answer within {timeout:g} s") from None
    except NotHttp:
        raise Unreachable(f"{where}: answers, but not in HTTP") from None
    except OSError as error:
        raise Unreachable(f"{where}: {why(error)}") from None
    check_status(where, status)
    return where, status, body
