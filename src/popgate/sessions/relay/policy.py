"""Decides for Postfix: what becomes of a recipient, of a message, of its header.

Postfix asks at each state where its restrictions name us, and sends one instance name with all
questions about a message, over one connection as long as it lasts. So a session holds what is known
of one message: the client, the sender, the grant and how many recipients it was given for.

- RCPT: the decision. Anything before it gets `dunno`: there is no envelope yet.
- DATA: the header that names the identity, where one is configured; the count with charge = "data";
  with "rcpt" a second look at the grant.
- END-OF-MESSAGE: the count with charge = "end-of-message", when the size is known at last.

A message about which nobody asked at RCPT (mail for the site's own users, an authenticated client)
is none of our business later: its answer is `dunno`, whatever the state of any grant.
A charge in RCPT counts a message once and each recipient once, also when restrictions name us twice.
"""

from typing import Final, Literal

from popgate.grants.grant import Decision, Grant, Usage
from popgate.protocols.engine import Engine
from popgate.protocols.postfix_policy import PolicyRequest, PostfixPolicyServer, action
from popgate.sessions.relay.desk import NO_ADDRESS, QuestionSession, RelayDesk, envelope_sender
from popgate.sessions.session import CloseReason, Peer
from popgate.values.address import ClientAddress
from popgate.values.value import value

MOST_RECIPIENTS: Final = 1000
"""How many recipients of a message are remembered; those beyond are counted each time they are named."""
_LONGEST_RECIPIENT: Final = 1024

PERMIT: Final = action("permit")
DUNNO: Final = action("dunno")


@value
class DelegationPolicy:
    """What a listener answers. `refusal`: dunno leaves it to the next restriction, text says what to do.
    `on_store_fault`: defer at once, or only if a later restriction would permit. `identity_header`:
    "" or the field that names the identity. `permit_authenticated`: a client that Postfix has
    authenticated needs no grant. `charge`: when a message is counted."""

    refusal: Literal["dunno", "text"] = "dunno"
    on_store_fault: Literal["defer", "defer_if_permit"] = "defer"
    identity_header: str = ""
    permit_authenticated: bool = False
    charge: Literal["rcpt", "data", "end-of-message"] = "rcpt"


class _Message:
    """What is known of the message that the questions are about."""

    __slots__ = (
        "address",
        "grant",
        "instance",
        "is_charged",
        "is_permitted",
        "recipients",
        "relayed",
        "sender",
    )

    def __init__(self, instance: str, address: ClientAddress | None, sender: str | None) -> None:
        self.instance = instance
        self.address = address
        self.sender = sender
        self.grant: Grant | None = None
        self.is_permitted = False
        self.is_charged = False
        self.relayed = 0
        self.recipients: set[str] = set()


