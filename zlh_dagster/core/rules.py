"""The policy: from what is found to what is done about it.

This table is the one place that says so. The decisions read it, `zlh plan --policy` prints it, and
docs/safety.md shows it.
"""

from collections.abc import Collection
from dataclasses import dataclass
from enum import Enum

from zlh_dagster.core.model import Action


class Severity(str, Enum):
    """Which channel a message goes to."""

    CRITICAL = "critical"
    WARNING = "warning"
    REPAIR = "repair"
    INFO = "info"


class Kind(str, Enum):
    """What a tick can find; also the first part of an incident's name."""

    DNS_DRIFT = "dns_drift"
    BACKEND_MISSING = "backend_missing"
    BACKEND_ELSEWHERE = "backend_elsewhere"
    DUPLICATE = "duplicate"
    CONFLICT = "conflict"
    MASS_DRIFT = "mass_drift"
    STALE_OPERATION = "stale_operation"
    STUCK_PROVISIONING = "stuck_provisioning"
    PROVISIONING_WAITS = "provisioning_waits"
    AGENT_OFFLINE = "agent_offline"
    AGENT_ADDRESS = "agent_address"
    SUSPENDED_RUNNING = "suspended_running"
    BACKUP_MISSED = "backup_missed"
    ORPHAN = "orphan"
    INVALID = "invalid"
    UNOBSERVED = "unobserved"


@dataclass(frozen=True, slots=True)
class Rule:
    """One row of the policy.

    Attributes:
        found: What it looks like, in words.
        level: Level of what is done about it; 0 only tells.
        action: The repair, or the one that is recommended where it is not carried out.
        guards: What must hold at the last moment, in words.
        message: Channel of the message.
        does: What happens, in words.
    """

    kind: Kind
    found: str
    level: int
    action: Action | None
    guards: str
    message: Severity
    does: str

    @property
    def repairs(self) -> bool:
        """Whether the loop itself carries the action out, once dry-run is off."""
        return self.level == 1

    def asks_for(self, level2: Collection[str] = ()) -> Action | None:
        """The repair that a tick asks for where this is found; ``None`` where it only tells.

        Args:
            level2: Level-2 actions that the operator has switched on.
        """
        named = self.level == 2 and self.action is not None and self.action.value in level2
        return self.action if self.repairs or named else None


ACTIVE_GAME_SERVER = "game server, active, paid for, not in maintenance"
_TELLS = "tells the operator once"

POLICY: tuple[Rule, ...] = (
    Rule(
        Kind.DNS_DRIFT,
        "a DNS record missing, wrong or disabled",
        1,
        Action.DNS_REPUBLISH,
        ACTIVE_GAME_SERVER,
        Severity.REPAIR,
        "puts the record back and reads it back (edge_republish when Velocity lacks it too)",
    ),
    Rule(
        Kind.BACKEND_MISSING,
        "a Velocity registration missing",
        1,
        Action.VELOCITY_REREGISTER,
        ACTIVE_GAME_SERVER,
        Severity.REPAIR,
        "registers the backend once and reads it back",
    ),
    Rule(
        Kind.BACKEND_ELSEWHERE,
        "a Velocity registration with another address",
        2,
        Action.VELOCITY_REPOINT,
        "never carried out: it would move players",
        Severity.WARNING,
        _TELLS,
    ),
    Rule(
        Kind.DUPLICATE,
        "two records where one is wanted",
        0,
        Action.DNS_REPUBLISH,
        "never carried out",
        Severity.WARNING,
        f"{_TELLS}; touches neither",
    ),
    Rule(
        Kind.CONFLICT,
        "a CNAME where a record is wanted",
        0,
        Action.DNS_REPUBLISH,
        "never carried out",
        Severity.WARNING,
        f"{_TELLS}; touches nothing",
    ),
    Rule(
        Kind.MASS_DRIFT,
        "much of a DNS surface drifting at once",
        1,
        Action.DNS_REPUBLISH,
        "the operator's approval, good for one batch",
        Severity.CRITICAL,
        "repairs nothing there, names the command that approves it",
    ),
    Rule(
        Kind.STALE_OPERATION,
        "a running operation whose heartbeat or lease has expired and whose queue job is dead"
        " at two ticks",
        1,
        Action.CLEAR_STALE_OPERATION_LOCK,
        "server not suspended, deleting or in maintenance; row as it was read; job still dead",
        Severity.REPAIR,
        "marks the operation stale, with the reason",
    ),
    Rule(
        Kind.STUCK_PROVISIONING,
        "a create operation queued over 15 minutes without progress, its queue job dead at two"
        " ticks",
        1,
        Action.FAIL_STUCK_PROVISIONING,
        "Proxmox seen, without such a container; row as it was read; job still dead",
        Severity.REPAIR,
        "marks the operation failed, releases its VMID and ports",
    ),
    Rule(
        Kind.PROVISIONING_WAITS,
        "a create operation queued over 15 minutes whose job still waits in the queue",
        0,
        None,
        "-",
        Severity.WARNING,
        f"{_TELLS}: the worker may be down",
    ),
    Rule(
        Kind.AGENT_OFFLINE,
        "a container runs, its agent does not answer",
        0,
        Action.RESTART_AGENT,
        "never carried out",
        Severity.WARNING,
        _TELLS,
    ),
    Rule(
        Kind.AGENT_ADDRESS,
        "a container's address that is none, or outside ZLH_AGENT_NETWORKS",
        0,
        None,
        "-",
        Severity.WARNING,
        f"never calls it; {_TELLS}",
    ),
    Rule(
        Kind.SUSPENDED_RUNNING,
        "billing suspended, server runs",
        2,
        Action.STOP_SUSPENDED_WORKLOAD,
        "billing still suspended, not in maintenance, not deleting; no operation under way; agent"
        " says it runs",
        Severity.WARNING,
        f"{_TELLS}; stops the workload only when ZLH_LEVEL2_ACTIONS names that action",
    ),
    Rule(
        Kind.BACKUP_MISSED,
        "the last backup is older than its interval allows",
        0,
        None,
        "-",
        Severity.WARNING,
        _TELLS,
    ),
    Rule(
        Kind.ORPHAN,
        "DNS records or registrations that no server asks for",
        0,
        None,
        "-",
        Severity.INFO,
        "reports; nothing is ever deleted",
    ),
    Rule(
        Kind.INVALID,
        "a server's or an operation's row that cannot be used",
        0,
        None,
        "-",
        Severity.WARNING,
        "that server or operation is not watched until its row is mended",
    ),
    Rule(
        Kind.UNOBSERVED,
        "a source not seen for several ticks",
        0,
        None,
        "-",
        Severity.CRITICAL,
        "repairs nothing there until it can be read again",
    ),
)

RULES: dict[Kind, Rule] = {rule.kind: rule for rule in POLICY}
