"""URLs as settings have them: what they must be, and what this project makes of them."""

import re
from collections.abc import Iterator
from urllib.parse import SplitResult, parse_qsl, unquote, unquote_plus, urlsplit

LOOPBACK = frozenset({"127.0.0.1", "localhost", "::1"})
_DRIVERS = {
    "postgres://": "postgresql+psycopg2://",
    "postgresql://": "postgresql+psycopg2://",
    "mysql://": "mysql+pymysql://",
    "mariadb://": "mariadb+pymysql://",
}

# A word of a path that is no word of a language; a secret in lower case alone is too unlikely.
_TOKEN = re.compile(r"(?=.*[0-9A-Z]).{10,}")
_VERIFIED = {"ssl_cert_reqs": {"required"}, "ssl_check_hostname": {"1", "true", "yes"}}
"""What redis-py's switches of verification may say."""

_SECRET_NAME = re.compile(r"(?i)pass|pwd|secret|token|key|sig")


def check_url(value: str, *, http_anywhere: bool) -> str:
    """A web address without its last slash; ``http`` elsewhere than on loopback only if allowed.

    Raises:
        ValueError: If it is none, or must be ``https``.
    """
    url = value.strip().rstrip("/")
    parts = split_url(url)
    if parts.scheme not in ("http", "https") or not parts.hostname:
        schemes = "http:// or https://" if http_anywhere else "https://"
        raise ValueError(f"must be a URL that begins with {schemes}")
    if parts.scheme == "http" and not http_anywhere and parts.hostname not in LOOPBACK:
        raise ValueError("must be https (http is for loopback only)")
    return url


def check_redis_url(value: str) -> str:
    """The URL of a Redis, whose certificate is verified where it has one.

    Raises:
        ValueError: If it is none, or switches verification off.
    """
    url = value.strip()
    parts = split_url(url)
    if parts.scheme not in ("redis", "rediss", "unix"):
        raise ValueError("must be a URL that begins with redis://, rediss:// or unix://")
    for name, said in parse_qsl(parts.query):
        if said.lower() not in _VERIFIED.get(name, {said.lower()}):
            raise ValueError(
                f"must not have {name}={said:.20}: certificates are always verified;"
                " ssl_ca_certs=FILE names whom to trust"
            )
    return url


def split_url(url: str) -> SplitResult:
    """The parts of a URL.

    Raises:
        ValueError: If it is none, or has a space in it.
    """
    try:
        parts = urlsplit(url)
        parts.port  # noqa: B018 - reading it is what checks it
    except ValueError:
        raise ValueError("is not a URL") from None
    if any(character.isspace() for character in url):
        raise ValueError("has a space or line break in it")
    return parts


def with_driver(url: str) -> str:
    """A database URL with the driver that this project installs, where it names none."""
    for given, driver in _DRIVERS.items():
        if url.startswith(given):
            return driver + url.removeprefix(given)
    return url


def secrets_in(url: str) -> set[str]:
    """The parts of a URL that are secret alone, as they are written and as they are.

    These are the password before the host, what the query calls a password, key or the like, and
    of a web address the path, with whatever in it looks like a token.
    """
    return {
        said for part in _secret_parts(url) for said in (part, unquote(part), unquote_plus(part))
    }


def _secret_parts(url: str) -> Iterator[str]:
    parts = urlsplit(url)
    if parts.password:
        yield parts.password
    for pair in parts.query.split("&"):
        name, _, value = pair.partition("=")
        if value and _SECRET_NAME.search(name):
            yield value
    if parts.scheme in ("http", "https"):
        yield parts.path
        yield from filter(_TOKEN.fullmatch, parts.path.split("/"))
