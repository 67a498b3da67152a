"""Receives the logins that other machines tell of, in datagrams.

Of all workers one reads at a time, the one that has the login file (`login_file` says why); the
others wait for it. The datagrams are in the sockets that all of them share, so while the reader
changes they wait there, and are not lost.

Bounded: a turn of the loop takes DATAGRAMS_A_TURN, so that a flood leaves the mail sessions of the
process their turns; what does not count is checked, counted and forgotten, gets no answer, and
only some of it gets a line in the log. It does not know the grants; whoever makes it lends it `record`.
"""

import asyncio
import socket
from collections.abc import Callable, Sequence

from popgate.protocols.relay_ctrl_udp import MAX_OCTETS, PacketError, PeerLogin, ReceivedLogins, Receiver
from popgate.servers import datagrams
from popgate.servers.login_file import LoginFile, LoginFileError
from popgate.values.address import ClientAddress, Network
from popgate.values.clock import Clock
from popgate.values.event import Event, EventSink
from popgate.values.identity import Identity, IdentityError
from popgate.values.value import value

DATAGRAMS_A_TURN = 64
TOLD_A_MINUTE = 10
"""Refused datagrams of strangers, and as many of callers, that get a line of their own in a minute."""
_TAKE_SECONDS = 0.2
_FAULT_SECONDS = 60.0

Record = Callable[[ClientAddress, Identity | None, str], bool]
"""Grants to a client's address, for an identity (None: nobody is named), in a session; True when it did."""


@value
class PeerEndpoint:
    """One place where datagrams come in, and whose count. `name` is the address for the log."""

    socket: socket.socket
    name: str
    key: bytes | None
    callers: tuple[Network, ...]
    is_insecure: bool


