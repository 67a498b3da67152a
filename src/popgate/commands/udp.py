"""relay-ctrl-udp: receives logins of other machines and records them. Runs until a signal.

Logins that are signed (RELAY_CTRL_KEY) count when they come from RELAY_CTRL_CALLERS or from this
machine. relay-ctrl's own datagrams count from loopback addresses while there is no key, and from
the callers with --insecure. It listens on RELAY_CTRL_BIND; if that is not set, on all
addresses where there is a key or --insecure, and on loopback otherwise.
"""

import os
import select
import socket
import time

from popgate.commands import login as recording
from popgate.commands import peers
from popgate.commands.chain import NOT_NOW, EnvdirError, Program, positive_number, reason
from popgate.commands.place import Place, find_place
from popgate.protocols.relay_ctrl_udp import MAX_OCTETS, PacketError, PeerLogin, Receiver
from popgate.servers import datagrams
from popgate.values.address import AddressError, ClientAddress, Network
from popgate.values.identity import IdentityError

_LOOPBACK = ("127.0.0.1", "[::1]")
_EVERYWHERE = ("0.0.0.0", "[::]")  # noqa: S104  a receiver of other machines' datagrams
_WARNINGS_A_SECOND = 10


class _Answering:
    """The receiver with its directory. Warnings of strangers' datagrams are limited."""

    def __init__(self, program: Program, receiver: Receiver, place: Place, mode: int) -> None:
        self._program = program
        self._receiver = receiver
        self._place = place
        self._mode = mode
        self._window = positive_number("RELAY_CTRL_EXPIRY", 900)
        self._second = 0
        self._warnings = 0

    def answer(self, data: bytes, caller: ClientAddress) -> bytes | None:
        """Record the login in a datagram, if it is one that counts; what to send back."""
        now = time.time()
        try:
            result = self._receiver.receive(data, caller, now)
        except PacketError as error:
            self._warn(
                f"Invalid IP from '{caller}'."
                if str(error) == "no address"
                else f"Datagram from '{caller}' does not count: {error}.",
                int(now),
            )
            return None
        if not isinstance(result, PeerLogin):
            return result
        return self._receiver.answer(result, is_done=self._record(result))

    def _record(self, peer_login: PeerLogin) -> bool:
        try:
            login = recording.Login(peer_login.user, peer_login.domain)
        except IdentityError:
            return False
        name = peer_login.address.text
        silent = _Quiet(self._program)
        if recording.record(self._place, name, login, self._window, self._mode, silent):
            return True
        self._program.warn(f"Could not touch '{name}': {silent.why}")
        return False

    def _warn(self, text: str, second: int) -> None:
        if second != self._second:
            self._second, self._warnings = second, 0
        self._warnings += 1
        if self._warnings <= _WARNINGS_A_SECOND:
            self._program.warn(text)


class _Quiet(Program):
    """Keeps the reason of a failure for a message of our own."""

    __slots__ = ("why",)

    def __init__(self, program: Program) -> None:
        super().__init__(program.name, [], shows_pid=False)
        self.why = ""

    def warn(self, text: str) -> None:
        self.why = text.rpartition(": ")[2]


def main(arguments: list[str]) -> None:
    program = Program("relay-ctrl-udp", arguments, shows_pid=False)
    try:
        flags = program.take_options(("--insecure",))
    except EnvdirError as error:
        program.fail(str(error), NOT_NOW)
    if "RELAY_CTRL_DIR" not in os.environ and "RELAY_CTRL_DIR_FD" not in os.environ:
        program.warn("$RELAY_CTRL_DIR is not set")
        os._exit(NOT_NOW)
    place = find_place(program)
    if place is None:
        os._exit(NOT_NOW)
    is_insecure = "--insecure" in flags
    try:
        key = peers.read_key()
        callers = tuple(Network.parse(word) for word in peers.listed("RELAY_CTRL_CALLERS"))
    except (peers.KeyFileError, AddressError) as error:
        program.fail(str(error), NOT_NOW)
    if not callers and (key is not None or is_insecure):
        program.warn("$RELAY_CTRL_CALLERS is not set: only this machine may tell of logins")
    receiver = Receiver(key, callers, time.time(), is_insecure=is_insecure)
    sockets = _bound(program, everywhere=key is not None or is_insecure)
    umask = os.umask(0)
    os.umask(umask)
    try:
        _serve(sockets, _Answering(program, receiver, place, 0o666 & ~umask))
    except KeyboardInterrupt:
        os._exit(0)


def _bound(program: Program, *, everywhere: bool) -> list[socket.socket]:
    listed = peers.listed("RELAY_CTRL_BIND")
    sockets = []
    for word in listed or (_EVERYWHERE if everywhere else _LOOPBACK):
        try:
            address, port = peers.end_point(word, peers.port())
            bound = socket.socket(socket.AF_INET6 if address.is_ipv6 else socket.AF_INET, socket.SOCK_DGRAM)
            if address.is_ipv6:
                bound.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
            bound.bind((address.text, port))
            datagrams.tell_destination(bound)
            bound.setblocking(False)
            sockets.append(bound)
        except (AddressError, ValueError) as error:
            program.fail(f"RELAY_CTRL_BIND: '{word}' is no address: {error}", NOT_NOW)
        except OSError as error:
            if listed or not word.startswith("["):  # a machine may have no IPv6
                program.fail(f"Could not bind to '{word}': {reason(error)}", NOT_NOW)
    return sockets


def _serve(sockets: list[socket.socket], answering: _Answering) -> None:
    poll = select.poll()
    by_number = {each.fileno(): each for each in sockets}
    for number in by_number:
        poll.register(number, select.POLLIN)
    while True:
        for number, _ in poll.poll():
            each = by_number[number]
            try:
                datagram = datagrams.receive(each, MAX_OCTETS + 1)
                if datagram.caller is None:
                    continue  # link-local: an address with a zone is nobody's
                answer = answering.answer(datagram.data, datagram.caller)
                if answer is not None:
                    datagrams.answer(each, datagram, answer)
            except OSError:
                pass  # nobody there any more, or a full buffer; the sender tries again
