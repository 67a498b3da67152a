"""Logins that one machine tells another of, each in a datagram: relay-ctrl-send to relay-ctrl-udp.

Two forms. relay-ctrl's own is the client's address as text, and one octet 0x01 in reply;
whoever can send a datagram can grant, so it is taken from loopback addresses only, unless the
administrator insists. Ours is signed by a key that both sides share:

    login  = "popgate-login-1" SP sent SP nonce SP address SP user SP domain LF mac
    answer = "popgate-answer-1" SP nonce SP ( "done" / "not-done" ) LF mac
    sent   = milliseconds, Unix time
    nonce  = 32 lower-case hexadecimal digits
    user, domain = names as popgate.values.identity takes them, or "-"
    mac    = HMAC-SHA-256 of the octets before it, 64 lower-case hexadecimal digits

A login counts if it was sent at most SKEW_SECONDS before or after now, not before the receiver
started to remember, and if it is new. A repetition is the sender's way to deal with a lost answer:
it is answered as the first one was, and grants nothing. What was received is remembered, by the
first half of its mac, for as long as its time would still do; that are at most REMEMBERED_AT_MOST,
and while there are so many no further login counts, so that nobody can make the receiver forget
one.

No I/O and no clock. Used by the two commands and by the server's listener.
"""

import hmac
from collections.abc import Callable, Iterable

from popgate.values.address import AddressError, ClientAddress, Network
from popgate.values.identity import Identity, IdentityError

MAX_OCTETS = 1024
SKEW_SECONDS = 60.0
REMEMBERED_AT_MOST = 65536
MIN_KEY_OCTETS = 16
MARK_OCTETS = 16
PORT = 811
ANSWER = b"\x01"
"""relay-ctrl-udp's reply."""

_LOGIN, _ANSWER = "popgate-login-1", "popgate-answer-1"
_HEX = frozenset("0123456789abcdef")
_NONCE_LENGTH, _MAC_LENGTH = 32, 64
_LOOPBACK = (Network.parse("127.0.0.0/8"), Network.parse("::1"))


UNANSWERED, DONE, NOT_DONE = range(3)
"""What became of a login."""


class PacketError(ValueError):
    """A datagram that is no login, or no answer; says why, for the log. `reason` is a constant for it:
    `stranger`, `too-long`, `unsigned`, `no-key`, `signature`, `malformed`, `clock`, `too-early`,
    `unanswered`, `too-many`, `memory`."""

    def __init__(self, text: str, reason: str = "malformed") -> None:
        super().__init__(text)
        self.reason = reason


class PeerLogin:
    """A login at another machine. `nonce` is "" in relay-ctrl's own form; `sent` Unix seconds;
    `mark` the 16 octets by which a signed one that was received is remembered."""

    __slots__ = ("address", "domain", "mark", "nonce", "sent", "user")

    def __init__(
        self, address: ClientAddress, user: str, domain: str, sent: float, nonce: str, mark: bytes = b""
    ) -> None:
        """Raises PacketError for names that could not be recorded."""
        self.address = address
        self.user = user
        self.domain = domain
        self.sent = sent
        self.nonce = nonce
        self.mark = mark
        try:
            if user or domain:
                Identity.parse(user) if "@" in user else Identity(user or "x", domain)
        except IdentityError as error:
            raise PacketError(f"no name of a user: {error}") from None

    @property
    def is_signed(self) -> bool:
        return bool(self.nonce)


def signed_login(login: PeerLogin, key: bytes) -> bytes:
    """The datagram for a login; its nonce must be 32 hexadecimal digits nobody used before."""
    text = (
        f"{_LOGIN} {int(login.sent * 1000)} {login.nonce} {login.address}"
        f" {login.user or '-'} {login.domain or '-'}\n"
    )
    return _signed(text, key)


