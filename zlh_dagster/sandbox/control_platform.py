"""The control API of containers, agents and the platform's own rows."""

from collections.abc import Callable
from dataclasses import asdict
from typing import Any

import sqlalchemy as sa
from starlette.concurrency import run_in_threadpool
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from zlh_dagster.sandbox.containers import Container, UnknownContainer
from zlh_dagster.sandbox.control_answers import error_answer, json_answer
from zlh_dagster.sandbox.edge import Edge
from zlh_dagster.sandbox.exchange import JsonObject
from zlh_dagster.sandbox.platform_rows import (
    WrongRow,
    change_server,
    write_operation,
    write_ports,
    write_reservation,
)


def platform_routes(edge: Edge, database_url: str | None) -> list[Route]:
    """The routes under ``/sandbox`` that concern the platform behind the edge."""
    node, rows = NodeControl(edge), RowControl(database_url)
    containers, agents = "/sandbox/proxmox/containers", "/sandbox/agents"
    platform = "/sandbox/platform"
    return [
        Route(containers, node.containers, methods=["GET"]),
        Route(containers, node.change_all, methods=["PUT"]),
        Route(f"{containers}/{{vmid:int}}", node.add, methods=["POST"]),
        Route(f"{containers}/{{vmid:int}}", node.change, methods=["PUT"]),
        Route(f"{containers}/{{vmid:int}}", node.remove, methods=["DELETE"]),
        Route(agents, node.change_all_agents, methods=["PUT"]),
        Route(f"{agents}/{{vmid:int}}", node.change_agent, methods=["PUT"]),
        Route(f"{platform}/operations", rows.operation, methods=["POST"]),
        Route(f"{platform}/reservations", rows.reservation, methods=["POST"]),
        Route(f"{platform}/ports", rows.ports, methods=["POST"]),
        Route(f"{platform}/servers/{{vmid:int}}", rows.server, methods=["PUT"]),
    ]


class NodeControl:
    """Changes the containers of the pretend node, and how their agents behave."""

    def __init__(self, edge: Edge) -> None:
        self._table = edge.containers
        self._lock = edge.lock

    async def containers(self, request: Request) -> Response:
        """Every container, with its agent."""
        return json_answer([asdict(container) for container in self._table.containers()])

    async def add(self, request: Request) -> Response:
        """Add a container, running unless told otherwise."""
        vmid = request.path_params["vmid"]

        def add(options: JsonObject) -> Container:
            with self._lock:
                if self._table.get(vmid) is not None:
                    raise UnknownContainer(f"container {vmid} is there already")
                self._table.put(Container(vmid, f"ct-{vmid}"))
                try:
                    return self._table.change(vmid, **options)
                except UnknownContainer:
                    self._table.remove(vmid)
                    raise

        return await _with_body(request, add)

    async def change(self, request: Request) -> Response:
        """Change one container."""
        vmid = request.path_params["vmid"]
        return await _with_body(request, lambda options: self._table.change(vmid, **options))

    async def change_all(self, request: Request) -> Response:
        """Change every container, as when the node is stale."""

        def change(options: JsonObject) -> list[Container]:
            with self._lock:
                return [self._table.change(c.vmid, **options) for c in self._table.containers()]

        return await _with_body(request, change)

    async def remove(self, request: Request) -> Response:
        """Take a container away."""
        try:
            self._table.remove(request.path_params["vmid"])
        except UnknownContainer as error:
            return error_answer(str(error))
        return Response(status_code=204)

    async def change_agent(self, request: Request) -> Response:
        """Change how one agent behaves."""
        vmid = request.path_params["vmid"]
        return await _with_body(request, lambda options: self._table.change_agent(vmid, **options))

    async def change_all_agents(self, request: Request) -> Response:
        """Change how every agent behaves."""

        def change(options: JsonObject) -> list[Any]:
            with self._lock:
                table = self._table
                return [table.change_agent(c.vmid, **options) for c in table.containers()]

        return await _with_body(request, change)


class RowControl:
    """Writes rows of the platform database, without keeping a connection to it."""

    def __init__(self, database_url: str | None) -> None:
        self._database_url = database_url

    async def operation(self, request: Request) -> Response:
        """Write an operation."""
        return await self._write(request, lambda e, row: {"id": write_operation(e, **row)})

    async def reservation(self, request: Request) -> Response:
        """Write the reservation of a VMID."""

        def write(engine: sa.Engine, row: JsonObject) -> JsonObject:
            for needed in ("vmid", "operationId"):
                if needed not in row:
                    raise WrongRow(f"{needed} is needed")
            vmid, operation = row.pop("vmid"), row.pop("operationId")
            write_reservation(engine, vmid=vmid, operation_id=operation, **row)
            return {"vmid": vmid}

        return await self._write(request, write)

    async def ports(self, request: Request) -> Response:
        """Write ports of the pool."""

        def write(engine: sa.Engine, row: JsonObject) -> JsonObject:
            ports = row.pop("ports", None)
            if not isinstance(ports, list):
                raise WrongRow("ports is needed, a list of numbers")
            write_ports(engine, ports, **row)
            return {"ports": ports}

        return await self._write(request, write)

    async def server(self, request: Request) -> Response:
        """Change columns of a server."""
        vmid = request.path_params["vmid"]

        def write(engine: sa.Engine, row: JsonObject) -> JsonObject:
            change_server(engine, vmid, **row)
            return {"vmid": vmid}

        return await self._write(request, write)

    async def _write(
        self, request: Request, write: Callable[[sa.Engine, JsonObject], JsonObject]
    ) -> Response:
        url = self._database_url
        if url is None:
            return error_answer("this sandbox was given no database")

        def on_an_engine(row: JsonObject) -> JsonObject:
            engine = sa.create_engine(url)
            try:
                return write(engine, row)
            finally:
                engine.dispose()

        body = await _body(request)
        if body is None:
            return error_answer("the body must be a JSON object")
        try:
            return json_answer(await run_in_threadpool(on_an_engine, body))
        except (WrongRow, sa.exc.SQLAlchemyError) as error:
            return error_answer(str(error).splitlines()[0])


async def _with_body(request: Request, change: Callable[[JsonObject], Any]) -> Response:
    body = await _body(request)
    if body is None:
        return error_answer("the body must be a JSON object")
    try:
        changed = change(body)
    except (UnknownContainer, OSError) as error:
        return error_answer(str(error))
    shown = [asdict(one) for one in changed] if isinstance(changed, list) else asdict(changed)
    return json_answer(shown)


async def _body(request: Request) -> JsonObject | None:
    try:
        body = await request.json()
    except ValueError:
        return None
    return body if isinstance(body, dict) else None
