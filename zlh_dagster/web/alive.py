"""Whether the web server answers."""

import httpx

ANSWER_SECONDS = 10.0


def serves_web(host: str, port: int) -> bool:
    """Whether it does, whatever it says.

    Args:
        host: Address that it listens on.
        port: The same.
    """
    address = f"[{host}]" if ":" in host else host
    try:
        httpx.get(f"http://{address}:{port}/server_info", timeout=ANSWER_SECONDS, trust_env=False)
    except httpx.HTTPError:
        return False
    return True
