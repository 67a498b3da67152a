"""`GET /v1/decide`: may this address relay, and as whom, for programs that have no hook of their own;
`POST /v1/charge`: the same, for a message that is now accepted and counts for its quota.

200 with the verdict where there is one, 503 where the grants cannot be read: whoever only looks at
the status still relays nothing by mistake, because an error is never a permit.
"""

from collections.abc import Sequence
from typing import Final

from popgate.grants import rules
from popgate.grants.grant import Decision, Usage
from popgate.grants.settings import GrantSettings
from popgate.protocols.envelope import EnvelopeError, read_address
from popgate.protocols.http.documents import DocumentError, read_query
from popgate.protocols.http.messages import Request, Response, json_response
from popgate.sessions.http.session import Refused, Route
from popgate.sessions.relay import RelayDesk
from popgate.values.address import AddressError, ClientAddress
from popgate.values.mail import MailAddress
from popgate.values.value import value

DECIDE_PATH: Final = "/v1/decide"
CHARGE_PATH: Final = "/v1/charge"
_PARAMETERS = ("address", "sender", "recipient", "size")
_MAX_SIZE_DIGITS = 12


@value
class _Question:
    """What was asked. `sender`: as it was written; None: no sender is compared."""

    address: ClientAddress
    sender: str | None
    reverse_path: MailAddress | None
    recipients: Sequence[MailAddress]
    octets: int


class DecideRequests:
    """The handler."""

    def __init__(self, desk: RelayDesk, settings: GrantSettings) -> None:
        self._desk = desk
        self._settings = settings

    @property
    def routes(self) -> tuple[Route, ...]:
        return (
            Route(DECIDE_PATH, "GET", self.decide),
            Route(CHARGE_PATH, "POST", self.charge),
        )

    def decide(self, request: Request, session: str) -> Response:
        """Raises Refused for parameters that cannot be read."""
        question, grants = _read(request), self._desk.grants
        if question.sender is None:
            decision = grants.right(question.address, session)
        else:
            decision = self._decide(question, session)
        recipient = str(question.recipients[0]) if question.recipients else None
        self._desk.tell(session, question.address.text, decision, question.sender, recipient=recipient)
        return self._response(decision, question.address)

    def charge(self, request: Request, session: str) -> Response:
        """Decide, and count the message where it is permitted. Raises Refused."""
        question = _read(request)
        if question.sender is None or not question.recipients:
            raise Refused(400, "parameter", "a message has a sender and a recipient")
        decision = self._decide(question, session)
        if decision.verdict == "permit" and decision.grant is not None:
            usage = Usage(1, len(question.recipients), question.octets)
            decision = self._desk.grants.charge(decision.grant, usage, session)
        self._desk.tell_each(
            session,
            question.address.text,
            decision,
            question.sender,
            recipients=len(question.recipients),
        )
        return self._response(decision, question.address)

    def _decide(self, question: _Question, session: str) -> Decision:
        recipients = max(1, len(question.recipients))
        return self._desk.grants.decide(
            question.address, question.reverse_path, recipients, question.octets, session
        )

    def _response(self, decision: Decision, address: ClientAddress) -> Response:
        headers = [("Cache-Control", "no-store")]
        if decision.verdict == "defer":
            return json_response(503, self._document(decision, address), [*headers, ("Retry-After", "10")])
        return json_response(200, self._document(decision, address), headers)

    def _document(self, decision: Decision, address: ClientAddress) -> dict[str, object]:
        grant = decision.grant if decision.verdict == "permit" else None
        is_named = grant is not None and grant.identity != rules.ANONYMOUS
        return {
            "verdict": decision.verdict,
            "reason": decision.reason,
            "text": decision.text,
            "address": address.text,
            "identity": str(grant.identity) if grant is not None and is_named else None,
            "protocol": grant.protocol if grant is not None else None,
            "login_at": grant.login_at if grant is not None else None,
            "ends_at": rules.ends_at(grant, self._settings) if grant is not None else None,
        }


def _read(request: Request) -> _Question:
    try:
        parameters = read_query(request.query, _PARAMETERS)
        sender = _once(parameters, "sender")
        return _Question(
            ClientAddress.parse(_once(parameters, "address") or ""),
            sender,
            read_address(sender) if sender else None,
            [read_address(text) for text in parameters.get("recipient", ())],
            _size(_once(parameters, "size")),
        )
    except (DocumentError, AddressError, EnvelopeError) as error:
        raise Refused(400, "parameter", str(error)) from None


def _once(parameters: dict[str, list[str]], name: str) -> str | None:
    values = parameters.get(name, [])
    if len(values) > 1:
        raise DocumentError(f"{name} stands there twice")
    return values[0] if values else None


def _size(text: str | None) -> int:
    if text is None:
        return 0
    if not (text.isascii() and text.isdigit()) or len(text) > _MAX_SIZE_DIGITS:
        raise DocumentError("size is a number of octets")
    return int(text)
