"""Decides for any other program, by the line protocol of popgate.protocols.relay_line."""

from popgate.grants.grant import Decision, Usage
from popgate.protocols.engine import Engine
from popgate.protocols.relay_line import DEFER, NO, YES, LineQuestion, RelayLineServer, yes_as
from popgate.sessions.relay.desk import NO_ADDRESS, QuestionSession, RelayDesk, envelope_sender
from popgate.sessions.session import CloseReason, Peer
from popgate.values.value import value


@value
class LinePolicy:
    """`line_end`: each answer ends in LF; without, the connection is closed behind the first one."""

    line_end: bool = True


class RelayLineSession(QuestionSession):
    """The deciding side of one connection; see popgate.sessions.session.Session."""

    def __init__(self, peer: Peer, policy: LinePolicy, desk: RelayDesk) -> None:
        super().__init__(peer, desk)
        self._server = RelayLineServer(line_end=policy.line_end)
        self.engine: Engine = self._server

    def decide(self, event: object) -> bytes:
        """The answer to a LineQuestion."""
        assert isinstance(event, LineQuestion)
        decision = self._decision(event)
        if decision.verdict == "permit":
            if event.verb == "identity" and decision.grant is not None:
                return yes_as(str(decision.grant.identity))
            return YES
        return NO if decision.verdict == "refuse" else DEFER

    def closed(self, reason: CloseReason) -> None:
        self._desk.ended(self._peer, self._server.ended_by, reason, self._server.questions)

    def _decision(self, question: LineQuestion) -> Decision:
        desk, fields = self._desk, question.fields
        address = desk.spellings.find(fields[0])
        sender = fields[1] if len(fields) > 1 else None
        recipient = fields[2] if question.verb == "relay" and len(fields) > 2 else None
        if address is None:
            decision = NO_ADDRESS
        elif sender is None:
            decision = desk.grants.right(address, self._session)
        elif question.verb == "charge":
            return self._charge(question)
        else:
            decision = desk.grants.decide(address, envelope_sender(sender), 1, 0, self._session)
        if question.verb != "identity":
            client = fields[0][:64] if address is None else address.text
            desk.tell(self._session, client, decision, sender, recipient=recipient)
        return decision

    def _charge(self, question: LineQuestion) -> Decision:
        desk = self._desk
        client, sender, recipients, octets = question.fields
        address, counts = desk.spellings.find(client), (_count(recipients), _count(octets))
        if address is None or counts[0] is None or counts[1] is None or counts[0] < 1:
            return _UNCOUNTABLE
        usage = Usage(1, counts[0], counts[1])
        decision = desk.grants.decide(
            address, envelope_sender(sender), usage.recipients, usage.bytes, self._session
        )
        if decision.verdict == "permit" and decision.grant is not None:
            decision = desk.grants.charge(decision.grant, usage, self._session)
        desk.tell_each(self._session, address.text, decision, sender, recipients=usage.recipients)
        return decision


def _count(text: str) -> int | None:
    return int(text) if text.isascii() and text.isdigit() and len(text) <= 15 else None


_UNCOUNTABLE = Decision("refuse", "malformed", "", None)
