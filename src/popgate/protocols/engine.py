"""The shape that every protocol engine has, so that one shell runs them all.

An engine is fed bytes and asked for events. An event is something that somebody else
must decide; the engine reads no further until `answer` has been called for it, which is
what pipelining and STARTTLS need. Whatever a client sends, no call raises: bad input is
a reply. `MisuseError` is for our own code calling out of turn.
"""

import enum
from collections.abc import Iterator
from typing import Any, Protocol


class MisuseError(RuntimeError):
    """The caller broke the engine's order of calls; a defect of ours, never of the client."""


class Wait(enum.Enum):
    """What the engine waits for: which deadline the shell must run."""

    LOGIN = "login"  # a command of a POP3 session that has not logged in
    COMMAND = "command"  # the client's next command
    BODY = "body"  # more of a message body, at a minimum rate
    DECISION = "decision"  # our own answer; no deadline of the client's
    TLS = "tls"  # the shell: start TLS, then call tls_started
    CLOSE = "close"  # the shell: flush the output, then close


class Engine(Protocol):
    """What the shell calls. Events and replies are the protocol's own types."""

    most_lines: int
    """After so many lines that make no event next_event gives None and sets `has_more`, so that a
    client who sends a million commands at once takes turns with others; 0: no limit."""
    has_more: bool
    """next_event gave None although there are lines left: call it again."""
    ended_by: str
    """Why the engine ended the session, once it has: a constant for logs; `quit` is the client's QUIT."""

    def receive(self, data: bytes) -> None:
        """Take bytes from the client; b"" is end of file."""
        ...

    def next_event(self) -> object | None:
        """The next event, or None: the engine needs bytes or an answer, or is done."""
        ...

    def answer(self, reply: Any) -> None:
        """Answer the event last given. Raises MisuseError when none is open."""
        ...

    def take_output(self) -> bytes:
        """Everything to be sent now; the buffer is empty afterwards."""
        ...

    @property
    def source(self) -> Iterator[bytes] | None:
        """A long reply in progress: the shell passes its blocks to `body`, then calls `body_end`.
        None when there is none. While it is set, next_event returns None."""
        ...

    def body(self, block: bytes) -> None:
        """One block of the long reply; the engine frames it into the output."""
        ...

    def body_end(self, *, failed: bool = False) -> None:
        """The long reply is complete; failed: it broke off, so the engine closes the connection."""
        ...

    def tls_started(self) -> None:
        """TLS is up: all session state and buffered input is forgotten."""
        ...

    def shut_down(self, reply: Any) -> None:
        """Send `reply` (421, -ERR) as soon as the protocol permits and close; at once when idle.

        While a message body is coming the engine waits for its end; called again, it does not.
        """
        ...

    @property
    def waiting_for(self) -> Wait: ...
