"""One listening socket for each agent, at its own address of 127.0.0.0/8.

A socket hears a loopback address only when it is bound to that very address or to all of them, and
nothing here listens outside loopback; so each agent has a socket of its own. That also lets one of
them be refused by the kernel, as an agent is that does not run.
"""

import asyncio
import errno
import ipaddress
import resource
import socket
from collections.abc import Callable

_BACKLOG = 16
_SPARE_FILES = 512
_WANTED_FILES = 65_536
_RETRY_SECONDS = 0.05
_NO_FILES = (errno.EMFILE, errno.ENFILE)

Accepted = Callable[[int, socket.socket], None]


class AgentListeners:
    """The sockets, by VMID; opened and shut in any thread, read in the loop's own.

    Both take effect before they return: the kernel accepts connections from ``listen`` on, and
    refuses them from ``shutdown`` on.
    """

    def __init__(self, loop: asyncio.AbstractEventLoop, accepted: Accepted) -> None:
        """Prepare for no agent yet.

        Args:
            loop: The loop in which connections are accepted.
            accepted: Called in that loop with the VMID and the connection.
        """
        self._loop = loop
        self._accepted = accepted
        self._sockets: dict[int, tuple[str, socket.socket]] = {}
        self._taken: set[str] = set()
        # Holds a free port, so that no other sandbox takes it, and never listens.
        self._reservation = socket.socket(socket.AF_INET, socket.SOCK_STREAM)

    def reserve(self, port: int) -> int:
        """The port of all agents; 0 takes a free one."""
        try:
            self._reservation.bind(("127.0.0.1", port))
        except OSError as error:
            self._reservation.close()
            message = f"cannot take port {port} for the agents: {error.strerror}"
            raise OSError(error.errno, message) from error
        # From here on, a container at 127.0.0.1 may listen at the same port.
        self._reservation.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        return int(self._reservation.getsockname()[1])

    def set(self, vmid: int, address: str | None) -> None:
        """Listen for an agent at an address, and nowhere else; ``None`` for nowhere at all.

        An address outside loopback, one that another agent has, and one that this system does not
        have (not every one has all of 127.0.0.0/8) is left alone: nobody answers there.

        Raises:
            OSError: If the port is taken at that address, or no more files can be opened.
        """
        before = self._sockets.get(vmid)
        if before is not None:
            if before[0] == address:
                return
            del self._sockets[vmid]
            self._taken.discard(before[0])
            _shut(before[1])
            self._loop.call_soon_threadsafe(self._forget, before[1])
        if address is None or address in self._taken or not _is_loopback(address):
            return
        _make_room(len(self._sockets))
        listener = self._listen(vmid, address)
        if listener is not None:
            self._sockets[vmid] = (address, listener)
            self._taken.add(address)
            self._loop.call_soon_threadsafe(self._hear, vmid, listener)

    def close(self) -> None:
        """Let go of every socket; called in the loop's thread."""
        for _, listener in self._sockets.values():
            self._forget(listener)
        self._sockets.clear()
        self._reservation.close()

    def _listen(self, vmid: int, address: str) -> socket.socket | None:
        port = self._reservation.getsockname()[1]
        listener = socket.socket(socket.AF_INET, socket.SOCK_STREAM, socket.IPPROTO_TCP)
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listener.setblocking(False)
        try:
            listener.bind((address, port))
            listener.listen(_BACKLOG)
        except OSError as error:
            listener.close()
            if error.errno == errno.EADDRNOTAVAIL:
                return None
            where = f"{address}:{port} for the agent of container {vmid}"
            raise OSError(error.errno, f"cannot listen at {where}: {error.strerror}") from error
        return listener

    def _hear(self, vmid: int, listener: socket.socket) -> None:
        if listener.fileno() != -1:
            self._loop.add_reader(listener, self._accept, vmid, listener)

    def _accept(self, vmid: int, listener: socket.socket) -> None:
        try:
            connection, _ = listener.accept()
        except OSError as error:
            if error.errno in _NO_FILES:
                self._loop.remove_reader(listener)
                self._loop.call_later(_RETRY_SECONDS, self._hear, vmid, listener)
            return
        connection.setblocking(False)
        self._accepted(vmid, connection)

    def _forget(self, listener: socket.socket) -> None:
        self._loop.remove_reader(listener)
        listener.close()


def _shut(listener: socket.socket) -> None:
    try:
        listener.shutdown(socket.SHUT_RDWR)
    except OSError:
        # Not every system knows this of a listening socket; there it ends with its closing.
        return


def _is_loopback(address: str) -> bool:
    try:
        parsed = ipaddress.IPv4Address(address)
    except ValueError:
        return False
    return parsed.is_loopback


def _make_room(sockets: int) -> None:
    """See to it that one more socket, and as many connections as are likely, can be opened."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if soft == resource.RLIM_INFINITY or sockets + _SPARE_FILES < soft:
        return
    wanted = _WANTED_FILES if hard == resource.RLIM_INFINITY else min(hard, _WANTED_FILES)
    if sockets + _SPARE_FILES >= wanted:
        message = f"{sockets} agents are all that {wanted} open files allow; see ulimit -n"
        raise OSError(errno.EMFILE, message)
    resource.setrlimit(resource.RLIMIT_NOFILE, (max(soft, wanted), hard))
