"""Requests as the engine gives them, and responses as it takes them."""

import json
from collections.abc import Mapping, Sequence

from popgate.values.value import value


@value
class Request:
    """One whole request.

    `path` and `query` as they stood in the target, percent signs and all; `host` is what the client
    called us ("" where HTTP/1.0 says nothing). Header names are lower-case; values are latin-1 text.
    """

    method: str
    path: str
    query: str
    host: str
    headers: Sequence[tuple[str, str]]
    body: bytes

    def header(self, name: str) -> str | None:
        """The value of a header, None where it is missing. One that stands there twice has its values
        joined by commas (RFC 9110 5.3), which no credential or media type survives."""
        values = [content for each, content in self.headers if each == name]
        return ", ".join(values) if values else None


@value
class Response:
    """`headers` beside those of framing, which the engine adds. `closes`: no further request is read."""

    status: int
    body: bytes = b""
    headers: Sequence[tuple[str, str]] = ()
    closes: bool = False


def json_response(
    status: int,
    document: Mapping[str, object],
    headers: Sequence[tuple[str, str]] = (),
    *,
    closes: bool = False,
) -> Response:
    """`document` as the body, on one line."""
    body = json.dumps(document, separators=(",", ":")).encode("ascii") + b"\n"
    return Response(status, body, (("Content-Type", "application/json"), *headers), closes)


def problem(
    status: int, error: str, headers: Sequence[tuple[str, str]] = (), *, closes: bool = False
) -> Response:
    """A refusal: `error` says in words what is wrong with the request."""
    return json_response(status, {"error": error}, headers, closes=closes)
