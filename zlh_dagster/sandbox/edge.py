"""The whole pretend edge: the state of every surface, under one lock."""

import threading

from zlh_dagster.sandbox.cloudflare_records import CloudflareTable
from zlh_dagster.sandbox.config import SandboxConfig
from zlh_dagster.sandbox.containers import ContainerTable
from zlh_dagster.sandbox.discord_api import DiscordApi
from zlh_dagster.sandbox.faults import FaultBoard
from zlh_dagster.sandbox.heartbeat import HeartbeatSink
from zlh_dagster.sandbox.journal import Journal
from zlh_dagster.sandbox.technitium_records import TechnitiumTable
from zlh_dagster.sandbox.velocity_api import VelocityBridge


class Edge:
    """State of all surfaces; safe to read and change from any thread."""

    def __init__(self, config: SandboxConfig) -> None:
        self.config = config
        self.lock = threading.RLock()
        self.closing = threading.Event()
        self.cloudflare = CloudflareTable(self.lock)
        self.technitium = TechnitiumTable(self.lock, config.zone)
        self.velocity = VelocityBridge(config, self.lock)
        self.containers = ContainerTable(self.lock)
        self.discord = DiscordApi(self.lock)
        self.heartbeat = HeartbeatSink(self.lock)
        self.journal = Journal(self.lock)
        self.faults = FaultBoard(self.lock)

    def clear(self) -> None:
        """Back to an edge on which nothing was ever published and nothing ever happened."""
        with self.lock:
            self.cloudflare.clear()
            self.technitium.clear()
            self.velocity.clear()
            self.containers.clear()
            self.discord.clear()
            self.heartbeat.clear()
            self.journal.clear()
            self.faults.clear()
