"""On which addresses processes listen."""

import os
import socket
import struct
from collections.abc import Iterable
from pathlib import Path

_LISTENS = "0A"


def listening(pids: Iterable[int]) -> set[str]:
    """Address and port of every TCP socket of theirs that waits for callers."""
    theirs = set().union(*(_sockets(pid) for pid in pids))
    found = set()
    for table, family in (("tcp", socket.AF_INET), ("tcp6", socket.AF_INET6)):
        for line in Path(f"/proc/net/{table}").read_text().splitlines()[1:]:
            fields = line.split()
            if fields[3] == _LISTENS and f"socket:[{fields[9]}]" in theirs:
                found.add(_spelled(fields[1], family))
    return found


def _sockets(pid: int) -> set[str]:
    found = set()
    for link in Path(f"/proc/{pid}/fd").glob("*"):
        try:
            found.add(os.readlink(link))
        except OSError:
            continue
    return found


def _spelled(hexadecimal: str, family: socket.AddressFamily) -> str:
    """The kernel prints an address as words of this machine."""
    address, _, port = hexadecimal.partition(":")
    words = [int(address[i : i + 8], 16) for i in range(0, len(address), 8)]
    packed = struct.pack(f"={len(words)}I", *words)
    return f"{socket.inet_ntop(family, packed)}:{int(port, 16)}"