def is_answer(data: bytes, nonce: str, key: bytes) -> bool | None:
    """Does the datagram say that the login of `nonce` was recorded (True) or was not (False)?
    None: it is no answer to it."""
    try:
        fields = _verified(data, key)
    except PacketError:
        return None
    if len(fields) != 3 or fields[:2] != [_ANSWER, nonce] or fields[2] not in ("done", "not-done"):
        return None
    return fields[2] == "done"


def plain_login(data: bytes) -> ClientAddress:
    """The address in relay-ctrl's own form; what follows a NUL is not looked at. Raises PacketError."""
    try:
        return ClientAddress.parse(data[:64].partition(b"\0")[0].decode("ascii"))
    except (AddressError, UnicodeDecodeError):
        raise PacketError("no address") from None


class ReceivedLogins:
    """Which signed logins were received, and what became of each.

    A repetition is one to the octet, so the mac tells it, and where receivers with several keys
    share a memory, no key can speak of another's logins.
    """

    def __init__(
        self,
        write: Callable[[int, bytes, float, int], None] | None = None,
        kept: Iterable[tuple[int, bytes, float, int]] = (),
    ) -> None:
        """`write(slot, mark, sent, state)` is called for each change, and may raise PacketError:
        then the login does not count. `kept`: what it once wrote. Slots are numbers below
        REMEMBERED_AT_MOST."""
        self._write = write
        self._known: dict[bytes, tuple[int, float, int]] = {}
        self._slots = 0
        for slot, mark, sent, state in kept:
            self._known[mark] = (slot, sent, state)
            self._slots = max(self._slots, slot + 1)
        used = {slot for slot, _, _ in self._known.values()}
        self._free = [slot for slot in range(self._slots) if slot not in used]
        self._swept = float("-inf")

    def state(self, mark: bytes) -> int | None:
        """What became of the login; None: it is new."""
        known = self._known.get(mark)
        return None if known is None else known[2]

    def add(self, mark: bytes, sent: float, now: float) -> None:
        """Remember a new one, unanswered. Raises PacketError."""
        if len(self._known) >= REMEMBERED_AT_MOST // 2:
            self._sweep(now)
        if self._free:
            slot = self._free.pop()
        elif self._slots < REMEMBERED_AT_MOST:
            slot, self._slots = self._slots, self._slots + 1
        else:
            raise PacketError("too many logins at a time", "too-many")
        try:
            if self._write is not None:
                self._write(slot, mark, sent, UNANSWERED)
        except BaseException:
            self._free.append(slot)
            raise
        self._known[mark] = (slot, sent, UNANSWERED)

    def answered(self, mark: bytes, state: int) -> None:
        """What became of one that was added. Raises PacketError."""
        known = self._known.get(mark)
        if known is None:
            return
        slot, sent, _ = known
        self._known[mark] = (slot, sent, state)
        if self._write is not None:
            self._write(slot, mark, sent, state)

    def _sweep(self, now: float) -> None:
        """Forget those whose time is over; at most once a second, so that a flood costs little."""
        if 0 <= now - self._swept < 1:
            return
        self._swept = now
        over = [mark for mark, known in self._known.items() if known[1] + SKEW_SECONDS < now]
        self._free += [self._known.pop(mark)[0] for mark in over]


