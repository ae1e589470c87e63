"""How the sandbox's own API answers."""

from starlette.responses import Response

from zlh_dagster.sandbox.exchange import Answer


def json_answer(value: object) -> Response:
    """A value as JSON."""
    return Response(Answer(body=value).encoded(), media_type="application/json")


def error_answer(message: str) -> Response:
    """What was wrong with a call."""
    body = Answer(body={"error": message}).encoded()
    return Response(body, status_code=400, media_type="application/json")
