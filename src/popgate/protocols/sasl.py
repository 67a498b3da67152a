"""The SASL mechanisms that all servers offer: PLAIN, LOGIN, CRAM-MD5 and SCRAM-SHA-256.

An exchange is a chain of values: `begin` and `Challenge.exchange.respond` each give the next
step, until it is somebody's credentials or `Malformed`. The engine frames the steps in its own
protocol, takes the base64 off and handles the client's `*`. Nothing here knows whether a name
exists or a proof is right, and no mechanism here can act for somebody else: an authorization
identity must be empty or the very name that proves itself.

SCRAM (RFC 5802, RFC 7677) needs the keys of a name in the middle of its exchange, so whoever begins
one gives a function that has keys for every name: made up ones where there is no such account, and
nothing here can tell.
"""

import binascii
import hashlib
import hmac
import re
from collections.abc import Callable
from typing import Final, Protocol

from popgate.values.value import value

PLAINTEXT_MECHANISMS = ("PLAIN", "LOGIN")
"""They show the password to whoever listens, so they belong under TLS."""

SECRET_MECHANISMS = ("SCRAM-SHA-256", "CRAM-MD5")
"""They need a secret that the server can read back. The best comes first: some clients take the first
that they know."""


def secret_mechanisms(*, has_scram: bool) -> tuple[str, ...]:
    """SECRET_MECHANISMS, or those of them that need no keys of SCRAM."""
    return SECRET_MECHANISMS if has_scram else SECRET_MECHANISMS[1:]


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
class ScramKeys:
    """RFC 5802 3: what a server keeps of a password, and `origin`: by which their maker knows them again."""

    salt: bytes
    iterations: int
    stored_key: bytes
    server_key: bytes
    origin: bytes = b""

    def __repr__(self) -> str:
        return f"ScramKeys({self.iterations}, ...)"  # reaches tracebacks


@value
class ScramCredentials:
    """RFC 5802: whether the client has proven that it knows the password that `keys` are made of."""

    name: str
    keys: ScramKeys
    is_proven: bool


FindScramKeys = Callable[[str], ScramKeys]
"""The keys of a name as the client typed it, or made up ones that are the same for it each time."""


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


Credentials = PlainCredentials | CramCredentials | ScramCredentials
Step = Challenge | Credentials | Malformed


def begin(
    mechanism: str,
    initial: bytes | None,
    *,
    token: Callable[[], str],
    hostname: str,
    scram_keys: FindScramKeys | None = None,
) -> Step:
    """Start an exchange of `mechanism` (upper-case).

    `initial`: the initial response, base64 taken off; None when the client gave none, b"" for
    an empty one (`=`). `token()` gives 128 fresh random bits as printable characters; it and
    `hostname` make CRAM-MD5's challenge; it makes SCRAM's nonce, and is called for no other mechanism.
    `scram_keys`: without it there is no SCRAM.
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
    if mechanism == "SCRAM-SHA-256" and scram_keys is not None:
        scram = _Scram(scram_keys, token)
        return Challenge(b"", scram) if initial is None else scram.respond(initial)
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


# RFC 5802 7: gs2-header = gs2-cbind-flag "," [ authzid ] ","; then ["m=" ...] "n=" saslname ",r=" c-nonce
_CLIENT_FIRST: Final = re.compile(
    rb"(?P<gs2>(?P<binding>n|y|p=[A-Za-z0-9.-]+),(?:a=(?P<authzid>[^,]+))?,)"
    rb"(?P<bare>n=(?P<name>[^,]+),r=(?P<nonce>[!-+\--~]+)(?:,[a-zA-Z]=[^,]+)*)"
)
_CLIENT_FINAL: Final = re.compile(
    rb"(?P<unproven>c=(?P<binding>[A-Za-z0-9+/=]+),r=(?P<nonce>[!-+\--~]+)(?:,[a-zA-Z]=[^,]+)*)"
    rb",p=(?P<proof>[A-Za-z0-9+/=]+)"
)


class _Scram:
    """Waits for the client-first-message."""

    __slots__ = ("_keys", "_token")

    def __init__(self, keys: FindScramKeys, token: Callable[[], str]) -> None:
        self._keys = keys
        self._token = token

    def respond(self, data: bytes) -> Step:
        first = _CLIENT_FIRST.fullmatch(data) if len(data) <= MAX_RESPONSE else None
        if first is None:
            return Malformed("not a first message of SCRAM")
        if first["binding"].startswith(b"p"):
            return Malformed("channel binding is not supported")
        octets = _saslname(first["name"])
        name = None if octets is None else _read_name(octets)
        if name is None:
            return Malformed("the user name is empty, too long or not text")
        if first["authzid"] is not None and _saslname(first["authzid"]) != octets:
            return Malformed("acting for another user is not supported")
        keys = self._keys(name)
        nonce = first["nonce"] + self._token().encode("ascii")
        server_first = b"r=%b,s=%b,i=%d" % (nonce, encode_base64(keys.salt), keys.iterations)
        # RFC 5802 5.1 c=: the client says again, under its proof, what it said of channel binding
        binding = encode_base64(first["gs2"])
        return Challenge(
            server_first, _ScramProof(name, keys, nonce, binding, first["bare"] + b"," + server_first)
        )


class _ScramProof:
    """Waits for the client-final-message."""

    __slots__ = ("_binding", "_keys", "_name", "_nonce", "_said")

    def __init__(self, name: str, keys: ScramKeys, nonce: bytes, binding: bytes, said: bytes) -> None:
        self._name = name
        self._keys = keys
        self._nonce = nonce
        self._binding = binding
        self._said = said

    def respond(self, data: bytes) -> Step:
        final = _CLIENT_FINAL.fullmatch(data) if len(data) <= MAX_RESPONSE else None
        proof = decode_base64(final["proof"]) if final is not None else None
        if final is None or proof is None or len(proof) != 32:
            return Malformed("not a final message of SCRAM")
        if final["nonce"] != self._nonce or final["binding"] != self._binding:
            return Malformed("this answers another message")
        keys = self._keys
        auth_message = self._said + b"," + final["unproven"]
        # RFC 5802 3: ClientKey = ClientProof XOR HMAC(StoredKey, AuthMessage), and H(ClientKey) is StoredKey
        signature = hmac.digest(keys.stored_key, auth_message, "sha256")
        client_key = bytes([one ^ other for one, other in zip(proof, signature, strict=True)])
        if not hmac.compare_digest(hashlib.sha256(client_key).digest(), keys.stored_key):
            return ScramCredentials(self._name, keys, is_proven=False)
        ours = hmac.digest(keys.server_key, auth_message, "sha256")
        return Challenge(b"v=" + encode_base64(ours), _ScramEnd(self._name, keys))


class _ScramEnd:
    """Waits for the client to be content with our own proof. Only then is it logged in."""

    __slots__ = ("_keys", "_name")

    def __init__(self, name: str, keys: ScramKeys) -> None:
        self._name = name
        self._keys = keys

    def respond(self, data: bytes) -> Step:
        if data:
            return Malformed("nothing more was to be said")
        return ScramCredentials(self._name, self._keys, is_proven=True)


def _saslname(octets: bytes) -> bytes | None:
    """RFC 5802 5.1: a comma is written =2C and an equals sign =3D, and nothing else is."""
    plain = octets.replace(b"=2C", b",")
    if plain.count(b"=") != plain.count(b"=3D"):
        return None
    return plain.replace(b"=3D", b"=")


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
