"""What a POP3 session asks of whoever knows users, secrets and mailboxes.

Everything else, the listings and the marks of deletion included, the engine answers itself.
"""

from popgate.protocols import sasl
from popgate.values.value import value


@value
class ApopCredentials:
    """RFC 1939 7: `digest` is the 32 lower-case hex digits that the client made from `challenge`,
    the banner's time stamp with its angle brackets."""

    name: str
    challenge: bytes
    digest: bytes


Credentials = sasl.Credentials | ApopCredentials


@value
class Authenticate:
    """Somebody claims to be somebody. A positive reply brings the `messages` of the maildrop."""

    credentials: Credentials


@value
class StartTls:
    """The client wants TLS; after a positive reply the shell starts it."""


@value
class Retrieve:
    """RETR, or TOP when `body_lines` is a number. A positive reply brings a `source`.

    `index` starts at 0 and is that of a message which exists and is not marked as deleted.
    """

    index: int
    body_lines: int | None


@value
class Quit:
    """The session ends as it should: remove the messages `deleted` (indexes in order), let the
    maildrop go, then answer. Whatever the answer, the connection closes after it."""

    deleted: tuple[int, ...]


Pop3Event = Authenticate | StartTls | Retrieve | Quit
