"""The cache of verified passwords.

A device that polls every minute must not cost a slow hash each time. What is kept is a
keyed digest over the name, the password and the stored hash that it was verified against;
so the memory holds nothing that a password can be tried against without the key, and
whoever changes the password makes the entry unreachable in the same moment, in every process.

A hit answers faster than a miss. Only somebody who sends the right password can make one:
a wrong password takes the slow path whether or not the account is in the cache, and nothing
is kept of failures. So the cache shows a guesser nothing.
"""

import secrets
from collections import OrderedDict
from hashlib import blake2b

from popgate.values.clock import Clock
from popgate.values.identity import Identity

_DIGEST_BYTES = 24


class VerifiedPasswords:
    """Remembers at most `entries` verified passwords for `seconds` each; 0 seconds is off.

    An entry's time runs from the real verification; hits do not extend it.
    """

    def __init__(self, clock: Clock, seconds: float, entries: int = 20_000, key: bytes | None = None) -> None:
        self._clock = clock
        self._seconds = seconds
        self._entries = entries
        key = key if key is not None else secrets.token_bytes(32)
        self._keyed = blake2b(key=key, digest_size=_DIGEST_BYTES)  # copied for each digest: set up once
        self._until: OrderedDict[bytes, tuple[float, Identity | None]] = OrderedDict()

    def digest(self, name: str, password: bytes, stored: str) -> bytes:
        """The keyed digest that stands for these three; also fit to tell equal checks apart."""
        name_bytes = name.encode("utf-8", "surrogatepass")
        mixed = self._keyed.copy()
        mixed.update(b"%d,%d;" % (len(name_bytes), len(password)))
        mixed.update(name_bytes)
        mixed.update(password)
        mixed.update(stored.encode("utf-8", "surrogatepass"))
        return mixed.digest()

    def has(self, digest: bytes) -> bool:
        entry = self._until.get(digest)
        if entry is None:
            return False
        if entry[0] <= self._clock.monotonic():
            del self._until[digest]
            return False
        self._until.move_to_end(digest)
        return True

    def identity(self, digest: bytes) -> Identity | None:
        """The identity that was given to `add`."""
        entry = self._until.get(digest)
        return None if entry is None else entry[1]

    def add(self, digest: bytes, identity: Identity | None = None) -> None:
        """`identity`: who the login turned out to be, where the name alone does not tell."""
        if self._seconds <= 0:
            return
        self._until[digest] = (self._clock.monotonic() + self._seconds, identity)
        self._until.move_to_end(digest)
        while len(self._until) > self._entries:
            self._until.popitem(last=False)

    def __len__(self) -> int:
        return len(self._until)
