"""Looking at a message's header without parsing the message: hops, loops, return path.

Works on the octets as they are: nothing is decoded or rewritten that need not be, and a
header of any size costs no more than HEADER_OCTETS.
"""

import re
from collections.abc import Iterable, Iterator

HEADER_OCTETS = 262144
"""So much of the header is looked at; what stands below is passed on unseen."""

_RECEIVED = re.compile(rb"(?im)^received[ \t]*:")
_DELIVERED_TO = re.compile(rb"(?im)^delivered-to[ \t]*:[ \t]*([^\r\n]*)")
_RETURN_PATH = re.compile(rb"(?im)^return-path[ \t]*:[^\r\n]*(?:\r\n[ \t][^\r\n]*)*\r\n")


def split(blocks: Iterable[bytes]) -> tuple[bytes, bytes, Iterator[bytes]]:
    """The header with the end of its last line, what was read behind it, and the unread rest.

    Without an empty line all of it is header (a message without a body).
    """
    rest = iter(blocks)
    head = bytearray()
    for block in rest:
        start = max(0, len(head) - 3)
        head += block
        if head.startswith(b"\r\n"):  # no header at all
            return b"", bytes(head), rest
        end = head.find(b"\r\n\r\n", start)
        if end >= 0:
            return bytes(head[: end + 2]), bytes(head[end + 2 :]), rest
        if len(head) >= HEADER_OCTETS:
            break
    # cut at a line end, so that what is matched per line is a line
    end = head.rfind(b"\r\n") + 2
    if end < 2:
        return b"", bytes(head), rest
    return bytes(head[:end]), bytes(head[end:]), rest


def hops(header: bytes) -> int:
    """How many Received fields there are (RFC 5321 6.3)."""
    return len(_RECEIVED.findall(header))


def was_delivered_to(header: bytes, address: str) -> bool:
    """Whether the message has been delivered to `address` before: it goes round in a circle."""
    wanted = address.lower().encode("utf-8", "replace")
    return any(found.strip().lower() == wanted for found in _DELIVERED_TO.findall(header))


def without_return_path(header: bytes) -> bytes:
    """RFC 5321 4.4: the final delivery writes Return-Path, so one from outside is removed."""
    return _RETURN_PATH.sub(b"", header)
