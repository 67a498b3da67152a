"""The last look at what goes out: line ends, and eight bits for a peer that takes seven.

The intake lets no bare CR, bare LF or NUL in. Whatever came into the queue by another
way is stopped here: such an octet may be an end of data for somebody behind the peer.
"""

import email
import email.policy
from email.generator import BytesGenerator
from io import BytesIO


def fault(content: bytes) -> str:
    """Why `content` must not go out, "" when it may."""
    pairs = content.count(b"\r\n")
    if content.count(b"\n") != pairs or content.count(b"\r") != pairs:
        return "the message holds a CR or LF that is no line end"
    if b"\0" in content:
        return "the message holds a NUL"
    return ""


def to_seven_bits(content: bytes) -> bytes | None:
    """RFC 6152 3: the message with its 8-bit parts in quoted-printable or base64.

    None when that cannot be done (no MIME, so nobody says what the octets mean).
    """
    try:
        policy = email.policy.compat32.clone(linesep="\r\n", cte_type="7bit", max_line_length=None)
        message = email.message_from_bytes(content, policy=policy)
        if "mime-version" not in message:
            return None
        out = BytesIO()
        BytesGenerator(out, mangle_from_=False, policy=policy).flatten(message)
    except Exception:
        return None  # any surprise of the parser: the sender is told, nothing garbled goes out
    converted = out.getvalue()
    return converted if converted.isascii() and not fault(converted) else None
