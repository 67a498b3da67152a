"""The interface between whoever accepts mail and the durable queue."""

from collections.abc import Awaitable, Callable
from typing import Protocol, TypeVar

from popgate.values.address import ClientAddress
from popgate.values.mail import MailAddress
from popgate.values.value import value

_T = TypeVar("_T")


class QueueError(Exception):
    """The message was not accepted (451 4.3.0, or 452 4.3.1 when `is_full`)."""

    def __init__(self, detail: str, *, is_full: bool = False) -> None:
        super().__init__(detail)
        self.is_full = is_full


def raised(error: QueueError | None) -> None:
    """The `conclude` of whoever awaits a commit and wants no more of it."""
    if error is not None:
        raise error


@value
class Recipient:
    """One RCPT TO. `notify`: DSN NOTIFY keywords (RFC 3461), () when the client said nothing;
    `orcpt`: decoded as given ("rfc822;user@example.org"), "" when absent.
    `is_local`: the domain is ours, so the address was resolved in the account tables.
    """

    address: MailAddress
    is_local: bool
    notify: tuple[str, ...] = ()
    orcpt: str = ""


@value
class Envelope:
    """What a message was accepted with.

    `sender` is None for the null reverse-path. `identity` is who it is relayed for, "" when
    it is plain inbound mail. `envid`, `ret`: DSN parameters, "" when absent.
    `needs_smtputf8`, `is_8bit`: what the client declared.
    """

    sender: MailAddress | None
    recipients: tuple[Recipient, ...]
    client: ClientAddress | None
    identity: str = ""
    session: str = ""
    helo: str = ""
    envid: str = ""
    ret: str = ""
    needs_smtputf8: bool = False
    is_8bit: bool = False


class Incoming(Protocol):
    """One message on its way into the queue. After commit or abort it is spent."""

    queue_id: str
    """Known from the start, so that the Received: field can name it. Never used again."""

    octets: int
    """Octets written so far."""

    def write(self, chunk: bytes) -> Awaitable[None] | None:
        """Append a chunk with CRLF line ends. An awaitable asks the caller to wait for it
        before it writes more (a large body is going to a file). Raises QueueError."""
        ...

    def commit(self, envelope: Envelope, conclude: Callable[[QueueError | None], _T]) -> Awaitable[_T]:
        """Put message and envelope on disk for good. The awaitable gives what `conclude` returns.

        `conclude` is called once, later, in the event loop, also when nobody waits any more: with None
        when all of it is on disk, with the error when nothing of the message is kept. (A coroutine
        around an awaitable of nothing would do the same for a task and two turns of the loop more.)
        """
        ...

    def abort(self) -> None:
        """Forget the message. Safe to call after commit (does nothing)."""
        ...


class Intake(Protocol):
    """The accepting side of the queue."""

    def receive(self) -> Incoming:
        """Begin a message. Raises QueueError when the queue takes none now."""
        ...
