"""The interface of mailbox back ends.

Bodies cross it with CRLF line ends; how they lie on disk is the back end's business.
All calls may block on the disk: callers run them in a thread where that matters.
"""

from collections.abc import Iterable, Iterator, Sequence
from typing import Protocol

from popgate.values.identity import Identity
from popgate.values.value import value


class MailboxError(Exception):
    """The mailbox cannot be used now; the text is for the log, never for the peer."""

    is_full = False
    """For whoever delivers and must not know this package: there is no room."""


class MailboxInUse(MailboxError):
    """Another POP3 session holds the maildrop (-ERR [IN-USE])."""


class MailboxFull(MailboxError):
    """No space or over quota (452 4.2.2)."""

    is_full = True


@value
class Message:
    """`uid`: 1 to 70 characters 0x21-0x7E, never used for another message (RFC 1939 UIDL).
    `octets`: its size on the wire, CRLF line ends counted, before dot-stuffing."""

    uid: str
    octets: int


class Maildrop(Protocol):
    """One user's INBOX, locked for one POP3 session. Message numbers here start at 0."""

    messages: Sequence[Message]

    def read(self, index: int, body_lines: int | None = None) -> Iterator[bytes]:
        """The message in blocks of up to 64 KiB, CRLF line ends, no dot-stuffing, ends with CRLF.

        With `body_lines` the header, the empty line and that many lines of the body (TOP).
        Raises MailboxError when the message has vanished or is no longer a regular file.
        """
        ...

    def remove(self, indexes: Iterable[int]) -> Sequence[int]:
        """Delete for good; returns the indexes that could not be deleted."""
        ...

    def mark_seen(self, indexes: Iterable[int]) -> None:
        """Move messages from new to cur with the S flag, as far as possible."""
        ...

    def close(self) -> None:
        """Release the lock. Safe to call twice."""
        ...


class Mailboxes(Protocol):
    """All mailboxes of the site."""

    def open_maildrop(self, identity: Identity) -> Maildrop:
        """Lock and list the INBOX, making it first where it does not exist.

        Raises MailboxInUse or MailboxError.
        """
        ...

    def deliver(self, identity: Identity, body: Iterable[bytes]) -> str:
        """Store one message (CRLF blocks of any size) in the INBOX; durable when it returns.

        Returns the unique name given. Raises MailboxFull or MailboxError; then nothing
        is visible in the mailbox.
        """
        ...