class PostfixPolicySession(QuestionSession):
    """The deciding side of one connection of Postfix; see popgate.sessions.session.Session."""

    def __init__(self, peer: Peer, policy: DelegationPolicy, desk: RelayDesk) -> None:
        super().__init__(peer, desk)
        self._policy = policy
        self._server = PostfixPolicyServer()
        self.engine: Engine = self._server
        self._message: _Message | None = None

    def decide(self, event: object) -> bytes:
        """The answer to a PolicyRequest."""
        assert isinstance(event, PolicyRequest)
        state = event.attributes.get("protocol_state")
        if state == "RCPT":
            return self._recipient(event)
        if state == "DATA":
            return self._data(event)
        if state == "END-OF-MESSAGE":
            return self._end_of_message(event)
        return DUNNO

    def closed(self, reason: CloseReason) -> None:
        self._desk.ended(self._peer, self._server.ended_by, reason, self._server.questions)

    # RCPT

    def _recipient(self, request: PolicyRequest) -> bytes:
        attributes = request.attributes
        recipient = attributes.get("recipient", "")
        if attributes.get("sasl_username") and self._policy.permit_authenticated:
            return self._authenticated(request)
        message = self._message_of(request)
        if message.address is None:
            return self._refused(request, NO_ADDRESS)
        if message.sender is None:
            return self._refused(request, _NO_SENDER)
        if message.is_permitted and recipient in message.recipients and recipient:
            return PERMIT
        if message.is_charged and message.grant is not None:
            # decided with the first recipient, for this very client and sender
            decision = self._desk.grants.charge(message.grant, Usage(0, 1, 0), self._session)
        else:
            octets = request.number("size")
            decision = self._desk.grants.decide(
                message.address, envelope_sender(message.sender), message.relayed + 1, octets, self._session
            )
            if decision.verdict == "permit" and decision.grant is not None and self._policy.charge == "rcpt":
                usage = Usage(1, message.relayed + 1, octets)
                decision = self._desk.grants.charge(decision.grant, usage, self._session)
                message.is_charged = decision.verdict == "permit"
        if decision.verdict != "permit":
            return self._refused(request, decision)
        message.relayed += 1
        if len(recipient) <= _LONGEST_RECIPIENT and len(message.recipients) < MOST_RECIPIENTS:
            message.recipients.add(recipient)
        if not message.is_permitted:
            message.is_permitted = True
            self._tell(request, decision, each=message.is_charged)
        message.grant = decision.grant
        return PERMIT

    def _authenticated(self, request: PolicyRequest) -> bytes:
        self._message = None
        self._tell(request, _AUTHENTICATED, login=request.attributes.get("sasl_username"))
        return PERMIT

    def _message_of(self, request: PolicyRequest) -> _Message:
        """The message that the request is about, a new one where anything that matters is new."""
        attributes = request.attributes
        instance = attributes.get("instance", "")
        address = self._desk.spellings.find(attributes.get("client_address", ""))
        sender = attributes.get("sender")
        message = self._message
        if (
            message is None
            or not instance
            or message.instance != instance
            or message.address != address
            or message.sender != sender
        ):
            message = self._message = _Message(instance, address, sender)
        return message

    # Later states

    def _data(self, request: PolicyRequest) -> bytes:
        message = self._known(request)
        if message is not None and self._policy.charge != "end-of-message":
            refusal = self._charge(request, message)
            if refusal is not None:
                return refusal
        name = self._policy.identity_header
        if not name:
            return DUNNO
        grant = message.grant if message is not None else self._grant_of(request)
        if grant is None:
            return DUNNO
        return action(f"PREPEND {name}: {grant.identity} ({grant.protocol})")

    def _grant_of(self, request: PolicyRequest) -> Grant | None:
        """Whose grant would serve this message, where nobody asked at RCPT."""
        attributes = request.attributes
        address = self._desk.spellings.find(attributes.get("client_address", ""))
        sender = attributes.get("sender")
        if address is None or sender is None or attributes.get("sasl_username"):
            return None
        return self._desk.grants.decide(address, envelope_sender(sender), 1, 0, self._session).grant

    def _end_of_message(self, request: PolicyRequest) -> bytes:
        message = self._known(request)
        if message is not None and self._policy.charge == "end-of-message":
            refusal = self._charge(request, message)
            if refusal is not None:
                return refusal
        return DUNNO

    def _known(self, request: PolicyRequest) -> _Message | None:
        """The message that was permitted at RCPT, if this is it."""
        message, instance = self._message, request.attributes.get("instance")
        return message if message and message.is_permitted and instance == message.instance != "" else None

    def _charge(self, request: PolicyRequest, message: _Message) -> bytes | None:
        """Count the message, once; None where it is counted, else the refusal. One that is counted
        already is looked at again: the grant may have gone since RCPT."""
        if message.grant is None:
            return None
        usage = _NOTHING if message.is_charged else Usage(1, message.relayed, request.number("size"))
        decision = self._desk.grants.charge(message.grant, usage, self._session)
        if decision.verdict == "permit":
            if not message.is_charged:
                message.is_charged = True
                self._tell(request, decision, each=True, recipients=message.relayed)
            return None
        return self._refused(request, decision, is_accepted=True)

    # Answers

    def _refused(self, request: PolicyRequest, decision: Decision, *, is_accepted: bool = False) -> bytes:
        """`is_accepted`: its recipients were, so nobody but us can refuse it now."""
        self._tell(request, decision)
        if (
            decision.verdict == "defer"
            and self._policy.on_store_fault == "defer_if_permit"
            and not is_accepted
        ):
            return action(f"DEFER_IF_PERMIT 4.7.1 {decision.text}")
        if decision.verdict == "refuse" and self._policy.refusal == "dunno" and not is_accepted:
            return DUNNO
        return action(
            f"{_CODES.get(decision.verdict, _CODES['refuse'])} {decision.text or 'relaying denied'}"
        )

    def _tell(
        self,
        request: PolicyRequest,
        decision: Decision,
        *,
        each: bool = False,
        login: str | None = None,
        recipients: int | None = None,
    ) -> None:
        attributes = request.attributes
        address = self._desk.spellings.find(attributes.get("client_address", ""))
        tell = self._desk.tell_each if each else self._desk.tell
        tell(
            self._session,
            attributes.get("client_address", "") if address is None else address.text,
            decision,
            attributes.get("sender"),
            recipient=attributes.get("recipient") or None,
            recipients=recipients,
            login=login,
            queue_id=attributes.get("queue_id") or None,
        )


_NOTHING: Final = Usage()
_AUTHENTICATED: Final = Decision("permit", "auth", "", None)
_NO_SENDER: Final = Decision("refuse", "malformed", "relaying denied: the sender is not known", None)
_CODES: Final = {"refuse": "550 5.7.1", "quota": "452 4.7.1", "defer": "451 4.7.1"}
