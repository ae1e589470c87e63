"""Dagster's web server behind the guard: the same program with the same options.

`python -m zlh_dagster.web.dagster_webserver` stands in for `dagster-webserver`.
"""

from typing import Any

from dagster_webserver import app, cli, webserver
from starlette.middleware import Middleware
from starlette.requests import Request
from starlette.responses import PlainTextResponse, Response

from zlh_dagster.resources.settings import load_settings
from zlh_dagster.resources.watchdog import keep_awake
from zlh_dagster.web.alive import serves_web
from zlh_dagster.web.guard import guards


class GuardedWebserver(webserver.DagsterWebserver[Any, Any]):
    """The web UI for those alone who opened it."""

    def build_middleware(self) -> list[Middleware]:
        return [*guards(load_settings()), *super().build_middleware()]

    async def graphql_http_endpoint(self, request: Request) -> Response:
        """Only the page itself by GET: a link or a picture on any page could ask the rest."""
        if request.method == "GET" and "text/html" not in request.headers.get("Accept", ""):
            text = "GraphQL is asked by POST.\n"
            return PlainTextResponse(text, status_code=405, headers={"Allow": "POST"})
        answer: Response = await super().graphql_http_endpoint(request)
        return answer


def main() -> None:
    """Serves until SIGTERM."""
    settings = load_settings()
    keep_awake(lambda: serves_web(settings.zlh_web_host, settings.zlh_web_port))
    # Dagster's command has no option for it; a test asks the real process.
    app.DagsterWebserver = GuardedWebserver  # type: ignore[attr-defined]
    cli.main()  # type: ignore[no-untyped-call]


if __name__ == "__main__":
    main()
