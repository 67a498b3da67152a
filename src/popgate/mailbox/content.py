"""What is kept of a message's content, made by reading it."""

from collections.abc import Callable, Iterator

from popgate.mailbox.folders import Parsed
from popgate.message.part import Part

Read = Callable[[int, int | None], Iterator[bytes]]
"""The wire form from an octet on, so many octets or all of them."""

MAX_HEADER = 65536


def parsed_of(read: Read) -> Parsed:
    """Reads the message once for its structure, and of one part again what the preview needs."""
    whole = b"".join(read(0, None))
    end = whole.find(b"\r\n\r\n")
    body = len(whole) if end < 0 else end + 4
    lines = whole.count(b"\n", body)
    root = Part("text", "plain", (("charset", "us-ascii"),), "7bit", 0, body, len(whole), lines)
    return Parsed(whole[:body][:MAX_HEADER], root, whole[body : body + 200].decode("ascii", "replace"))


def root_to_octets(root: Part) -> bytes:
    return b"%d %d %d" % (root.body, root.end, root.lines)


def root_from_octets(octets: bytes) -> Part:
    """Raises ValueError, TypeError or IndexError for what `root_to_octets` has not written."""
    body, end, lines = map(int, octets.split())
    return Part("text", "plain", (("charset", "us-ascii"),), "7bit", 0, body, end, lines)
