"""What commands take as an argument, apart from the modules that do the work."""

from enum import Enum


class Part(str, Enum):
    """What `zlh serve` takes; of the daemon a deployment has one, of the others any number."""

    WEB = "web"
    DAEMON = "daemon"
    WORKER = "worker"


class Repair(str, Enum):
    """What `zlh repair` carries out; see docs/safety.md."""

    DNS_REPUBLISH = "dns_republish"
    VELOCITY_REREGISTER = "velocity_reregister"
    EDGE_REPUBLISH = "edge_republish"
    CLEAR_STALE_OPERATION_LOCK = "clear_stale_operation_lock"
    FAIL_STUCK_PROVISIONING = "fail_stuck_provisioning"
    STOP_SUSPENDED_WORKLOAD = "stop_suspended_workload"


class Drill(str, Enum):
    """What `zlh drill` takes away."""

    CLOUDFLARE_SRV = "cloudflare-srv"
