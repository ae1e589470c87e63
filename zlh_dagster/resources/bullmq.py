"""BullMQ's queues, read with ordinary Redis commands and never written.

Keys are ``{prefix}:{queue}:{part}``. A job is a hash; where it stands is told by the list or sorted
set that holds its identifier, and whether a worker has it by a lock that the worker renews. A
stalled job is active without that lock. BullMQ 5 keeps the waiting jobs of a paused queue in a list
of their own, BullMQ 6 leaves them where they are; both are read alike.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import redis

from zlh_dagster.core.fleet import QUEUED, JobState
from zlh_dagster.resources.http import Incomplete
from zlh_dagster.resources.redis import RedisUnavailable

CHUNK = 2_000
"""Jobs in one transaction; Redis serves nobody else meanwhile."""

_LISTS = {
    "wait": JobState.WAITING,
    "paused": JobState.WAITING,
    "active": JobState.ACTIVE,
}
_SETS = {
    "delayed": JobState.DELAYED,
    "prioritized": JobState.PRIORITIZED,
    "waiting-children": JobState.WAITING_CHILDREN,
    "completed": JobState.COMPLETED,
    "failed": JobState.FAILED,
}
_PLACES = (*_LISTS.values(), *_SETS.values())
_PER_JOB = 2 + len(_PLACES)
_UNDONE_SETS = tuple(name for name, state in _SETS.items() if state in QUEUED)
_KNOWN = 2
_PER_QUEUE = _KNOWN + len(_LISTS) + len(_UNDONE_SETS)

Job = tuple[str, str]
"""Queue and identifier; the identifier is data, whatever it looks like."""


@dataclass(frozen=True, slots=True)
class Queues:
    """What was read.

    Attributes:
        states: Where each job stands.
        queued: How many jobs each queue has that are not done.
    """

    states: Mapping[Job, JobState]
    queued: Mapping[str, int]


def read_jobs(
    client: "redis.Redis", *, prefix: str, jobs: Iterable[Job], queues: Iterable[str] = ()
) -> Queues:
    """Where each job stands, and how many there are.

    All of it is read in one transaction, so that no job is missed between two lists. Above
    :data:`CHUNK` jobs there are several: each job is still read at one moment, but not all at the
    same, and a queue has as many jobs as it had at the fullest of them.

    Args:
        client: Redis of the platform.
        prefix: BullMQ's key prefix.
        jobs: Queue and job identifier of each.
        queues: Queues to read whether or not a job of theirs is asked for.

    Raises:
        Incomplete: If a queue has neither of the keys that BullMQ keeps for it, so that the absence
            of a job means nothing, or a key is not what BullMQ makes of it.
        RedisUnavailable: If Redis does not answer.
    """
    asked = list(dict.fromkeys(jobs))
    names = list(dict.fromkeys((*queues, *(queue for queue, _ in asked))))
    states: dict[Job, JobState] = {}
    queued: dict[str, int] = dict.fromkeys(names, 0)
    for start in range(0, max(len(asked), min(len(names), 1)), CHUNK):
        read = _read(client, prefix, names, asked[start : start + CHUNK])
        states.update(read.states)
        queued = {name: max(count, read.queued[name]) for name, count in queued.items()}
    return Queues(states, queued)


def _read(client: "redis.Redis", prefix: str, queues: Sequence[str], jobs: Sequence[Job]) -> Queues:
    with client.pipeline(transaction=True) as pipe:
        for queue in queues:
            pipe.exists(f"{prefix}:{queue}:meta")
            pipe.exists(f"{prefix}:{queue}:id")
            for name in _LISTS:
                pipe.llen(f"{prefix}:{queue}:{name}")
            for name in _UNDONE_SETS:
                pipe.zcard(f"{prefix}:{queue}:{name}")
        for queue, job in jobs:
            base = f"{prefix}:{queue}"
            pipe.hlen(f"{base}:{job}")
            pipe.exists(f"{base}:{job}:lock")
            for name in _LISTS:
                pipe.lpos(f"{base}:{name}", job)
            for name in _SETS:
                pipe.zscore(f"{base}:{name}", job)
        try:
            answers = pipe.execute(raise_on_error=False)
        except redis.ResponseError as error:
            raise Incomplete(f"BullMQ: the queues cannot be read: {error!s:.160}") from None
        except redis.RedisError as error:
            raise RedisUnavailable(
                f"Redis cannot be reached ({type(error).__name__}): the queues were not read"
            ) from None
    known, found = answers[: _PER_QUEUE * len(queues)], answers[_PER_QUEUE * len(queues) :]
    queued = {}
    for place, queue in enumerate(queues):
        answer = known[_PER_QUEUE * place : _PER_QUEUE * (place + 1)]
        refused = next((part for part in answer if isinstance(part, Exception)), None)
        if refused is not None:
            raise Incomplete(f"BullMQ: queue {queue!r:.60} cannot be read: {_said(refused)}")
        if not any(answer[:_KNOWN]):
            raise Incomplete(
                f"BullMQ: Redis has no queue {queue!r:.60} under prefix {prefix!r:.60}, neither"
                " 'meta' nor 'id': ZLH_BULLMQ_PREFIX is wrong, or this Redis lost its data"
            )
        queued[queue] = sum(answer[_KNOWN:])
    states = {
        job: _state(job, found[_PER_JOB * place : _PER_JOB * (place + 1)])
        for place, job in enumerate(jobs)
    }
    return Queues(states, queued)


def _state(job: Job, answers: Sequence[Any]) -> JobState:
    refused = next((answer for answer in answers if isinstance(answer, Exception)), None)
    if refused is not None:
        # Also what a job is called that bears the name of one of BullMQ's own keys.
        raise Incomplete(
            f"BullMQ: job {job[1]!r:.60} of {job[0]!r:.60} cannot be read: {_said(refused)}"
        )
    fields, locked, *places = answers
    if not fields:
        return JobState.GONE
    for state, place in zip(_PLACES, places, strict=True):
        if place is None:
            continue
        if state is JobState.ACTIVE and not locked:
            return JobState.STALLED
        return state
    return JobState.UNLISTED


def _said(refused: Exception) -> str:
    return f"{str(refused).rpartition('caused error: ')[2]:.160}"
