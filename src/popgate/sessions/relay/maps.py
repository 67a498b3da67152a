"""Decides for servers that look a client up in a map: is it there, or not?

The map `popgate` (and the nameless one of tcp_table) has the addresses that may relay now. A look-up
knows no sender and counts nothing, so any live grant with quota left serves. Servers also look up
host names, networks and whatever else their rules have: what is no address is not found.

The map `senders` of a socketmap has the envelope senders that belong to somebody, and to whom, for
Postfix's smtpd_sender_login_maps. It says nothing about relaying.
"""

from typing import Final, Protocol

from popgate.protocols import socketmap, tcp_table
from popgate.protocols.engine import Engine
from popgate.protocols.questions import QuestionServer
from popgate.protocols.socketmap import LookUp
from popgate.sessions.relay.desk import QuestionSession, RelayDesk
from popgate.sessions.session import CloseReason, Peer
from popgate.values.value import value

CLIENTS: Final = "popgate"
SENDERS: Final = "senders"


class SenderOwners(Protocol):
    """Who may use an envelope sender."""

    def owners(self, sender: str) -> list[str] | None:
        """The login names to which `sender` belongs, none where it is nobody's; None when that cannot be
        said now. Never raises."""
        ...


@value
class MapPolicy:
    """`found`: what a client that may relay is found with; a word of access(5)."""

    found: str = "RELAY"


class _Words(Protocol):
    """How a protocol says it; the modules of the engines have these."""

    def found(self, data: str) -> bytes: ...

    def not_found(self) -> bytes: ...

    def temporary(self, reason: str) -> bytes: ...


class _MapSession(QuestionSession):
    """The deciding side of one connection; see popgate.sessions.session.Session."""

    def __init__(
        self, peer: Peer, policy: MapPolicy, desk: RelayDesk, server: QuestionServer, words: _Words
    ) -> None:
        super().__init__(peer, desk)
        self._server = server
        self.engine: Engine = server
        self._words = words
        self._found = words.found(policy.found)
        self._not_found = words.not_found()

    def closed(self, reason: CloseReason) -> None:
        self._desk.ended(self._peer, self._server.ended_by, reason, self._server.questions)

    def _client(self, key: str) -> bytes:
        desk = self._desk
        address = desk.spellings.find(key)
        if address is None:
            return self._not_found
        decision = desk.grants.right(address, self._session)
        if decision.verdict == "permit":
            desk.tell(self._session, address.text, decision)
            return self._found
        if decision.reason != "no-grant":  # servers look up every client, and most are strangers
            desk.tell(self._session, address.text, decision)
        if decision.verdict == "refuse":
            return self._not_found
        return self._words.temporary(decision.text)


class TcpTableSession(_MapSession):
    """One connection of tcp_table."""

    def __init__(self, peer: Peer, policy: MapPolicy, desk: RelayDesk) -> None:
        super().__init__(peer, policy, desk, tcp_table.TcpTableServer(), tcp_table)

    def decide(self, event: object) -> bytes:
        assert isinstance(event, LookUp)
        return self._client(event.key)


class SocketmapSession(_MapSession):
    """One connection of a socketmap."""

    def __init__(self, peer: Peer, policy: MapPolicy, desk: RelayDesk, owners: SenderOwners) -> None:
        super().__init__(peer, policy, desk, socketmap.SocketmapServer(), socketmap)
        self._owners = owners

    def decide(self, event: object) -> bytes:
        assert isinstance(event, LookUp)
        if event.name == CLIENTS:
            return self._client(event.key)
        if event.name == SENDERS:
            owners = self._owners.owners(event.key)
            if owners is None:
                return self._words.temporary("the accounts cannot be read now")
            return self._words.found(",".join(owners)) if owners else self._not_found
        # not "no such key": with a mistyped name a server would refuse for good what it should not
        return self._words.temporary(f"the maps here are {CLIENTS} and {SENDERS}")
