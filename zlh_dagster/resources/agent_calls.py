"""Calls to single agents at the addresses that the platform's rows give."""

from collections.abc import Sequence

from zlh_dagster.resources.agent_http import Network
from zlh_dagster.resources.agents import read_state, stop_workload
from zlh_dagster.resources.http import Rejected


class AgentCalls:
    """Asks one agent at a time.

    Args:
        port: Where agents listen.
        networks: In which they may be called.
    """

    def __init__(self, *, port: int, networks: Sequence[Network]) -> None:
        self._port = port
        self._networks = networks

    def state(self, ip: str | None) -> str:
        """What an agent says its server does.

        Raises:
            EdgeError: If it may not be called, does not answer, or says no state.
        """
        return read_state(_address(ip), self._port, self._networks)

    def stop(self, ip: str | None) -> None:
        """Asks an agent, once, to stop its server.

        Raises:
            EdgeError: If it may not be called, does not answer, or refuses.
        """
        stop_workload(_address(ip), self._port, self._networks)


def _address(ip: str | None) -> str:
    if not ip:
        raise Rejected("the container has no address")
    return ip
