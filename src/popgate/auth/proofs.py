"""APOP and CRAM-MD5: what a client that knows the secret would have sent.

Pure. Both need the secret itself, so only accounts that keep one recoverable can use them.
"""

import hashlib
import hmac

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
