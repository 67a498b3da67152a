"""The SASL mechanisms that both servers offer: PLAIN, LOGIN and CRAM-MD5.

An exchange is a chain of values: `begin` and `Challenge.exchange.respond` each give the next
step, until it is somebody's credentials or `Malformed`. The engine frames the steps in its own
protocol, takes the base64 off and handles the client's `*`. Nothing here knows whether a name
exists or a proof is right, and no mechanism here can act for somebody else: an authorization
identity must be empty or the very name that proves itself.
"""

import binascii
from collections.abc import Callable
from typing import Protocol

from popgate.values.value import value

PLAINTEXT_MECHANISMS = ("PLAIN", "LOGIN")
"""They show the password to whoever listens, so they belong under TLS."""

SECRET_MECHANISMS = ("CRAM-MD5",)
"""They need a secret that the server can read back."""

MAX_NAME = 255  # RFC 4616 2: names up to 255 octets must be taken
MAX_PASSWORD = 1024
MAX_RESPONSE = MAX_NAME + 1 + MAX_NAME + 1 + MAX_PASSWORD
"""No response of these mechanisms has more octets, base64 taken off."""

MAX_LINE = (MAX_RESPONSE + 2) // 3 * 4 + 2
"""The longest line that can hold such a response, CRLF counted."""


@value
class PlainCredentials:
    """A name and the password itself. `mechanism`: PLAIN, LOGIN, or the command's own name (PASS)."""

    mechanism: str
    name: str
    password: bytes

    def __repr__(self) -> str:
        return f"PlainCredentials({self.mechanism!r}, {self.name!r}, ...)"  # reaches tracebacks


@value
class CramCredentials:
    """RFC 2195: `digest` is the 32 lower-case hex digits that the client made from `challenge`."""

    name: str
    challenge: bytes
    digest: bytes


@value
class Malformed:
    """The client's response is none of its mechanism; `reason` may be told to it."""

    reason: str


class Exchange(Protocol):
    """An exchange that waits for the client."""

    def respond(self, data: bytes) -> "Step":
        """Take the client's response, base64 taken off."""
        ...


@value
class Challenge:
    """Send `data`, in base64; then give the response to `exchange`."""

    data: bytes
    exchange: Exchange


Step = Challenge | PlainCredentials | CramCredentials | Malformed


def begin(mechanism: str, initial: bytes | None, *, token: Callable[[], str], hostname: str) -> Step:
    """Start an exchange of `mechanism` (upper-case).

    `initial`: the initial response, base64 taken off; None when the client gave none, b"" for
    an empty one (`=`). `token()` gives 128 fresh random bits as printable characters; it and
    `hostname` make CRAM-MD5's challenge, and it is called for no other mechanism.
    """
    if mechanism == "PLAIN":
        plain = _Plain()
        return Challenge(b"", plain) if initial is None else plain.respond(initial)
    if mechanism == "LOGIN":
        ask_name = _LoginName()
        return Challenge(b"Username:", ask_name) if initial is None else ask_name.respond(initial)
    if mechanism == "CRAM-MD5":
        if initial is not None:
            return Malformed("CRAM-MD5 has no initial response")  # RFC 4954 4, RFC 5034 4
        challenge = f"<{token()}@{hostname}>".encode("ascii", "replace")  # RFC 2195 2
        return Challenge(challenge, _Cram(challenge))
    return Malformed("unknown mechanism")


def decode_base64(line: bytes) -> bytes | None:
    """The octets that `line` stands for, or None unless it is exactly their RFC 4648 4 form.

    Padding is required, and spare bits must be zero: no two lines mean the same response.
    """
    try:
        data = binascii.a2b_base64(line, strict_mode=True)
    except binascii.Error:
        return None
    return data if encode_base64(data) == line else None


def encode_base64(data: bytes) -> bytes:
    """`data` as one base64 line, without a line end."""
    return binascii.b2a_base64(data, newline=False)


class _Plain:
    __slots__ = ()

    def respond(self, data: bytes) -> Step:
        # RFC 4616 2: message = [authzid] UTF8NUL authcid UTF8NUL passwd
        parts = data.split(b"\0")
        if len(parts) != 3:
            return Malformed("PLAIN takes three parts with a NUL between them")
        authzid, authcid, password = parts
        if authzid and authzid != authcid:
            return Malformed("acting for another user is not supported")
        return _plain_credentials("PLAIN", authcid, password)


class _LoginName:
    __slots__ = ()

    def respond(self, data: bytes) -> Step:
        if _read_name(data) is None:
            return Malformed("the user name is empty, too long or not text")
        # Real devices fail on any other prompt.
        return Challenge(b"Password:", _LoginPassword(data))


class _LoginPassword:
    __slots__ = ("_name",)

    def __init__(self, name: bytes) -> None:
        self._name = name

    def respond(self, data: bytes) -> Step:
        return _plain_credentials("LOGIN", self._name, data)


class _Cram:
    __slots__ = ("_challenge",)

    def __init__(self, challenge: bytes) -> None:
        self._challenge = challenge

    def respond(self, data: bytes) -> Step:
        # RFC 2195 2: the user name, a space, a digest; the name may hold spaces
        name_octets, _, digest = data.rpartition(b" ")
        name = _read_name(name_octets)
        if name is None:
            return Malformed("the user name is empty, too long or not text")
        if not is_md5_hex(digest):
            return Malformed("the digest must be 32 lower-case hexadecimal digits")
        return CramCredentials(name, self._challenge, digest)


def is_md5_hex(digest: bytes) -> bool:
    """Whether `digest` is 32 lower-case hex digits (RFC 1939 7, RFC 2195 2)."""
    return len(digest) == 32 and not digest.strip(b"0123456789abcdef")


def _plain_credentials(mechanism: str, name_octets: bytes, password: bytes) -> Step:
    name = _read_name(name_octets)
    if name is None:
        return Malformed("the user name is empty, too long or not text")
    # RFC 4616 2: passwd = 1*SAFE, and SAFE has no NUL
    if not password or len(password) > MAX_PASSWORD or b"\0" in password:
        return Malformed("the password is empty, too long or holds a NUL")
    return PlainCredentials(mechanism, name, password)


def _read_name(octets: bytes) -> str | None:
    if not octets or len(octets) > MAX_NAME:
        return None
    try:
        name = octets.decode("utf-8")
    except UnicodeDecodeError:
        return None
    return name if name.isprintable() else None
