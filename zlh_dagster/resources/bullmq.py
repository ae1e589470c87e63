"""BullMQ's queues, read with ordinary Redis commands and never written.

Keys are ``{prefix}:{queue}:{part}``. A job is a hash; where it stands is told by the list or sorted
set that holds its identifier, and whether a worker has it by a lock that the worker renews. A
stalled job is active without that lock. BullMQ 5 keeps the waiting jobs of a paused queue in a list
of their own, BullMQ 6 leaves them where they are; both are read alike.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import redis

from zlh_dagster.core.fleet import QUEUED, JobState
from zlh_dagster.resources.http import Incomplete
from zlh_dagster.resources.redis import RedisUnavailable

QUEUES = ("provisioning", "operation")
"""Queues of the platform; while one of these cannot be seen, it is Redis that is wrong."""

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
_OWN = frozenset(
    {
        *_LISTS,
        *_SETS,
        "de",
        "events",
        "id",
        "limiter",
        "marker",
        "meta",
        "metrics:completed",
        "metrics:failed",
        "pc",
        "repeat",
        "stalled",
        "stalled-check",
    }
)
"""What BullMQ calls the keys of a queue that are no jobs."""
_PLACES = (*_LISTS.values(), *_SETS.values())
_OF_JOB = 2
_PER_JOB = _OF_JOB + len(_PLACES)
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
        queued: How many jobs each queue has that are not done, where it could be seen.
        unclear: Why the state of a job is unknown.
    """

    states: Mapping[Job, JobState]
    queued: Mapping[str, int]
    unclear: Mapping[Job, str] = field(default_factory=dict)


def read_jobs(
    client: "redis.Redis", *, prefix: str, jobs: Iterable[Job], queues: Iterable[str] = ()
) -> Queues:
    """Where each job stands, and how many there are.

    All of it is read in one transaction, so that no job is missed between two lists. Above
    :data:`CHUNK` jobs there are several: each job is still read at one moment, but not all at the
    same, and a queue has as many jobs as it had at the fullest of them.

    A job that cannot be read, or whose queue is none of :data:`QUEUES` and cannot be seen, is
    ``unknown``, and the others are read all the same.

    Args:
        client: Redis of the platform.
        prefix: BullMQ's key prefix.
        jobs: Queue and job identifier of each.
        queues: Queues to read whether or not a job of theirs is asked for.

    Raises:
        Incomplete: If one of :data:`QUEUES` has neither of the keys that BullMQ keeps for it, so
            that the absence of a job means nothing, or a key of it is not what BullMQ makes of it.
        RedisUnavailable: If Redis does not answer.
    """
    asked = list(dict.fromkeys(jobs))
    names = list(dict.fromkeys((*queues, *(queue for queue, _ in asked))))
    states: dict[Job, JobState] = {}
    unclear: dict[Job, str] = {}
    queued: dict[str, int] = {}
    for start in range(0, max(len(asked), min(len(names), 1)), CHUNK):
        read = _read(client, prefix, names, asked[start : start + CHUNK])
        states.update(read.states)
        unclear.update(read.unclear)
        for name, count in read.queued.items():
            queued[name] = max(count, queued.get(name, 0))
    return Queues(states, queued, unclear)


def _read(client: "redis.Redis", prefix: str, queues: Sequence[str], jobs: Sequence[Job]) -> Queues:
    with client.pipeline(transaction=True) as pipe:
        for queue in queues:
            pipe.exists(f"{prefix}:{queue}:meta")
            pipe.exists(f"{prefix}:{queue}:id")
            for name in _LISTS:
                pipe.llen(f"{prefix}:{queue}:{name}")
            for name in _UNDONE_SETS:
                pipe.zcard(f"{prefix}:{queue}:{name}")
        for queue, name in jobs:
            base = f"{prefix}:{queue}"
            pipe.hlen(f"{base}:{name}")
            pipe.exists(f"{base}:{name}:lock")
            for place in _LISTS:
                pipe.lpos(f"{base}:{place}", name)
            for place in _SETS:
                pipe.zscore(f"{base}:{place}", name)
        try:
            answers = pipe.execute(raise_on_error=False)
        except redis.ResponseError as error:
            raise Incomplete(f"BullMQ: the queues cannot be read: {error!s:.160}") from None
        except redis.RedisError as error:
            raise RedisUnavailable(
                f"Redis cannot be reached ({type(error).__name__}): the queues were not read"
            ) from None
    known, found = answers[: _PER_QUEUE * len(queues)], answers[_PER_QUEUE * len(queues) :]
    queued: dict[str, int] = {}
    unseen: dict[str, str] = {}
    for n, queue in enumerate(queues):
        answer = known[_PER_QUEUE * n : _PER_QUEUE * (n + 1)]
        why = _why_unseen(prefix, queue, answer)
        if why is None:
            queued[queue] = sum(answer[_KNOWN:])
        elif queue in QUEUES:
            raise Incomplete(why)
        else:
            unseen[queue] = why
    states: dict[Job, JobState] = {}
    unclear: dict[Job, str] = {}
    for n, job in enumerate(jobs):
        answer = found[_PER_JOB * n : _PER_JOB * (n + 1)]
        doubt = unseen.get(job[0]) or _why_unclear(job, answer)
        if doubt is not None:
            unclear[job] = doubt
        states[job] = JobState.UNKNOWN if doubt is not None else _state(answer)
    return Queues(states, queued, unclear)


def _why_unseen(prefix: str, queue: str, answers: Sequence[Any]) -> str | None:
    refused = _refused(answers)
    if refused is not None:
        return f"BullMQ: queue {queue!r:.60} cannot be read: {_said(refused)}"
    if any(answers[:_KNOWN]):
        return None
    return (
        f"BullMQ: Redis has no queue {queue!r:.60} under prefix {prefix!r:.60}, neither"
        " 'meta' nor 'id': ZLH_BULLMQ_PREFIX is wrong, or this Redis lost its data"
    )


def _why_unclear(job: Job, answers: Sequence[Any]) -> str | None:
    """Why nothing follows from the answers about a job.

    Raises:
        Incomplete: If it is not the job but a list of one of :data:`QUEUES` that is wrong.
    """
    queue, name = job
    if name in _OWN:
        return f"BullMQ: {name!r} is no job but one of BullMQ's own keys of {queue!r:.60}"
    refused = _refused(answers)
    if refused is None:
        return None
    why = f"BullMQ: job {name!r:.60} of {queue!r:.60} cannot be read: {_said(refused)}"
    if queue in QUEUES and _refused(answers[_OF_JOB:]) is not None:
        raise Incomplete(why)
    return why


def _state(answers: Sequence[Any]) -> JobState:
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


def _refused(answers: Sequence[Any]) -> Exception | None:
    return next((answer for answer in answers if isinstance(answer, Exception)), None)


def _said(refused: Exception) -> str:
    return f"{str(refused).rpartition('caused error: ')[2]:.160}"
