"""Datagram sockets that answer from the address they were asked at.

On a machine with several addresses a socket bound to all of them would answer from whichever the
routes prefer, and who asked another one takes that for a stranger's answer.
"""

import socket
import struct

from popgate.servers.bind import parse_bind
from popgate.servers.sockets import ListenError, inherited
from popgate.values.address import AddressError, ClientAddress

Source = tuple[str, int] | tuple[str, int, int, int]
_RECEIVE_OCTETS = 1 << 20
# Linux's numbers, which Python does not name everywhere
_IP_PKTINFO = getattr(socket, "IP_PKTINFO", 8)
_IN_PKTINFO = struct.Struct("@i4s4s")
_IN6_PKTINFO = struct.Struct("@16sI")
_ANCILLARY = socket.CMSG_SPACE(max(_IN_PKTINFO.size, _IN6_PKTINFO.size))


def open_datagrams(bind: str) -> socket.socket:
    """A bound datagram socket, not blocking. Raises ListenError, or bind.BindError for a `bind`
    that cannot be read."""
    place = parse_bind(bind)
    if place.kind == "unix":
        raise ListenError(f"{bind}: datagrams of logins come over IP: write HOST:PORT")
    try:
        if place.kind == "fd":
            bound = inherited(place.name)
            if bound.type != socket.SOCK_DGRAM:
                bound.close()
                raise ListenError(f"{bind}: the socket passed takes no datagrams; write ListenDatagram=")
        else:
            bound = socket.socket(socket.AF_INET6 if place.is_ipv6 else socket.AF_INET, socket.SOCK_DGRAM)
        try:
            if place.kind != "fd":
                if place.is_ipv6:
                    bound.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
                bound.bind((place.host, place.port))
            tell_destination(bound)
            # what waits while a process starts, and a burst of logins
            bound.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, _RECEIVE_OCTETS)
            bound.setblocking(False)
        except OSError:
            bound.close()
            raise
        return bound
    except PermissionError as fault:
        raise ListenError(
            f"cannot receive datagrams at {bind}: {fault.strerror}; ports below 1024 need root"
            " (popgate drops to `user` afterwards) or systemd socket activation"
        ) from fault
    except OSError as fault:
        raise ListenError(
            f"cannot receive datagrams at {bind}: {fault.strerror}; `ss -lunp` shows who holds it"
        ) from fault


def tell_destination(bound: socket.socket) -> None:
    """Have `receive` learn at which of our addresses each datagram came. Raises OSError."""
    if bound.family == socket.AF_INET6:
        bound.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_RECVPKTINFO, 1)
    else:
        bound.setsockopt(socket.IPPROTO_IP, _IP_PKTINFO, 1)


class Datagram:
    """What came, from whom, and to which of our addresses. `caller` is None for an address with a zone:
    link-local, nobody's."""

    __slots__ = ("caller", "data", "here", "source")

    def __init__(
        self, data: bytes, source: Source, caller: ClientAddress | None, here: list[tuple[int, int, bytes]]
    ) -> None:
        self.data = data
        self.source = source
        self.caller = caller
        self.here = here


def receive(bound: socket.socket, octets: int) -> Datagram:
    """The next datagram, at most `octets` of it. Raises OSError, BlockingIOError where there is none."""
    data, ancillary, _, source = bound.recvmsg(octets, _ANCILLARY)
    here = []
    for level, kind, content in ancillary:
        if level == socket.IPPROTO_IP and kind == _IP_PKTINFO and len(content) == _IN_PKTINFO.size:
            _, local, _ = _IN_PKTINFO.unpack(content)
            here.append((level, kind, _IN_PKTINFO.pack(0, local, b"")))
        elif level == socket.IPPROTO_IPV6 and kind == socket.IPV6_PKTINFO:
            here.append((level, kind, content))
    try:
        caller = ClientAddress.parse(source[0])
    except AddressError:
        caller = None
    return Datagram(data, source, caller, here)


def answer(bound: socket.socket, datagram: Datagram, octets: bytes) -> None:
    """Send from where it came to. Raises OSError."""
    bound.sendmsg([octets], datagram.here, 0, datagram.source)
