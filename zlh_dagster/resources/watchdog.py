"""Tells systemd that a program works, so that one that hangs is started again.

The protocol is sd_notify(3): a datagram to the socket that ``NOTIFY_SOCKET`` names.
"""

import contextlib
import os
import socket
import threading
import time
from collections.abc import Callable

INTERVAL = 20.0
"""Seconds between two signs of life; a unit's ``WatchdogSec`` is several times as long."""


def keep_awake(works: Callable[[], bool], *, interval: float = INTERVAL) -> None:
    """Gives a sign of life for as long as the program works, in the background; below systemd only.

    Args:
        works: Tells whether it does; may take a while.
        interval: Seconds between two questions.
    """
    address = os.environ.get("NOTIFY_SOCKET")
    if not address:
        return

    def ask() -> None:
        while True:
            time.sleep(interval)
            if works():
                _notify(address)

    threading.Thread(target=ask, name="watchdog", daemon=True).start()


def _notify(address: str) -> None:
    name = f"\0{address[1:]}" if address.startswith("@") else address
    with (
        contextlib.suppress(OSError),
        socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as connection,
    ):
        connection.sendto(b"WATCHDOG=1", name)
