"""The parts of the controller that can run on their own."""

from enum import Enum


class Part(str, Enum):
    """What `zlh serve` takes; of the daemon a deployment has one, of the others any number."""

    WEB = "web"
    DAEMON = "daemon"
    WORKER = "worker"