class Receiver:
    """The receiving side: which datagrams are logins that count.

    For each datagram call `receive`. Where it returns a login, record it and send what `answer`
    gives; where it returns octets, send those; it raises PacketError for the rest, which get no
    answer: nobody learns from outside whether there is a key, or which. An answer is never longer
    than what it answers.
    """

    def __init__(
        self,
        key: bytes | None,
        callers: tuple[Network, ...],
        started: float,
        *,
        is_insecure: bool = False,
        received: ReceivedLogins | None = None,
    ) -> None:
        """`callers`: who may tell of logins besides loopback addresses. `is_insecure`: take
        relay-ctrl's own form from all of them. Without a key it is taken from loopback.
        `received`: a memory that others share or that is kept, complete since `started`."""
        if key is not None and len(key) < MIN_KEY_OCTETS:
            raise ValueError(f"the key must have at least {MIN_KEY_OCTETS} octets")
        self._key = key
        self._callers = callers
        self._is_insecure = is_insecure
        self._started = started
        self._received = ReceivedLogins() if received is None else received

    def receive(self, data: bytes, caller: ClientAddress, now: float) -> PeerLogin | bytes:
        """A login to be recorded, or an answer to be repeated. Raises PacketError."""
        is_local = any(caller in network for network in _LOOPBACK)
        if not is_local and not any(caller in network for network in self._callers):
            raise PacketError("not a caller", "stranger")
        if len(data) > MAX_OCTETS:
            raise PacketError("too long", "too-long")
        if not data.startswith(b"popgate-"):
            if not (self._is_insecure or (self._key is None and is_local)):
                raise PacketError("not signed", "unsigned")
            return PeerLogin(plain_login(data), "", "", now, "")
        if self._key is None:
            raise PacketError("signed, and there is no key here", "no-key")
        login = _read_login(data, self._key)
        if abs(login.sent - now) > SKEW_SECONDS:
            raise PacketError(f"sent {round(now - login.sent)} seconds ago by its own clock", "clock")
        if login.sent < self._started:
            raise PacketError("sent before this receiver started", "too-early")
        state = self._received.state(login.mark)
        if state == UNANSWERED:
            raise PacketError("repeated before it was answered", "unanswered")
        if state is not None:
            return self._answer(login.nonce, state, self._key)
        self._received.add(login.mark, login.sent, now)
        return login

    def answer(self, login: PeerLogin, *, is_done: bool) -> bytes | None:
        """What to send back for a login that `receive` returned; None: nothing. Raises PacketError
        where a kept memory cannot be written."""
        if not login.is_signed or self._key is None:
            return ANSWER if is_done else None
        state = DONE if is_done else NOT_DONE
        self._received.answered(login.mark, state)
        return self._answer(login.nonce, state, self._key)

    def _answer(self, nonce: str, state: int, key: bytes) -> bytes:
        return _signed(f"{_ANSWER} {nonce} {'done' if state == DONE else 'not-done'}\n", key)


def _read_login(data: bytes, key: bytes) -> PeerLogin:
    fields = _verified(data, key)
    if len(fields) != 6 or fields[0] != _LOGIN:
        raise PacketError("not a login")
    _, sent, nonce, address, user, domain = fields
    if not sent.isdigit() or len(sent) > 16:
        raise PacketError("no time")
    if len(nonce) != _NONCE_LENGTH or not _HEX.issuperset(nonce):
        raise PacketError("no nonce")
    try:
        return PeerLogin(
            ClientAddress.parse(address),
            "" if user == "-" else user,
            "" if domain == "-" else domain,
            int(sent) / 1000,
            nonce,
            bytes.fromhex(data[-_MAC_LENGTH:].decode("ascii"))[:MARK_OCTETS],
        )
    except AddressError:
        raise PacketError("no address") from None


def _signed(text: str, key: bytes) -> bytes:
    data = text.encode("ascii")
    return data + hmac.digest(key, data, "sha256").hex().encode("ascii")


def _verified(data: bytes, key: bytes) -> list[str]:
    """The fields of a datagram that the key signed. Raises PacketError."""
    text, mac = data[:-_MAC_LENGTH], data[-_MAC_LENGTH:]
    if len(data) > MAX_OCTETS or not text.endswith(b"\n"):
        raise PacketError("not of this form")
    if not hmac.compare_digest(mac, hmac.digest(key, text, "sha256").hex().encode("ascii")):
        raise PacketError("the signature is wrong", "signature")
    try:
        return text[:-1].decode("ascii").split(" ")
    except UnicodeDecodeError:
        raise PacketError("not ASCII") from None
