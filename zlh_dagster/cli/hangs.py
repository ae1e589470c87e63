"""Which part of the controller lives and does not work: such a one is started again."""

import time
from collections.abc import Callable, Iterator, Sequence

from zlh_dagster.cli.children import Child

HANG_SECONDS = 120.0
"""For so long a part may not answer: a cold start on a busy machine takes less."""

_ANSWER_SECONDS = 10.0


class Hangs:
    """Asks each part whether it works.

    Args:
        children: The parts; those without a question always do.
        clock: Seconds that only go forward, the same as theirs.
    """

    def __init__(
        self, children: Sequence[Child], clock: Callable[[], float] = time.monotonic
    ) -> None:
        self._children, self._clock = children, clock
        self._worked = {child.name: clock() for child in children}

    def once(self) -> Iterator[Child]:
        """One look; yields who has not worked for too long."""
        for child in self._children:
            if child.works():
                self._worked[child.name] = self._clock()
            elif self._clock() - max(self._worked[child.name], child.started_at) > HANG_SECONDS:
                yield child


def serves_code(socket: str) -> bool:
    """Whether the code server at a Unix socket answers the opening of a gRPC connection."""
    import grpc

    # Not over a connection that an earlier question has left open.
    alone = [("grpc.use_local_subchannel_pool", 1)]
    with grpc.insecure_channel(f"unix:{socket}", options=alone) as channel:
        try:
            grpc.channel_ready_future(channel).result(timeout=_ANSWER_SECONDS)
        except grpc.FutureTimeoutError:
            return False
    return True
