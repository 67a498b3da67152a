"""What all connections of one listener in one worker have in common."""

import asyncio
import ssl
from collections.abc import Callable, Collection

from popgate.servers.limits import ConnectionLimits, ConnectionTable, ListenerTable
from popgate.servers.tls import CertificateWatch
from popgate.sessions.session import Peer, Session
from popgate.values.address import Network
from popgate.values.clock import Clock
from popgate.values.event import Event, EventSink
from popgate.values.value import value

_LOOPBACK = (Network.parse("127.0.0.0/8"), Network.parse("::1"))


@value
class Deadlines:
    """How long a client may take, in seconds; `minimum_rate` in octets a second.

    `login`: a POP3 or IMAP client until it has logged in, counted from the connection;
    `command`: the next whole command; `write`: taking what we send.
    """

    login: float
    command: float
    minimum_rate: float
    body_grace: float = 60.0
    handshake: float = 30.0
    proxy: float = 5.0
    write: float = 120.0
    linger: float = 2.0


class Listener:
    """Shared by the connections of one listener: settings, limits and the set of open ones."""

    def __init__(
        self,
        *,
        service: str,
        name: str,
        number: int,
        make_session: Callable[[Peer], Session],
        busy_reply: bytes,
        limits: ConnectionLimits,
        table: ConnectionTable | ListenerTable,
        deadlines: Deadlines,
        clock: Clock,
        emit: EventSink,
        token: Callable[[], str],
        tls: CertificateWatch | None = None,
        implicit_tls: bool = False,
        proxy_from: Collection[Network] = (),
        callers: Collection[Network] | None = None,
    ) -> None:
        """`name`: the address it is bound to, for logs. `busy_reply`: what a client over a limit is
        told before the close, CRLF included. `callers`: None for everybody, else who may connect
        besides this machine."""
        self.service = service
        self.name = name
        self.number = number
        self.make_session = make_session
        self.busy_reply = busy_reply
        self.limits = limits
        self.table = table
        self.deadlines = deadlines
        self.clock = clock
        self.emit = emit
        self.token = token
        self.tls = tls
        self.implicit_tls = implicit_tls
        self.proxy_from = tuple(proxy_from)
        self.callers = None if callers is None else (*_LOOPBACK, *callers)
        self.loop = asyncio.get_running_loop()
        self.connections: set[OpenConnection] = set()
        self.is_draining = False

    @property
    def ssl_context(self) -> ssl.SSLContext | None:
        return self.tls.context if self.tls else None

    def event(self, name: str, **fields: str | int | float | None) -> None:
        self.emit(Event(name, self.clock.now(), {"service": self.service, **fields}))

    def tick(self) -> None:
        """Once a second: deadlines and renewals of all connections."""
        now = self.loop.time()
        for connection in tuple(self.connections):
            connection.tick(now)

    def drain(self, *, is_last: bool = False) -> None:
        """Tell every session that the server stops; each closes as soon as its protocol permits.
        May be called again and again; `is_last`: the time is over, and unfinished bodies end too."""
        self.is_draining = True
        for connection in tuple(self.connections):
            connection.drain(is_last=is_last)

    def abort(self) -> None:
        """Close what is still open."""
        for connection in tuple(self.connections):
            connection.abort("shutdown")


class OpenConnection:
    """What a listener asks of its connections."""

    __slots__ = ()

    def tick(self, now: float) -> None:
        raise NotImplementedError

    def drain(self, *, is_last: bool = False) -> None:
        raise NotImplementedError

    def abort(self, reason: str) -> None:
        raise NotImplementedError
