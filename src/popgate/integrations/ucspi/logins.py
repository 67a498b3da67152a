"""Hears of a login from inside the chain of programs of one connection.

Each connection of a listener with `grant = "allow"` has a socket pair. One end is the
program's LOGIN_DESCRIPTOR and travels through qmail-popup and the password checker to
`popgate-allow`, which stands behind the checker, writes one request and waits for the
answer before it becomes the mail server. So the grant is there before the client reads
`+OK`, and nothing but a small shell script is started for it.

Whoever holds the descriptor can have one login recorded: of a name of his choosing, but
only from the address of the connection, which this side knows and is not told. That is
what an attacker who has taken over a program before the password check could gain. A
request is short, complete and the only one; anything else closes the channel.

The program's end has timeouts of its own, so that a listener that stands still delays a
login and never prevents it.
"""

import asyncio
import socket
import struct
from collections.abc import Callable

from popgate.values.identity import Identity, IdentityError

ANSWER_SECONDS = 5
REQUEST_OCTETS = 512
_TIMEOUT = struct.pack("@ll", ANSWER_SECONDS, 0)

Login = Callable[[Identity], bool]
"""Records the login; True when it gave a grant."""
Refused = Callable[[str], None]
"""Told why a request was not understood."""


class LoginChannel:
    """Our end. `other` is the descriptor for the program; close it after the start."""

    __slots__ = ("_here", "_login", "_loop", "_refused", "_request", "other")

    def __init__(self, loop: asyncio.AbstractEventLoop, login: Login, refused: Refused) -> None:
        self._loop = loop
        self._login = login
        self._refused = refused
        self._request = b""
        here, self.other = socket.socketpair(socket.AF_UNIX, socket.SOCK_STREAM)
        self._here: socket.socket | None = here
        here.setblocking(False)
        self.other.setsockopt(socket.SOL_SOCKET, socket.SO_RCVTIMEO, _TIMEOUT)
        self.other.setsockopt(socket.SOL_SOCKET, socket.SO_SNDTIMEO, _TIMEOUT)
        loop.add_reader(here.fileno(), self._read)

    def close(self) -> None:
        here, self._here = self._here, None
        if here is not None:
            self._loop.remove_reader(here.fileno())
            here.close()
        self.other.close()

    def _read(self) -> None:
        here = self._here
        if here is None:
            return
        try:
            octets = here.recv(REQUEST_OCTETS)
        except (BlockingIOError, InterruptedError):
            return
        except OSError:
            octets = b""
        self._request += octets
        if self._request.count(b"\0") < 3 and octets and len(self._request) < REQUEST_OCTETS:
            return
        if self._request:
            self._answer(here)
        self.close()

    def _answer(self, here: socket.socket) -> None:
        try:
            identity = parse_request(self._request)
        except ValueError as fault:
            self._refused(str(fault))
            answer = b"no\n"
        else:
            answer = b"ok\n" if self._login(identity) else b"no\n"
        try:
            here.send(answer)
        except OSError:
            pass  # it has not waited for the answer


def parse_request(request: bytes) -> Identity:
    """`login`, USER and DOMAIN, each ended by NUL. Raises ValueError that says what is wrong."""
    parts = request.split(b"\0")
    if len(parts) != 4 or parts[0] != b"login" or parts[3]:
        raise ValueError("a request that is not understood")
    try:
        user, domain = parts[1].decode("ascii"), parts[2].decode("ascii")
    except UnicodeDecodeError:
        raise ValueError("a name that is not ASCII") from None
    try:
        if domain or "@" not in user:
            return Identity(user, domain)
        return Identity.parse(user)
    except IdentityError as fault:
        raise ValueError(str(fault)) from None
