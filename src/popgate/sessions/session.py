"""What a server shell and a session agree on.

The shell owns the transport, the engine and the timers. The session owns the decisions.
"""

from collections.abc import Awaitable, Callable, Coroutine
from typing import Any, Literal, Protocol

from popgate.protocols.engine import Engine, MisuseError
from popgate.values.address import ClientAddress
from popgate.values.clock import Clock
from popgate.values.event import EventSink
from popgate.values.identity import Identity
from popgate.values.value import value


@value
class Peer:
    """One connection. `client` is the address that grants and limits count (from the PROXY
    header where one is due); `local` is the address that the listener is bound to, for logs."""

    session: str
    client: ClientAddress
    client_port: int
    local: str
    is_tls: bool = False


def _no_spawn(coroutine: Coroutine[Any, Any, None]) -> None:
    coroutine.close()
    raise MisuseError("this runtime has nobody who would run it")


@value
class Runtime:
    """What the outside lends a session, so that it needs no transport, clock or thread of its own.

    `sleep(seconds)`; `run(function)` runs a blocking function in a thread;
    `token()` gives 128 fresh random bits as 22 printable characters (base64url).
    `spawn(coroutine)` runs one beside whatever else goes on, for a session that speaks unasked.
    """

    clock: Clock
    emit: EventSink
    sleep: Callable[[float], Awaitable[None]]
    run: "Callable[[Callable[[], object]], Awaitable[object]]"
    token: Callable[[], str]
    spawn: "Callable[[Coroutine[Any, Any, None]], None]" = _no_spawn


class UserSessions(Protocol):
    """How many sessions each identity has open, over all processes of the server."""

    def enter(self, identity: Identity) -> bool:
        """Count one more; False, and nothing counted, when that would be too many."""
        ...

    def leave(self, identity: Identity) -> None:
        """One that `enter` counted has ended."""
        ...


CloseReason = Literal["quit", "eof", "reset", "timeout", "too-slow", "limit", "shutdown", "error", "tls"]


class Session(Protocol):
    """The deciding side of one connection."""

    tick_seconds: float
    """How often the shell calls `tick` while the session is open; 0: never. A login may change it."""

    @property
    def engine(self) -> Engine:
        """The engine of this connection."""
        ...

    def decide(self, event: Any) -> object | Awaitable[object] | None:
        """Decide about an event: a reply at once, an awaitable of one, or None where the event
        wants no answer (body chunks). Never raises for what a client sent."""
        ...

    def tls_started(self, version: str, cipher: str) -> None:
        """TLS is up; forget who logged in. Called after the engine's tls_started."""
        ...

    def tick(self) -> None:
        """Time passes while the connection is open: renew the grant."""
        ...

    def timeout_reply(self) -> object:
        """The engine's reply for a deadline that ran out."""
        ...

    def shutdown_reply(self) -> object:
        """The engine's reply for a server that stops."""
        ...

    def closed(self, reason: CloseReason) -> None:
        """The connection is gone: release locks, abort what is open, write the closing event."""
        ...


class PushingSession(Session, Protocol):
    """A session that speaks although its client has asked nothing (IMAP's IDLE, RFC 2177).

    It puts what it has to say into its engine, then calls `wake`, on the event loop's thread."""

    wake: Callable[[], bool]
    """The shell puts this here before the first event. It sends what the engine has to say, or does so as
    soon as a decision, a long reply or a turn of others is over. False: nothing was taken out, because the
    client does not read what was sent before or is gone. Then say no more until `can_push` is called:
    whatever is said meanwhile lies in memory. To ask whether anything can be said, call it with nothing
    to say."""

    def can_push(self) -> None:
        """After a `wake` that gave False: the client reads again."""
        ...
