"""Whom an SMTP session asks."""

from typing import Protocol

from popgate.auth.authenticator import Authenticator, RecipientTable
from popgate.grants.grant import Decision, Grant, Usage
from popgate.queue.queue import Intake
from popgate.sessions.session import UserSessions
from popgate.values.address import ClientAddress
from popgate.values.mail import MailAddress
from popgate.values.value import value


class RelayGrants(Protocol):
    """The side of the grants that a relaying server sees."""

    def decide(
        self, address: ClientAddress, sender: MailAddress | None, recipients: int, octets: int, session: str
    ) -> Decision:
        """May this address relay this envelope? Counts nothing."""
        ...

    def charge(self, grant: Grant, usage: Usage, session: str) -> Decision:
        """Count a message about to be accepted, if the quota allows it."""
        ...

    def refund(self, grant: Grant, usage: Usage) -> None:
        """The message was not accepted after all."""
        ...


class Throttle(Protocol):
    """How long logins must wait in seconds, after failures counted over all sessions."""

    def wait_before_seconds(self, client: ClientAddress, name: str) -> float:
        """Before the proof is looked at; only after many failures."""
        ...

    def delay_seconds(self, client: ClientAddress, name: str) -> float:
        """Before a failure is told."""
        ...

    def failed(self, client: ClientAddress, name: str) -> None: ...

    def succeeded(self, client: ClientAddress, name: str) -> None: ...


@value
class SmtpServices:
    """Everything shared by the sessions of a server. `local_domains` are in lower case."""

    authenticator: Authenticator
    recipients: RecipientTable
    grants: RelayGrants
    intake: Intake
    throttle: Throttle
    local_domains: frozenset[str]
    users: UserSessions
