"""What whoson commands do: a login gives a grant, a logout ends its session, a query asks for one.

whoson knows one user an address, and no sessions: a later login takes the place of the one before.
So a logout speaks of whoever logged in last there, and only if that was by whoson too: it must not
end what a POP3 session of ours or another way has given.
"""

from collections.abc import Callable
from typing import Final, Protocol

from popgate.auth.names import login_identity
from popgate.grants import rules
from popgate.grants.grant import Decision, Terms
from popgate.protocols.whoson import Command, WhosonServer, failure, negative, positive
from popgate.sessions.relay import RelayDesk
from popgate.sessions.session import CloseReason, Peer
from popgate.values.address import AddressError, ClientAddress
from popgate.values.identity import Identity

PROTOCOL: Final = "whoson"
_TRUSTED = "trusted"


class WhosonGrants(Protocol):
    """The grants as whoson sees them; nothing here raises."""

    def allow(
        self, address: ClientAddress, identity: Identity, protocol: str, terms: Terms, session: str
    ) -> bool: ...

    def logout(self, address: ClientAddress, identity: Identity, session: str) -> None: ...

    def right(self, address: ClientAddress, session: str) -> Decision: ...


class WhosonDesk:
    """Answers the commands of one listener. `terms`: what a login of an identity is good for."""

    def __init__(
        self,
        grants: WhosonGrants,
        relay: RelayDesk,
        terms: Callable[[Identity], Terms],
        default_domain: str,
    ) -> None:
        self._grants = grants
        self.relay = relay
        self._terms = terms
        self._default_domain = default_domain

    def answer(self, command: Command, session: str) -> bytes:
        """Never raises."""
        try:
            address = ClientAddress.parse(command.address)
        except AddressError:
            return failure("that is no address")
        if command.verb == "LOGIN":
            return self._login(address, command.user, session)
        if command.verb == "LOGOUT":
            return self._logout(address, session)
        return self._query(address, session)

    def _login(self, address: ClientAddress, user: str, session: str) -> bytes:
        identity = login_identity(user, self._default_domain)
        if identity is None:
            return failure("that is no user's name")
        if self._grants.allow(address, identity, PROTOCOL, self._terms(identity), session):
            return positive("LOGIN OK")
        return failure("LOGIN gave no right")

    def _logout(self, address: ClientAddress, session: str) -> bytes:
        grant = self._grants.right(address, session).grant
        if grant is None or grant.protocol != PROTOCOL:
            return positive("LOGOUT no such record, nothing done")
        self._grants.logout(address, grant.identity, session)
        return positive("LOGOUT OK")

    def _query(self, address: ClientAddress, session: str) -> bytes:
        decision = self._grants.right(address, session)
        if decision.reason != "no-grant":  # servers ask about every client, and most are strangers
            self.relay.tell(session, address.text, decision)
        if decision.verdict == "permit":
            grant = decision.grant
            is_named = grant is not None and grant.identity != rules.ANONYMOUS
            return positive(str(grant.identity) if grant is not None and is_named else _TRUSTED)
        if decision.verdict == "refuse":
            return negative("Not logged in")
        return failure(decision.text)


class WhosonSession:
    """The deciding side of one connection; see popgate.sessions.session.Session."""

    tick_seconds = 0.0

    def __init__(self, peer: Peer, desk: WhosonDesk) -> None:
        self._peer = peer
        self._desk = desk
        self.engine = WhosonServer()

    def decide(self, event: object) -> bytes:
        """The answer to a Command."""
        assert isinstance(event, Command)
        return self._desk.answer(event, self._peer.session)

    def tls_started(self, version: str, cipher: str) -> None:
        """Its listeners have no TLS."""

    def tick(self) -> None:
        """Nobody says how long a session of whoson is open; its logins are repeated."""

    def timeout_reply(self) -> object:
        return None

    def shutdown_reply(self) -> object:
        return None

    def closed(self, reason: CloseReason) -> None:
        self._desk.relay.ended(self._peer, self.engine.ended_by, reason, self.engine.questions)
