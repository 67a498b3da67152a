"""What Dovecot tells of logins, turned into grants.

Both of its ways to tell (auth policy reports and exported events) end here, so that the rules stand
once: only POP3 and IMAP count, because SMTP AUTH through Dovecot is told of too and must not let an
address relay without it; a master user who looks into somebody's mailbox is not that somebody.
"""

import base64
import binascii
from typing import Final, Literal

from popgate.auth.names import login_identity
from popgate.integrations.open_sessions import OpenSessions, SessionGrants
from popgate.values.address import AddressError, ClientAddress
from popgate.values.identity import Identity

PROTOCOLS: Final = frozenset(("pop3", "imap"))
_SESSION_CHARACTERS = frozenset("ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/=:._-")
_LONGEST_SESSION = 100

Told = Literal["granted", "refused", "late", "passed-over"]


class LoginError(ValueError):
    """A login that names no client or nobody; the text says what is wrong."""


class DovecotLogins:
    """`tells_ends`: this site's Dovecot tells when sessions end, so a grant lasts as long as one is
    open. `default_domain`: of users whom Dovecot knows without one."""

    def __init__(
        self, grants: SessionGrants, sessions: OpenSessions, default_domain: str, *, tells_ends: bool
    ) -> None:
        self._grants = grants
        self._sessions = sessions
        self._default_domain = default_domain
        self._tells_ends = tells_ends

    def login(self, protocol: str, remote: str | None, user: str | None, session: str | None) -> Told:
        """A login that succeeded. Raises LoginError."""
        if protocol not in PROTOCOLS:
            return "passed-over"
        address, identity = read_address(remote), self._identity(user)
        key = session_key(session)
        if key is None or not self._tells_ends:
            return self._sessions.login(address, identity, protocol, None, session=key or "")
        return self._sessions.login(address, identity, protocol, key)

    def active(self, remote: str | None, user: str | None, session: str | None) -> None:
        """A session is still in use. Raises LoginError."""
        identity = login_identity(user or "", self._default_domain)
        if identity is not None:  # else it has no grant
            self._grants.renew(read_address(remote), identity, session_key(session) or "")

    def resume(self, remote: str | None, user: str | None, session: str | None) -> None:
        """A session of IMAP wakes from hibernation, which was told as its end. Raises LoginError."""
        identity, key = login_identity(user or "", self._default_domain), session_key(session)
        if identity is not None and key is not None and self._tells_ends:
            self._sessions.resume(read_address(remote), identity, "imap", key)

    def end(self, remote: str | None, user: str | None, session: str | None) -> None:
        """A session has ended; perhaps one of a delivery, which nobody logged in for. Raises LoginError."""
        key = session_key(session)
        identity = login_identity(user or "", self._default_domain)
        if identity is None or not self._tells_ends:
            return  # without the number of those that are open, the end of one says nothing
        address = read_address(remote) if remote else None
        if self._sessions.logout(key, address, identity) is None and address is None:
            # it began before we listened; a known one needs no such guess
            self._sessions.logout(key, address_in(key or ""), identity)

    def _identity(self, user: str | None) -> Identity:
        identity = login_identity(user or "", self._default_domain)
        if identity is None:
            raise LoginError("the user's name is missing, or none that popgate takes")
        return identity


def read_address(text: str | None) -> ClientAddress:
    """Raises LoginError."""
    if not text:
        raise LoginError("the client's address is missing")
    try:
        return ClientAddress.parse(text)
    except AddressError as error:
        raise LoginError(str(error)) from None


def session_key(session: str | None) -> str | None:
    """Dovecot's id of a session, None where it is none."""
    if session and len(session) <= _LONGEST_SESSION and _SESSION_CHARACTERS.issuperset(session):
        return session
    return None


def address_in(session: str) -> ClientAddress | None:
    """The client's address as Dovecot makes it the end of a session's id: base64 of six octets of time,
    two of the port, then the address. Its event for the end of a POP3 session says it nowhere else."""
    try:
        octets = base64.b64decode(session, validate=True)
    except (binascii.Error, ValueError):
        return None
    return ClientAddress(octets[8:]) if len(octets) in (12, 24) else None
