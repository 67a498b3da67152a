"""POP3 replies: made once and shared."""

from collections.abc import Iterator, Sequence
from typing import Protocol

from popgate.values.value import value


class Entry(Protocol):
    """One message of a maildrop as the engine sees it: 1 to 70 characters 0x21-0x7E that stand
    for no other message, and its size on the wire before dot-stuffing."""

    @property
    def uid(self) -> str: ...

    @property
    def octets(self) -> int: ...


@value
class Reply:
    """`wire`: the status line with its CRLF, or b"" to say nothing (only together with `closes`).

    `messages`: the maildrop, with a positive answer to Authenticate. `source`: the message
    in blocks with CRLF line ends and no dot-stuffing, with a positive answer to Retrieve.
    """

    wire: bytes
    closes: bool = False
    messages: Sequence[Entry] = ()
    source: Iterator[bytes] | None = None

    @property
    def is_ok(self) -> bool:
        return self.wire.startswith(b"+OK")


# Not command by command: RFC 3206 and RFC 2449 8 give the codes in brackets.
LOGGED_IN = b"+OK Logged in.\r\n"
START_TLS = Reply(b"+OK Begin TLS negotiation.\r\n")
NO_TLS = Reply(b"-ERR [SYS/TEMP] TLS is not available now.\r\n")
BYE = Reply(b"+OK Goodbye.\r\n", closes=True)
NOT_ALL_REMOVED = Reply(b"-ERR [SYS/TEMP] Some deleted messages could not be removed.\r\n", closes=True)
DENIED = Reply(b"-ERR [AUTH] Authentication failed.\r\n")
DENIED_FOR_GOOD = Reply(b"-ERR [AUTH] Authentication failed too often.\r\n", closes=True)
LOGIN_UNAVAILABLE = Reply(b"-ERR [SYS/TEMP] Logins cannot be checked now, try again later.\r\n")
IN_USE = Reply(b"-ERR [IN-USE] Another session has this maildrop open.\r\n")
TOO_MANY_SESSIONS = Reply(b"-ERR [SYS/TEMP] Too many sessions of this account are open.\r\n")
MAILDROP_UNAVAILABLE = Reply(b"-ERR [SYS/TEMP] The maildrop cannot be opened now, try again later.\r\n")
MESSAGE_UNAVAILABLE = Reply(b"-ERR [SYS/TEMP] The message cannot be read now.\r\n")
SHUTTING_DOWN = Reply(b"-ERR [SYS/TEMP] The server is stopping, try again later.\r\n", closes=True)

# RFC 1939 3: when the inactivity timer runs out, the server closes without a response
TIMED_OUT = Reply(b"", closes=True)
