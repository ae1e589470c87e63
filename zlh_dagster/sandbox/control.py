"""The sandbox's own API: look at what came in, and make surfaces fail."""

from collections.abc import Awaitable, Callable
from dataclasses import asdict

from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from zlh_dagster.sandbox.control_answers import error_answer, json_answer
from zlh_dagster.sandbox.edge import Edge
from zlh_dagster.sandbox.exchange import JsonObject
from zlh_dagster.sandbox.fault_kinds import FAULTY_SURFACES
from zlh_dagster.sandbox.faults import UnknownFault
from zlh_dagster.sandbox.journal import SURFACES

Control = Callable[[Request], Awaitable[Response]]


def control_routes(edge: Edge) -> list[Route]:
    """The routes under ``/sandbox``."""
    control = ControlApi(edge)
    fault = "/sandbox/faults/{surface}"
    return [
        Route("/sandbox/state", control.state, methods=["GET"]),
        Route("/sandbox/requests", control.requests, methods=["GET"]),
        Route("/sandbox/requests", control.clear_requests, methods=["DELETE"]),
        Route("/sandbox/inbox", control.inbox, methods=["GET"]),
        Route("/sandbox/faults", control.faults, methods=["GET"]),
        Route(fault, control.switch_on, methods=["PUT"]),
        Route(fault, control.switch_off, methods=["DELETE"]),
        Route("/sandbox/velocity/restart", control.restart_velocity, methods=["PUT"]),
    ]


class ControlApi:
    """Answers the sandbox's own calls; none of them is in the journal."""

    def __init__(self, edge: Edge) -> None:
        self._edge = edge

    async def state(self, request: Request) -> Response:
        """Configuration and counters."""
        return json_answer(edge_state(self._edge))

    async def requests(self, request: Request) -> Response:
        """The journal, of one surface or of all."""
        surface = request.query_params.get("surface")
        if surface is not None and surface not in SURFACES:
            return error_answer(f"no surface {surface!r}; there are: {', '.join(SURFACES)}")
        return json_answer([entry.to_json() for entry in self._edge.journal.entries(surface)])

    async def clear_requests(self, request: Request) -> Response:
        """Forget the journal."""
        self._edge.journal.clear()
        return Response(status_code=204)

    async def inbox(self, request: Request) -> Response:
        """What Discord was sent."""
        return json_answer([message.to_json() for message in self._edge.discord.inbox()])

    async def faults(self, request: Request) -> Response:
        """The faults that are on."""
        active = self._edge.faults.active()
        return json_answer({surface: fault.to_json() for surface, fault in active.items()})

    async def switch_on(self, request: Request) -> Response:
        """Make a surface fail."""
        try:
            body = await request.json()
        except ValueError:
            body = None
        if not isinstance(body, dict) or not isinstance(body.get("kind"), str):
            return error_answer("the body must be a JSON object with a kind")
        try:
            fault = self._edge.faults.switch_on(
                request.path_params["surface"], body.pop("kind"), **body
            )
        except UnknownFault as error:
            return error_answer(str(error))
        return json_answer(fault.to_json())

    async def switch_off(self, request: Request) -> Response:
        """Make a surface well again."""
        surface = request.path_params["surface"]
        if surface not in FAULTY_SURFACES:
            return error_answer(f"no surface {surface!r}; there are: {', '.join(FAULTY_SURFACES)}")
        self._edge.faults.switch_off(surface)
        return Response(status_code=204)

    async def restart_velocity(self, request: Request) -> Response:
        """Restart the proxy, which loses its registrations."""
        self._edge.velocity.restart()
        return Response(status_code=204)


def edge_state(edge: Edge) -> JsonObject:
    """Configuration and counters, without the pretend secrets."""
    config = edge.config
    with edge.lock:
        messages = edge.discord.inbox()
        return {
            "zone": config.zone,
            "zone_id": config.zone_id,
            "cloudflare_edge_ip": config.cloudflare_edge_ip,
            "velocity_edge_ip": config.velocity_edge_ip,
            "traefik_edge_ip": config.traefik_edge_ip,
            "cloudflare": {"records": len(edge.cloudflare)},
            "technitium": {"records": len(edge.technitium)},
            "velocity": {
                "servers": len(edge.velocity.backends()),
                "last_join_target": edge.velocity.last_join_target,
                **asdict(edge.velocity.counts),
            },
            "discord": {
                "messages": len(messages),
                "edits": sum(len(message.edits) for message in messages),
            },
            "proxmox": edge.containers.counts(),
            "heartbeat": asdict(edge.heartbeat.beats),
            "requests": edge.journal.counts(),
        }
