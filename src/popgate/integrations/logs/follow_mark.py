"""How far a log has been read, in a form that survives renaming, copying, compression and a restart.

A file's name says nothing (it is rotated), nor does its number (it is used again), nor its length
(it is truncated and grows). What stands in it does: a mark keeps hashes of its beginning and of what
stands just before the place that was reached. Log lines begin with the time, so no two files of
a log begin alike.
"""

import hashlib
from collections.abc import Callable, Mapping

from popgate.values.value import value

HEAD_OCTETS = 512
TAIL_OCTETS = 256
_HASH_OCTETS = 16

ReadAt = Callable[[int, int], bytes]
"""(offset, octets): what stands there; less at the end of the file."""


@value
class Mark:
    """`offset`: the first octet that has not been read. `device` and `inode` are a hint where to look.

    `is_within`: that octet is inside a line too long to be read, whose rest is no line. `modified_ns`: when
    the file was written to last, as far as it was read; of an empty one nothing else is known.
    """

    device: int
    inode: int
    offset: int
    head: str
    tail: str
    is_within: bool = False
    modified_ns: int = 0

    @classmethod
    def of(
        cls,
        device: int,
        inode: int,
        offset: int,
        head: bytes,
        tail: bytes,
        *,
        is_within: bool,
        modified_ns: int,
    ) -> "Mark":
        """`head`: at least the first HEAD_OCTETS that were read; `tail`: at least the last TAIL_OCTETS."""
        return cls(
            device,
            inode,
            offset,
            _print(head[: min(offset, HEAD_OCTETS)]),
            _print(tail[-TAIL_OCTETS:]),
            is_within,
            modified_ns,
        )

    def fits(self, read: ReadAt) -> bool:
        """Is this a file that was read to `offset`? A file of which nothing was read fits nothing."""
        if self.offset <= 0:
            return False
        if _print(read(0, min(self.offset, HEAD_OCTETS))) != self.head:
            return False
        begin = max(0, self.offset - TAIL_OCTETS)
        tail = read(begin, self.offset - begin)
        return begin + len(tail) == self.offset and _print(tail) == self.tail

    def to_json(self) -> dict[str, object]:
        return {
            "device": self.device,
            "inode": self.inode,
            "offset": self.offset,
            "head": self.head,
            "tail": self.tail,
            "is_within": self.is_within,
            "modified_ns": self.modified_ns,
        }

    @classmethod
    def from_json(cls, document: object) -> "Mark | None":
        """None for what is no mark."""
        if not isinstance(document, Mapping):
            return None
        device, inode, offset = (document.get(name) for name in ("device", "inode", "offset"))
        head, tail = document.get("head"), document.get("tail")
        if not (isinstance(device, int) and isinstance(inode, int) and isinstance(offset, int)):
            return None
        if offset < 0 or not isinstance(head, str) or not isinstance(tail, str):
            return None
        modified_ns = document.get("modified_ns")
        return cls(
            device,
            inode,
            offset,
            head,
            tail,
            document.get("is_within") is not False,
            modified_ns if isinstance(modified_ns, int) else 0,
        )


def _print(octets: bytes) -> str:
    return hashlib.blake2b(octets, digest_size=_HASH_OCTETS).hexdigest()
