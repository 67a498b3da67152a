"""One HTTP connection: lets in who may ask, finds the handler, tells of what was refused.

A handler takes a request and the session's name and gives the response at once; it refuses by
raising Refused. What the requests are about is the handlers' knowledge, not this module's.
"""

from collections.abc import Callable, Sequence
from email.utils import formatdate
from typing import cast

from popgate.protocols.http.messages import Request, Response, problem
from popgate.protocols.http.server import HttpServer
from popgate.sessions.http import access
from popgate.sessions.http.refusals import Refusals
from popgate.sessions.session import CloseReason, Peer, Runtime
from popgate.values.value import value

Handler = Callable[[Request, str], Response]


class Refused(Exception):
    """A handler refuses: `status` and the text go to the client, `reason` (a constant) and the text
    to the log."""

    def __init__(self, status: int, reason: str, text: str) -> None:
        super().__init__(text)
        self.status = status
        self.reason = reason
        self.text = text


@value
class Route:
    """A path as it stands in the target, the one method for it, and who answers. `takes_json`: the
    body must say that it is JSON, which no form of a page can."""

    path: str
    method: str
    handler: Handler
    takes_json: bool = False


@value
class HttpPolicy:
    """`secret`: what who asks must know; None: whoever can connect may ask. `errors`: refused requests
    after which the connection is closed."""

    hostname: str
    secret: bytes | None
    errors: int = 20


class HttpSession:
    """The deciding side of one HTTP connection; see popgate.sessions.session.Session."""

    def __init__(
        self,
        peer: Peer,
        policy: HttpPolicy,
        runtime: Runtime,
        routes: Sequence[Route],
        refusals: Refusals,
    ) -> None:
        self._peer = peer
        self._policy = policy
        self._refusals = refusals
        self._runtime = runtime
        self._routes = routes
        self._errors = 0
        self.tick_seconds = 0.0
        self.engine = HttpServer()

    def decide(self, event: object) -> Response:
        """The response to a request."""
        request = cast(Request, event)
        date = ("Date", formatdate(self._runtime.clock.now(), usegmt=True))  # RFC 9110 6.6.1
        try:
            response = self._answer(request)
        except Refused as refusal:
            response = self._refuse(refusal)
        return Response(response.status, response.body, (*response.headers, date), response.closes)

    def _answer(self, request: Request) -> Response:
        self._admit(request)
        routes = [route for route in self._routes if route.path == request.path]
        if not routes:
            raise Refused(404, "path", "there is nothing here")
        route = next((route for route in routes if route.method == request.method), None)
        if route is None:
            raise Refused(405, "method", f"{' or '.join(route.method for route in routes)} is asked for here")
        if route.takes_json and not _is_json(request):
            raise Refused(415, "media-type", "Content-Type: application/json is asked for here")
        return route.handler(request, self._peer.session)

    def _admit(self, request: Request) -> None:
        if access.is_from_browser(request):
            raise Refused(403, "browser", "no page of a browser may ask here")
        secret = self._policy.secret
        if secret is not None:
            if not access.knows_secret(request, secret):
                raise Refused(401, "secret", "the secret is missing or wrong")
        elif not access.is_for_us(request.host, self._policy.hostname):
            raise Refused(421, "host", "the Host names another server")

    def _refuse(self, refusal: Refused) -> Response:
        self._errors += 1
        self._refusals.tell(self._peer, refusal.reason, refusal.status, refusal.text)
        headers = []
        if refusal.status == 401:
            headers.append(("WWW-Authenticate", 'Bearer realm="popgate"'))  # RFC 9110 15.5.2
        elif refusal.status == 405:
            headers.append(("Allow", refusal.text.partition(" is ")[0].replace(" or ", ", ")))
        return problem(
            refusal.status,
            refusal.text,
            headers,
            closes=refusal.status in (401, 403, 421) or self._errors >= self._policy.errors,
        )

    def tls_started(self, version: str, cipher: str) -> None:
        """Nothing of a session hangs on TLS."""

    def tick(self) -> None:
        """Nothing is renewed here."""

    def timeout_reply(self) -> Response:
        return problem(408, "the request did not come in time", closes=True)

    def shutdown_reply(self) -> Response:
        return problem(503, "the server is stopping", (("Retry-After", "1"),), closes=True)

    def closed(self, reason: CloseReason) -> None:
        """Tell of what the engine could not read; that a connection ends is no event."""
        if self.engine.ended_by not in ("", "quit", "eof", "shutdown"):
            self._refusals.tell(self._peer, self.engine.ended_by, None)


def _is_json(request: Request) -> bool:
    media_type = (request.header("content-type") or "").partition(";")[0]
    return media_type.strip().lower() == "application/json"
