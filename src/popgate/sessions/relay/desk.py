"""Where the questions of other mail servers are decided and told, one desk a listener and process.

Every question comes down to the grants' `decide`, `right` and `charge`; nothing here adds a right.
What is told is one `relay.decide` a thing that happened, and not one a question: a server may ask
some ten thousand times a second, and a client that is refused tries again. So the same answer to
the same client is told once in ten seconds, with the number of times it was given since; what is
counted on a grant is told each time.
"""

from typing import Final, Protocol

from popgate.grants.grant import Decision, Grant, Usage
from popgate.sessions.session import CloseReason, Peer, Runtime
from popgate.values.address import ClientAddress
from popgate.values.event import Event
from popgate.values.mail import MailAddress
from popgate.values.spelling import Spellings

TOLD_AGAIN_SECONDS: Final = 10.0
_TOLD_AT_MOST: Final = 4096
_MOST_TEXT: Final = 320  # characters of a sender; RFC 5321 4.5.3.1 allows so many

NO_ADDRESS: Final = Decision("refuse", "no-address", "relaying denied: the client has no address", None)


class RelayGrants(Protocol):
    """The side of the grants that other servers' questions see; nothing here raises."""

    def decide(
        self, address: ClientAddress, sender: MailAddress | None, recipients: int, octets: int, session: str
    ) -> Decision: ...

    def right(self, address: ClientAddress, session: str) -> Decision: ...

    def charge(self, grant: Grant, usage: Usage, session: str) -> Decision: ...


class _Told:
    """When an answer was last told, and how often it was given since."""

    __slots__ = ("at", "times")

    def __init__(self, at: float) -> None:
        self.at = at
        self.times = 0


class RelayDesk:
    """`spellings` and `grants` for all sessions of a listener, and the events about both."""

    __slots__ = ("_runtime", "_service", "_told", "grants", "spellings")

    def __init__(self, service: str, grants: RelayGrants, runtime: Runtime) -> None:
        self.grants = grants
        self.spellings = Spellings()
        self._service = service
        self._runtime = runtime
        self._told: dict[tuple[object, ...], _Told] = {}

    def tell(
        self,
        session: str,
        client: str,
        decision: Decision,
        sender: str | None = None,
        **more: str | int | None,
    ) -> None:
        """An event about the decision, unless the same was told a moment ago."""
        grant = decision.grant
        if grant is None:
            key: tuple[str | None, ...] = (client, decision.reason, sender and sender[:_MOST_TEXT])
        else:
            identity = grant.identity
            key = (client, decision.reason, sender and sender[:_MOST_TEXT], identity.user, identity.domain)
        now = self._runtime.clock.monotonic()
        told = self._told.get(key)
        if told is None:
            if len(self._told) >= _TOLD_AT_MOST:
                self._told.clear()
            self._told[key] = _Told(now)
            self.tell_each(session, client, decision, sender, **more)
        elif now - told.at < TOLD_AGAIN_SECONDS:
            told.times += 1
        else:
            times, told.at, told.times = told.times + 1, now, 0
            self.tell_each(session, client, decision, sender, times=times if times > 1 else None, **more)

    def tell_each(
        self,
        session: str,
        client: str,
        decision: Decision,
        sender: str | None = None,
        **more: str | int | None,
    ) -> None:
        """An event about the decision."""
        grant = decision.grant
        fields: dict[str, str | int | float | None] = {
            "session": session,
            "service": self._service,
            "client": client,
            "identity": None if grant is None else str(grant.identity),
            "verdict": decision.verdict,
            "reason": decision.reason,
            "sender": sender,
            **more,
        }
        self._runtime.emit(Event("relay.decide", self._runtime.clock.now(), fields))

    def ended(self, peer: Peer, ended_by: str, reason: CloseReason, questions: int) -> None:
        """A connection is gone. Only what went wrong is told: askers come and go all the time."""
        if reason != "quit" or ended_by in ("", "quit"):
            return
        fields: dict[str, str | int | float | None] = {
            "session": peer.session,
            "service": self._service,
            "client": peer.client.text,
            "reason": ended_by,
            "questions": questions,
        }
        self._runtime.emit(Event("relay.unreadable", self._runtime.clock.now(), fields))


class QuestionSession:
    """What the sessions of all these protocols have in common."""

    tick_seconds: float = 0

    def __init__(self, peer: Peer, desk: RelayDesk) -> None:
        self._peer = peer
        self._session = peer.session
        self._desk = desk

    def tls_started(self, version: str, cipher: str) -> None:
        pass  # their listeners have no TLS

    def tick(self) -> None:
        pass  # grants are renewed by mail sessions only

    def timeout_reply(self) -> object:
        return None

    def shutdown_reply(self) -> object:
        return None


def envelope_sender(text: str) -> MailAddress | None:
    """The address that other servers name without quotes and brackets; "" and <> are the null sender."""
    if text in ("", "<>"):
        return None
    local, at, domain = text.rpartition("@")
    # lower() makes ASCII of some other letters
    return MailAddress(local, domain.lower() if domain.isascii() else domain) if at else MailAddress(text, "")
