"""What is kept of a message's content, made by reading it."""

from collections.abc import Callable, Iterator

from popgate.mailbox.folders import Parsed
from popgate.message import structure, structure_json
from popgate.message.part import Part
from popgate.message.preview import preview

Read = Callable[[int, int | None], Iterator[bytes]]
"""The wire form from an octet on, so many octets or all of them."""

MAX_HEADER = 65536


def parsed_of(read: Read) -> Parsed:
    """Reads the message once for its structure, and of one part again what the preview needs."""
    root, header = structure.parse(read(0, None), header_octets=MAX_HEADER)
    return Parsed(header, root, preview(root, read))


def root_to_octets(root: Part) -> bytes:
    return structure_json.to_json(root)


def root_from_octets(octets: bytes) -> Part:
    """Raises ValueError, TypeError or IndexError for what `root_to_octets` has not written."""
    return structure_json.from_json(octets)
