"""The sandbox as a running server, for tests and for the demonstration."""

import socket
import threading
import time
from types import TracebackType

import sqlalchemy as sa
import uvicorn
from starlette.applications import Starlette

from zlh_dagster.sandbox.agent_server import AgentServer
from zlh_dagster.sandbox.broken_responses import HangUpProtocol
from zlh_dagster.sandbox.config import SandboxConfig
from zlh_dagster.sandbox.control import control_routes
from zlh_dagster.sandbox.control_platform import platform_routes
from zlh_dagster.sandbox.discord_api import LEVELS
from zlh_dagster.sandbox.edge import Edge
from zlh_dagster.sandbox.publish import publish_database
from zlh_dagster.sandbox.surfaces import provider_routes

_LOOPBACK = "127.0.0.1"
LOOPBACK_NETWORK = "127.0.0.0/8"
_START_SECONDS = 15
_STOP_SECONDS = 10


class SandboxError(Exception):
    """The sandbox could not start or stop."""


class Sandbox:
    """A pretend edge on a port of the loopback interface.

    Example:
        with Sandbox() as sandbox:
            httpx.get(f"{sandbox.url}/sandbox/state")

    Attributes:
        config: What it pretends to be.
        edge: State of all surfaces, to look at and to change from any thread.
    """

    def __init__(
        self,
        config: SandboxConfig | None = None,
        *,
        database_url: str | None = None,
        port: int = 0,
        agent_port: int = 0,
    ) -> None:
        """Prepare a sandbox; it listens once it is entered or started.

        Args:
            config: What to pretend to be.
            database_url: Platform database, handed on to the controller's settings.
            port: Port to listen on; 0 takes a free one.
            agent_port: Port of every agent, each at its container's address; 0 takes a free one.
        """
        self.config = config or SandboxConfig()
        self.edge = Edge(self.config)
        self._database_url = database_url
        self._wanted_port = port
        self._wanted_agent_port = agent_port
        self._port: int | None = None
        self._agents = AgentServer(self.edge)
        self._agent_port: int | None = None
        self._server: uvicorn.Server | None = None
        self._thread: threading.Thread | None = None

    def __enter__(self) -> "Sandbox":
        self.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.stop()

    @property
    def url(self) -> str:
        """Base URL of the server, without a slash at its end."""
        if self._port is None:
            raise SandboxError("the sandbox is not started; use it in a with statement")
        return f"http://{_LOOPBACK}:{self._port}"

    @property
    def agent_port(self) -> int:
        """The port of every agent."""
        if self._agent_port is None:
            raise SandboxError("the sandbox is not started; use it in a with statement")
        return self._agent_port

    @property
    def running(self) -> bool:
        """Whether the server still serves."""
        return self._thread is not None and self._thread.is_alive()

    def environment(self) -> dict[str, str]:
        """The settings with which a controller works on this edge."""
        config, url = self.config, self.url
        settings = {
            "ZLH_ZONE": config.zone,
            "CLOUDFLARE_API_BASE": f"{url}/client/v4",
            "CLOUDFLARE_API_TOKEN": config.cloudflare_token,
            "CLOUDFLARE_ZONE_ID": config.zone_id,
            "CLOUDFLARE_EDGE_IP": config.cloudflare_edge_ip,
            "TECHNITIUM_API_URL": url,
            "TECHNITIUM_API_TOKEN": config.technitium_token,
            "VELOCITY_EDGE_IP": config.velocity_edge_ip,
            "TRAEFIK_EDGE_IP": config.traefik_edge_ip,
            "VELOCITY_URL": url,
            "ZPACK_SECRET": config.zpack_secret,
            "PROXMOX_URL": url,
            "PROXMOX_NODE": config.proxmox_node,
            "PROXMOX_TOKEN_ID": config.proxmox_token_id,
            "PROXMOX_TOKEN_SECRET": config.proxmox_token_secret,
            "ZLH_AGENT_PORT": str(self.agent_port),
            "ZLH_AGENT_NETWORKS": LOOPBACK_NETWORK,
            "ZLH_HEARTBEAT_URL": f"{url}/heartbeat",
        }
        for level in LEVELS:
            settings[f"DISCORD_WEBHOOK_{level.upper()}"] = f"{url}/discord/{level}"
        if self._database_url is not None:
            settings["ZLH_DATABASE_URL"] = self._database_url
        return settings

    def seed_from_database(self, url: str | None = None) -> int:
        """Publish every game server of a platform database on the edge.

        Args:
            url: The database; that of the constructor when left out.

        Returns:
            How many game servers were published.
        """
        chosen = url or self._database_url
        if chosen is None:
            raise SandboxError("no database to seed from; give its URL")
        engine = sa.create_engine(chosen)
        try:
            return publish_database(self.edge, engine)
        finally:
            engine.dispose()

    def reset(self) -> None:
        """Forget everything: records, registrations, containers, messages, requests, faults."""
        self.edge.clear()

    def start(self) -> None:
        """Listen, and return once connections are accepted; again at the port it had before.

        Raises:
            SandboxError: If the port is taken or the server does not come up.
        """
        # Without its protocol named, asyncio leaves Nagle's delay on: 40 ms for each answer.
        sock = socket.socket(socket.AF_INET, socket.SOCK_STREAM, socket.IPPROTO_TCP)
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            sock.bind((_LOOPBACK, self._wanted_port))
        except OSError as error:
            sock.close()
            raise SandboxError(f"cannot listen on port {self._wanted_port}: {error}") from error
        try:
            self._agent_port = self._agents.start(self._wanted_agent_port)
            self._wanted_agent_port = self._agent_port
        except OSError as error:
            sock.close()
            raise SandboxError(error.strerror) from error
        self._port = self._wanted_port = sock.getsockname()[1]
        self.edge.closing.clear()
        app = Starlette(
            routes=[
                *control_routes(self.edge),
                *platform_routes(self.edge, self._database_url),
                *provider_routes(self.edge),
            ]
        )
        self._server = uvicorn.Server(
            uvicorn.Config(
                app,
                http=HangUpProtocol,
                loop="asyncio",
                ws="none",
                lifespan="off",
                log_config=None,
                log_level="error",
                access_log=False,
                timeout_graceful_shutdown=2,
            )
        )
        self._thread = threading.Thread(
            target=self._server.run, args=([sock],), name="sandbox", daemon=True
        )
        self._thread.start()
        give_up = time.monotonic() + _START_SECONDS
        while not self._server.started:
            if not self._thread.is_alive() or time.monotonic() > give_up:
                self.stop()
                raise SandboxError("the server did not start")
            time.sleep(0.005)

    def stop(self) -> None:
        """Stop listening and let go of all connections.

        Raises:
            SandboxError: If the server does not end.
        """
        if self._server is None or self._thread is None:
            return
        self.edge.closing.set()
        self._agents.stop()
        self._server.should_exit = True
        self._thread.join(_STOP_SECONDS)
        if self._thread.is_alive():
            raise SandboxError("the server did not stop")
        self._server = self._thread = self._port = self._agent_port = None
