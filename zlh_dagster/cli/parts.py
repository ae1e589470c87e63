"""What commands take as an argument, apart from the modules that do the work."""

from enum import Enum


class Part(str, Enum):
    """What `zlh serve` takes; of the daemon a deployment has one, of the others any number."""

    WEB = "web"
    DAEMON = "daemon"
    WORKER = "worker"


class Drill(str, Enum):
    """What `zlh drill` takes away."""

    CLOUDFLARE_SRV = "cloudflare-srv"
