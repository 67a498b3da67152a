"""APOP, CRAM-MD5 and SCRAM: what a client that knows the secret would have sent.

Pure. All need the secret itself, so only accounts that keep one recoverable can use them.
"""

import hashlib
import hmac
import stringprep
import unicodedata

from popgate.protocols.sasl import ScramKeys

# Stands in for the secret of names that have none, so that their failure does the same work.
DUMMY_SECRET = b"no secret of anybody"


def is_apop_proof(digest: bytes, challenge: bytes, secret: bytes) -> bool:
    """RFC 1939 7: the digest is MD5 over the challenge, angle brackets included, and the secret,
    as 32 lower-case hexadecimal digits."""
    # hexdigest writes lower case only, so an upper-case digest is never equal.
    right = hashlib.md5(challenge + secret, usedforsecurity=False).hexdigest().encode()
    return hmac.compare_digest(right, digest)


def is_cram_md5_proof(digest: bytes, challenge: bytes, secret: bytes) -> bool:
    """RFC 2195 2: the digest is HMAC-MD5 of the challenge under the secret, 32 lower-case
    hexadecimal digits."""
    right = hmac.new(secret, challenge, "md5").hexdigest().encode()
    return hmac.compare_digest(right, digest)


SCRAM_ITERATIONS = 4096
"""RFC 7677 4: at least. They are to make a stolen file of keys hard to guess from, and none are kept here."""


def scram_keys(secret: bytes, salt: bytes, origin: bytes = b"") -> ScramKeys:
    """RFC 5802 3. Takes a millisecond."""
    salted = hashlib.pbkdf2_hmac("sha256", _prepared(secret), salt, SCRAM_ITERATIONS)
    client_key = hmac.digest(salted, b"Client Key", "sha256")
    return ScramKeys(
        salt,
        SCRAM_ITERATIONS,
        hashlib.sha256(client_key).digest(),
        hmac.digest(salted, b"Server Key", "sha256"),
        origin,
    )


def _prepared(secret: bytes) -> bytes:
    """RFC 5802 5.1: the password by SASLprep (RFC 4013 2), as the client does it; what is no such text as it
    is."""
    if secret.isascii():
        return secret
    try:
        text = secret.decode("utf-8")
    except UnicodeDecodeError:
        return secret
    mapped = [
        " " if stringprep.in_table_c12(char) else char for char in text if not stringprep.in_table_b1(char)
    ]
    return unicodedata.normalize("NFKC", "".join(mapped)).encode("utf-8")
