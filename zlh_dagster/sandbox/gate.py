"""Every request to a pretend provider passes here: journal, fault, answer."""

from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

from starlette.requests import ClientDisconnect, Request
from starlette.responses import Response
from starlette.routing import Route

from zlh_dagster.sandbox.broken_responses import HangUp, Huge, pause
from zlh_dagster.sandbox.edge import Edge
from zlh_dagster.sandbox.exchange import Answer, Call, Handler
from zlh_dagster.sandbox.fault_answers import answer_instead, answer_spoiled
from zlh_dagster.sandbox.faults import Fault


class Store(Protocol):
    """State that can go back to what it was."""

    def checkpoint(self) -> Any:
        """Remember the present."""

    def restore(self, checkpoint: Any, /) -> None:
        """Go back to it."""


@dataclass(frozen=True, slots=True)
class Endpoint:
    """One call of a provider's API.

    Attributes:
        path: The path, with its parameters in braces.
        methods: HTTP methods that it takes.
        handler: What answers.
        write: Whether it is meant to change something.
        listing: Whether it returns a list of what there is.
    """

    path: str
    methods: Sequence[str]
    handler: Handler
    write: bool = False
    listing: bool = False


class Gate:
    """Makes routes of endpoints."""

    def __init__(self, edge: Edge) -> None:
        self._edge = edge

    def routes(self, surface: str, store: Store | None, endpoints: list[Endpoint]) -> list[Route]:
        """The routes of one surface."""
        return [
            Route(
                endpoint.path,
                self._serve(surface, store, endpoint),
                methods=list(endpoint.methods),
            )
            for endpoint in endpoints
        ]

    def _serve(
        self, surface: str, store: Store | None, endpoint: Endpoint
    ) -> Callable[[Request], Awaitable[Response]]:
        async def serve(request: Request) -> Response:
            edge = self._edge
            n = edge.journal.begin(
                surface=surface,
                method=request.method,
                path=request.url.path,
                query=request.url.query,
                write=endpoint.write,
            )
            try:
                call = await _read(request)
            except ClientDisconnect:
                return HangUp(0, edge.closing)
            with edge.lock:
                fault = edge.faults.take(
                    surface,
                    write=endpoint.write,
                    listing=endpoint.listing,
                    page=call.query.get("page", "1"),
                )
                if fault is None:
                    response = _response(endpoint.handler(call))
                else:
                    response = self._failing(surface, store, endpoint, call, fault)
                edge.journal.finish(
                    n,
                    status=None if isinstance(response, HangUp) else response.status_code,
                    fault=None if fault is None else fault.kind,
                )
            if surface == "proxmox" and response.status_code == 401:
                await pause(edge.config.proxmox_refusal_seconds, edge.closing)
            return response

        return serve

    def _failing(
        self, surface: str, store: Store | None, endpoint: Endpoint, call: Call, fault: Fault
    ) -> Response:
        closing = self._edge.closing
        if fault.kind in ("hang", "disconnect"):
            return HangUp(fault.options.get("seconds", 0), closing)
        if fault.kind == "huge":
            return Huge(fault.options["megabytes"])
        instead = answer_instead(surface, fault)
        if instead is not None:
            return _response(instead)
        before = store.checkpoint() if store and fault.kind == "write_ignored" else None
        answer = endpoint.handler(call)
        if store and before is not None:
            store.restore(before)
        if fault.kind == "write_answer_lost":
            return HangUp(0, closing)
        return _response(answer_spoiled(surface, fault, answer))


async def _read(request: Request) -> Call:
    return Call(
        method=request.method,
        path=request.url.path,
        params=request.path_params,
        query=dict(request.query_params),
        headers=request.headers,
        body=await request.body(),
    )


def _response(answer: Answer) -> Response:
    return Response(
        answer.encoded(),
        status_code=answer.status,
        headers=dict(answer.headers),
        media_type=answer.media_type if answer.status != 204 else None,
    )
