"""How popgate hashes the passwords that it stores: argon2id, 19 MiB, two passes, one lane.

These are the smallest parameters that current advice allows, about 27 ms on one core; a
server that answers logins cannot afford the library's default of 144 ms.
"""

from argon2 import PasswordHasher
from argon2.exceptions import InvalidHashError, VerificationError
from argon2.low_level import Type

_HASHER = PasswordHasher(time_cost=2, memory_cost=19456, parallelism=1, type=Type.ID)

# Verified against for names that do not exist: the same work as a real account's.
DUMMY_HASH = (
    "$argon2id$v=19$m=19456,t=2,p=1$cG9wZ2F0ZS1kdW1teS1zYQ$k1dJ4tTnQpQeW3lQm0aN0g2cT7m0V8r3nQ1xqL9sQ5M"
)


def hash_password(password: bytes) -> str:
    """A new hash with a salt of its own, in the PHC text form."""
    return _HASHER.hash(password)


def is_password(stored: str, password: bytes) -> bool:
    """Does `password` belong to the argon2 hash `stored`? False too for text that is no such hash."""
    try:
        return _HASHER.verify(stored, password)
    except (VerificationError, InvalidHashError):
        return False


def is_outdated(stored: str) -> bool:
    """Was `stored` made with other parameters than new hashes are?"""
    return _HASHER.check_needs_rehash(stored)
