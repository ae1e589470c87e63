"""Keeps other people's web pages from using the web UI through the operator's browser.

The UI asks nobody who they are, so whatever the browser is made to send is done. A browser says
for which host it asks and from which page, and a page can change neither.
"""

from urllib.parse import urlsplit

from starlette.datastructures import Headers
from starlette.middleware import Middleware
from starlette.middleware.trustedhost import TrustedHostMiddleware
from starlette.responses import PlainTextResponse
from starlette.types import ASGIApp, Receive, Scope, Send

from zlh_dagster.resources.settings import Settings
from zlh_dagster.resources.urls import LOOPBACK

_REFUSED = (
    "Refused: asked by a page of another address."
    " Behind a proxy, ZLH_WEB_URL must be the address that the browser shows.\n"
)


class SameOrigin:
    """Refuses what a page sends that this server did not serve.

    Requests without ``Origin`` come from no page that could change anything: browsers send it with
    all but plain reads. Those of programs have none.

    Args:
        app: What is guarded.
        public: The address by which a browser comes through a proxy, where there is one.
    """

    def __init__(self, app: ASGIApp, public: str | None) -> None:
        self._app = app
        self._public = None if public is None else _origin(public)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] in ("http", "websocket"):
            headers = Headers(scope=scope)
            origin = headers.get("origin")
            if origin is not None and not self._own(origin, headers.get("host", "")):
                await PlainTextResponse(_REFUSED, status_code=403)(scope, receive, send)
                return
        await self._app(scope, receive, send)

    def _own(self, origin: str, host: str) -> bool:
        schemes = ("http", "https")
        return origin.lower() in (self._public, *(f"{s}://{host.lower()}" for s in schemes))


def guards(settings: Settings) -> list[Middleware]:
    """What stands before the web server, the outermost first."""
    public = settings.zlh_web_url
    hosts = {*LOOPBACK, settings.zlh_web_host}
    if public is not None:
        hosts.add(urlsplit(public).hostname or "")
    # A Host header has brackets around an address of IPv6.
    allowed = sorted(f"[{host}]" if ":" in host else host for host in hosts)
    return [
        Middleware(TrustedHostMiddleware, allowed_hosts=allowed, www_redirect=False),
        Middleware(SameOrigin, public=public),
    ]


def _origin(url: str) -> str:
    """Scheme and host of an address, as a browser spells them."""
    parts = urlsplit(url.lower())
    usual = {"http": 80, "https": 443}[parts.scheme]
    host = parts.netloc.rpartition("@")[2]
    return f"{parts.scheme}://{host.removesuffix(f':{usual}')}"
