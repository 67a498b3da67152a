"""Stored passwords in the notation of Dovecot's passwd-file: `{SCHEME}value`, or a bare crypt string.

Reading says at once whether a value is usable, so that a bad line is found when the file is
read and not when somebody tries to log in.
"""

import base64
import binascii
import hashlib
import hmac
import re
from collections.abc import Callable

import bcrypt
from argon2 import extract_parameters
from argon2.exceptions import InvalidHashError
from passlib.hash import sha256_crypt, sha512_crypt  # type: ignore[import-untyped]

from popgate.auth.hashing import is_password
from popgate.values.value import value


class SchemeError(ValueError):
    """A stored password that cannot be used; the text says what would be right."""


@value
class StoredPassword:
    """`verify(password)` takes milliseconds when `cost` is not "", else microseconds; equal costs
    take equally long. `secret` is the password itself where the scheme keeps it."""

    verify: Callable[[bytes], bool]
    cost: str
    secret: bytes | None = None


_SCHEME = re.compile(r"\{([A-Za-z0-9-]+)(?:\.([A-Za-z0-9]+))?\}(.*)", re.DOTALL)
_BCRYPT = re.compile(r"\$2[abxy]\$(\d\d)\$[./A-Za-z0-9]{53}")
_BCRYPT_BYTES = 72  # bcrypt reads no further
_SALTED = {"SSHA512": "sha512", "SSHA256": "sha256"}


def read_stored_password(text: str) -> StoredPassword:
    """Read `{SCHEME}value`, `{SCHEME.b64}value`, `{SCHEME.hex}value` or a crypt string.
    Raises SchemeError."""
    match = _SCHEME.fullmatch(text)
    if match is None:
        return _crypt(text)
    scheme, encoding, content = match[1].upper(), (match[2] or "").lower(), match[3]
    if scheme in ("PLAIN", "CLEAR", "CLEARTEXT"):
        secret = _decoded(content, encoding) if encoding else content.encode("utf-8", "surrogateescape")
        if not secret:
            raise SchemeError("the password is empty")
        return StoredPassword(lambda password: hmac.compare_digest(secret, password), "", secret)
    if scheme in _SALTED:
        return _salted(_SALTED[scheme], _decoded(content, encoding or "b64"))
    if encoding:
        content = _decoded(content, encoding).decode("ascii", "replace")
    if scheme in ("ARGON2ID", "ARGON2I"):
        return _argon2(content)
    if scheme in ("BCRYPT", "BLF-CRYPT"):
        return _bcrypt(content)
    if scheme == "SHA512-CRYPT":
        return _sha_crypt(sha512_crypt, content)
    if scheme == "SHA256-CRYPT":
        return _sha_crypt(sha256_crypt, content)
    if scheme == "CRYPT":
        return _crypt(content)
    raise SchemeError(
        f"the scheme {{{scheme}}} is not supported; use ARGON2ID, BLF-CRYPT, SHA512-CRYPT, SSHA512 or PLAIN"
    )


def _crypt(content: str) -> StoredPassword:
    if content.startswith("$6$"):
        return _sha_crypt(sha512_crypt, content)
    if content.startswith("$5$"):
        return _sha_crypt(sha256_crypt, content)
    if content.startswith("$2"):
        return _bcrypt(content)
    if content.startswith("$argon2"):
        return _argon2(content)
    raise SchemeError(
        "not a known crypt string ($6$, $5$, $2y$, $argon2id$); write the scheme, as {PLAIN}..."
    )


def _argon2(content: str) -> StoredPassword:
    try:
        parameters = extract_parameters(content)
    except InvalidHashError as error:
        raise SchemeError("not an argon2 hash ($argon2id$v=19$m=...,t=...,p=...$salt$hash)") from error
    cost = f"{parameters.type.name} {parameters.memory_cost} {parameters.time_cost} {parameters.parallelism}"
    return StoredPassword(lambda password: is_password(content, password), cost)


def _bcrypt(content: str) -> StoredPassword:
    match = _BCRYPT.fullmatch(content)
    if match is None or not 4 <= int(match[1]) <= 31:
        raise SchemeError("not a bcrypt hash ($2y$NN$ and 53 characters)")
    stored = content.encode()

    def verify(password: bytes) -> bool:
        if b"\0" in password:
            return False
        try:
            return bcrypt.checkpw(password[:_BCRYPT_BYTES], stored)
        except ValueError:  # a salt that no bcrypt makes
            return False

    return StoredPassword(verify, f"bcrypt {match[1]}")


def _sha_crypt(scheme: "type[sha512_crypt] | type[sha256_crypt]", content: str) -> StoredPassword:
    try:
        parsed = scheme.from_string(content)
    except ValueError as error:
        raise SchemeError(f"not a {scheme.name} hash: {error}") from error
    if not parsed.checksum:
        raise SchemeError(f"not a {scheme.name} hash: the salt stands alone")
    return StoredPassword(
        lambda password: b"\0" not in password and bool(scheme.verify(password, content)),
        f"{scheme.name} {parsed.rounds}",
    )


def _salted(algorithm: str, content: bytes) -> StoredPassword:
    size = hashlib.new(algorithm).digest_size
    if len(content) <= size:
        raise SchemeError(f"not a salted {algorithm} hash: {size} bytes and a salt behind them are needed")
    digest, salt = content[:size], content[size:]
    return StoredPassword(
        lambda password: hmac.compare_digest(hashlib.new(algorithm, password + salt).digest(), digest), ""
    )


def _decoded(content: str, encoding: str) -> bytes:
    try:
        if encoding == "hex":
            return bytes.fromhex(content)
        if encoding in ("b64", "base64"):
            return base64.b64decode(content, validate=True)
    except (ValueError, binascii.Error) as error:
        raise SchemeError(f"the value is not {encoding}") from error
    raise SchemeError(f"the encoding .{encoding} is not known; use .b64 or .hex")
