"""One way to call an outside system: what is retried, and what each failure means.

Reads are retried with back-off a few times; writes never, for a lost answer does not tell whether
the write was done: the fresh read after it does. A rate limit is not retried into. Errors differ by
what the caller does with them, and never carry a header, a URL's query or an answer's body.
"""

import json
import logging
import math
import ssl
import threading
import time
from collections.abc import Callable, Mapping
from functools import cache
from typing import Any

import httpx

from zlh_dagster.resources.bounded import bounded_client, is_compressed, within

USER_AGENT = "zlh-dagster (+control loop)"
_READ_ATTEMPTS = 3
_READ_SECONDS = 12.0
_BACKOFF_SECONDS = 0.3
_IDLE_SECONDS = 2.0
"""How long an unused connection is kept: less than any server does, so that none is closed there
in the moment in which a write, which is never repeated, is sent over it."""

_MAX_ANSWER_BYTES = 64 * 1024 * 1024

# httpx logs every URL at INFO, and a webhook's URL is a secret.
logging.getLogger("httpx").setLevel(logging.WARNING)


class EdgeError(Exception):
    """A call to an outside system failed; the message is for the operator."""

    retry = False


class Unreachable(EdgeError):
    """No usable answer: refused, timed out, a server error, not the promised JSON."""

    retry = True


class ServerFailed(Unreachable):
    """It was reached and answers with an error of its own."""


class Unauthorized(EdgeError):
    """The token or secret was refused; nobody but the operator can mend that."""


class Untrusted(Unreachable):
    """The server's certificate was not accepted; nobody but the operator can mend that."""

    retry = False


class RateLimited(EdgeError):
    """Too many calls; nothing more is sent there for now."""

    def __init__(self, message: str, retry_after: float | None = None) -> None:
        super().__init__(message)
        self.retry_after = retry_after


class Rejected(EdgeError):
    """The system understood and said no: retrying the same cannot help."""


class AlreadyThere(EdgeError):
    """A write found that what it wanted to create exists; a fresh read decides."""


class Incomplete(EdgeError):
    """A listing that cannot be shown to be complete: cut short, empty, of the wrong shape."""


@cache
def _system_cas() -> ssl.SSLContext:
    """Read once: reading them takes longer than a call."""
    return httpx.create_ssl_context()


class HttpApi:
    """A client of one outside system.

    Args:
        name: The system's name, for messages.
        base_url: Where it is.
        headers: Sent with every call; may hold secrets.
        timeout: Seconds for each of connecting, sending and each piece of the answer; a whole call
            has three times as many.
        trust: What certificates are checked against, the system's CAs unless given.
        transport: For tests.
    """

    def __init__(
        self,
        name: str,
        base_url: str,
        *,
        headers: Mapping[str, str],
        timeout: float,
        trust: ssl.SSLContext | None = None,
        transport: httpx.BaseTransport | None = None,
    ) -> None:
        self.name = name
        self.timeout = timeout
        self.requests = 0
        self._counting = threading.Lock()
        self._client = bounded_client(
            base_url=base_url,
            headers={"User-Agent": USER_AGENT, **headers},
            timeout=timeout,
            follow_redirects=False,
            verify=trust or _system_cas(),
            limits=httpx.Limits(keepalive_expiry=_IDLE_SECONDS),
            transport=transport,
        )

    def close(self) -> None:
        self._client.close()

    def read(self, send: Callable[[], Any]) -> Any:
        """Calls ``send``, again after a pause when it was :class:`Unreachable`."""
        give_up = time.monotonic() + _READ_SECONDS
        for attempt in range(1, _READ_ATTEMPTS + 1):
            try:
                return send()
            except EdgeError as error:
                late = time.monotonic() > give_up
                if not error.retry or attempt == _READ_ATTEMPTS or late:
                    raise
                time.sleep(_BACKOFF_SECONDS * 2 ** (attempt - 1))
        raise AssertionError("unreachable")

    def call(self, method: str, path: str, **options: Any) -> tuple[int, Any]:
        """Sends one request and reads its whole JSON answer within bounds.

        Returns:
            HTTP status and parsed body.

        Raises:
            Unreachable: No connection, too slow, too large, no JSON.
            ServerFailed: HTTP 5xx.
            Untrusted: A certificate that does not hold.
            Unauthorized: HTTP 401 or 403.
            RateLimited: HTTP 429.
        """
        with self._counting:
            self.requests += 1
        seconds = 3 * options.get("timeout", self.timeout)
        give_up = time.monotonic() + seconds
        try:
            with within(seconds), self._client.stream(method, path, **options) as response:
                check_status(self.name, response.status_code, _retry_after(response))
                body = self._body(response)
        except httpx.HTTPError as error:
            if time.monotonic() >= give_up:
                raise Unreachable(f"{self.name}: the answer did not end") from None
            raise self._failed(error) from None
        try:
            return response.status_code, parse_json(body)
        except ValueError:
            raise Unreachable(
                f"{self.name}: HTTP {response.status_code} with a body that is not JSON"
            ) from None

    def _body(self, response: httpx.Response) -> bytes:
        if is_compressed(response):
            raise Unreachable(f"{self.name}: a compressed answer, which was not asked for")
        body = bytearray()
        for piece in response.iter_bytes():
            body += piece
            if len(body) > _MAX_ANSWER_BYTES:
                raise Unreachable(f"{self.name}: an answer of more than 64 MiB")
        return bytes(body)

    def _failed(self, error: httpx.HTTPError) -> Unreachable:
        cause: BaseException | None = error
        why = type(error).__name__
        while cause is not None:
            if isinstance(cause, ssl.SSLCertVerificationError):
                told = f"{self.name}: its certificate is not trusted ({cause.verify_message})"
                return Untrusted(told)
            if isinstance(cause, OSError) and cause.strerror:
                why = cause.strerror
            cause = cause.__cause__ or cause.__context__
        if isinstance(error, httpx.ConnectError | httpx.ConnectTimeout):
            place = self._client.base_url.netloc.decode()
            return Unreachable(f"{self.name}: {place} cannot be reached ({why})")
        return Unreachable(f"{self.name}: {type(error).__name__}")


class ApiClient:
    """What the clients of outside systems share: how many calls were made, and their end.

    Args:
        api: How the system is called.
    """

    def __init__(self, api: HttpApi) -> None:
        self._api = api

    @property
    def requests(self) -> int:
        return self._api.requests

    def close(self) -> None:
        self._api.close()


def check_status(name: str, status: int, retry_after: float | None = None) -> None:
    """Passes a status below 300, and a 4xx whose meaning only the caller knows.

    Raises:
        EdgeError: Any other status, as the class that says what to do.
    """
    if status in (401, 403):
        raise Unauthorized(f"{name}: HTTP {status}, the token or secret was refused")
    if status == 429:
        raise RateLimited(f"{name}: HTTP 429, too many calls", retry_after)
    if status >= 500:
        raise ServerFailed(f"{name}: HTTP {status}")
    if 300 <= status < 400:
        raise Rejected(f"{name}: HTTP {status}, a redirect where none belongs")


def parse_json(body: bytes) -> Any:
    """What a body says.

    Raises:
        ValueError: If it is not JSON.
    """
    try:
        return json.loads(body)
    except RecursionError:
        raise ValueError("nested too deeply") from None


def _retry_after(response: httpx.Response) -> float | None:
    try:
        seconds = float(response.headers.get("Retry-After", ""))
    except ValueError:
        return None
    return seconds if 0 <= seconds < math.inf else None