class PeerListener:
    """All such listeners of one worker; takes over the endpoints' sockets."""

    def __init__(
        self,
        endpoints: Sequence[PeerEndpoint],
        file: LoginFile,
        *,
        record: Record,
        clock: Clock,
        emit: EventSink,
        token: Callable[[], str],
    ) -> None:
        self._loop = asyncio.get_running_loop()
        self._endpoints = tuple(endpoints)
        self._file = file
        self._record = record
        self._clock = clock
        self._emit = emit
        self._token = token
        self._refusals = _Refusals(clock, self._event)
        self._timer: asyncio.TimerHandle | None = None
        self._receivers: list[tuple[PeerEndpoint, Receiver]] = []
        self._is_reading = False
        self._is_closed = False
        self._fault_at = float("-inf")
        self.connections: tuple[()] = ()  # a login is over in the turn in which it came
        self._take()

    # what a server does with its listeners

    def close(self) -> None:
        """Take what has come in, then no more; let another process go on at once."""
        if self._is_closed:
            return
        self._is_closed = True
        if self._timer is not None:
            self._timer.cancel()
        if self._is_reading:
            for endpoint, receiver in self._receivers:
                self._read(endpoint, receiver)
        self._stop_reading()
        self._refusals.tell_rest()
        for endpoint in self._endpoints:
            endpoint.socket.close()

    def tick(self) -> None:
        """Once a second."""
        self._refusals.tick()
        if self._is_reading and not self._file.is_held():
            self._fault("the file of received logins was removed; it is made anew")
            self._stop_reading()
            self._take()

    def drain(self, *, is_last: bool = False) -> None:
        """There is nothing to wait for."""

    def abort(self, reason: str = "shutdown") -> None:
        """There is nothing to end."""

    # reading

    def _take(self) -> None:
        self._timer = None
        try:
            taken = self._file.take(self._clock.now())
        except LoginFileError as fault:
            self._fault(str(fault))
            taken = None
        if taken is None:
            self._timer = self._loop.call_later(_TAKE_SECONDS, self._take)
        else:
            self._start_reading(*taken)

    def _start_reading(self, logins: ReceivedLogins, since: float) -> None:
        self._is_reading = True
        self._receivers = [
            (
                endpoint,
                Receiver(
                    endpoint.key, endpoint.callers, since, is_insecure=endpoint.is_insecure, received=logins
                ),
            )
            for endpoint in self._endpoints
        ]
        for endpoint, receiver in self._receivers:
            self._loop.add_reader(endpoint.socket.fileno(), self._read, endpoint, receiver)

    def _stop_reading(self) -> None:
        if self._is_reading:
            self._is_reading = False
            for endpoint in self._endpoints:
                self._loop.remove_reader(endpoint.socket.fileno())
            self._file.give_up()

    def _read(self, endpoint: PeerEndpoint, receiver: Receiver) -> None:
        for _ in range(DATAGRAMS_A_TURN):
            try:
                datagram = datagrams.receive(endpoint.socket, MAX_OCTETS + 1)
            except BlockingIOError:
                return
            except OSError:
                continue  # an answer that found nobody comes back as an error
            octets = self._answer(datagram, endpoint.name, receiver)
            if octets is not None:
                try:
                    datagrams.answer(endpoint.socket, datagram, octets)
                except OSError:
                    pass  # a full buffer, or no way back; the sender asks again

    def _answer(self, datagram: datagrams.Datagram, here: str, receiver: Receiver) -> bytes | None:
        caller = datagram.caller
        if caller is None:
            self._refusals.add(datagram.source[0], here, PacketError("an address with a zone", "stranger"))
            return None
        try:
            result = receiver.receive(datagram.data, caller, self._clock.now())
            if not isinstance(result, PeerLogin):
                return result
            return receiver.answer(result, is_done=self._log_in(result, caller))
        except PacketError as refusal:
            if refusal.reason == "memory":
                self._fault(str(refusal))
            self._refusals.add(caller.text, here, refusal)
            return None

    def _log_in(self, login: PeerLogin, caller: ClientAddress) -> bool:
        session = self._token()[:11]
        identity = None
        try:
            identity = identity_of(login)
            is_done = self._record(login.address, identity, session)
            reason = "recorded" if is_done else "no-grant"
        except IdentityError:
            is_done, reason = False, "two-domains"
        self._event(
            "peer.login",
            session=session,
            caller=caller.text,
            client=login.address.text,
            identity=str(identity) if identity is not None else None,
            form="signed" if login.is_signed else "plain",
            reason=reason,
        )
        return is_done

    def _fault(self, detail: str) -> None:
        now = self._clock.monotonic()
        if now - self._fault_at >= _FAULT_SECONDS:
            self._fault_at = now
            self._event("peer.fault", detail=detail)

    def _event(self, name: str, **fields: str | int | float | None) -> None:
        self._emit(Event(name, self._clock.now(), fields))


class _Refusals:
    """Tells of datagrams that do not count: some of them, then how many more there were."""

    def __init__(self, clock: Clock, event: Callable[..., None]) -> None:
        self._clock = clock
        self._event = event
        self._since = clock.monotonic()
        self._counts = [0, 0]

    def add(self, caller: str, here: str, refusal: PacketError) -> None:
        self.tick()
        # apart, so that noise from outside hides no fault of a machine of ours
        kind = 0 if refusal.reason == "stranger" else 1
        self._counts[kind] += 1
        if self._counts[kind] <= TOLD_A_MINUTE:
            self._event(
                "peer.refused", listener=here, caller=caller, reason=refusal.reason, detail=str(refusal)
            )

    def tick(self) -> None:
        if self._clock.monotonic() - self._since >= 60:
            self.tell_rest()

    def tell_rest(self) -> None:
        for kind, count in zip(("strangers", "callers"), self._counts, strict=True):
            if count > TOLD_A_MINUTE:
                self._event("peer.refused.more", reason=kind, count=count - TOLD_A_MINUTE)
        self._since = self._clock.monotonic()
        self._counts = [0, 0]


def identity_of(login: PeerLogin) -> Identity | None:
    """Who logged in, None where the datagram names nobody. Raises IdentityError where USER and DOMAIN
    speak of two domains."""
    if not login.user:
        return None
    if "@" not in login.user:
        return Identity(login.user, login.domain)
    identity = Identity.parse(login.user)
    if login.domain and login.domain.lower() != identity.domain:
        raise IdentityError("USER and DOMAIN speak of two domains")
    return identity
