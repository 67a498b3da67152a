"""Line ends between the wire (CRLF) and the disk (LF), block by block.

Messages lie on disk with LF, as all Maildir programs leave them; POP3 and SMTP speak CRLF.
The two conversions here are inverse to each other for every body that uses CRLF, wherever
its blocks are cut:

- to the disk, CRLF becomes LF; after another CR it stays, because a lone CR before LF on
  disk reads as a line end that has its CR already;
- from the disk, LF becomes CRLF unless it has a CR; a bare CR and a NUL stay as they are;
- both ways a last line without its end gets one, and a message of no bytes stays empty.
"""

import re
from collections.abc import Iterable, Iterator

BLOCK = 65536
# so that a block with its line ends doubled, and a CR held back before, is at most BLOCK
READ_BLOCK = BLOCK // 2 - 1

_LINE_END_OF_ITS_OWN = re.compile(rb"(?<!\r)\r\n")


class StoredForm:
    """The stored form of a body: feed it blocks, write out what it gives, `finish` it.

    `stored_octets` and `wire_octets` count what was given out, on disk and in CRLF form.
    """

    __slots__ = ("_ends_line", "_held", "stored_octets", "wire_octets")

    def __init__(self) -> None:
        self._held = b""  # up to two CRs that may belong to a line end
        self._ends_line = True
        self.stored_octets = 0
        self.wire_octets = 0

    def feed(self, block: bytes) -> bytes:
        data = self._held + block if self._held else block
        if data.endswith(b"\r"):
            self._held = b"\r\r" if data.endswith(b"\r\r") else b"\r"
            data = data[: -len(self._held)]
        else:
            self._held = b""
        if b"\r\r\n" in data:
            return self._count(_LINE_END_OF_ITS_OWN.sub(b"\n", data))
        return self._count(data.replace(b"\r\n", b"\n"))

    def finish(self) -> bytes:
        """The rest of the body, its last line ended."""
        held, self._held = self._held, b""
        if held:
            return self._count(b"\n" if held == b"\r" else b"\r\r\n")
        return b"" if self._ends_line else self._count(b"\n")

    def _count(self, data: bytes) -> bytes:
        if data:
            self._ends_line = data.endswith(b"\n")
            self.stored_octets += len(data)
            self.wire_octets += wire_size(data)
        return data


def wire_size(data: bytes) -> int:
    """The size of stored `data` in CRLF form; it must neither begin nor end inside a line end."""
    return len(data) + data.count(b"\n") - data.count(b"\r\n")


def measure(blocks: Iterable[bytes]) -> int:
    """How many octets `to_wire` would give for the same blocks."""
    octets = 0
    before = b"\n"
    for block in blocks:
        octets += wire_size(block)
        if before == b"\r" and block.startswith(b"\n"):
            octets -= 1
        before = block[-1:] or before
    return octets + _missing_end(before)


def _missing_end(last: bytes) -> int:
    return 0 if last == b"\n" else 1 if last == b"\r" else 2


def to_wire(blocks: Iterable[bytes]) -> Iterator[bytes]:
    """Stored blocks (of up to READ_BLOCK) as CRLF blocks (of up to BLOCK); empty ones are left out."""
    held = b""
    last = b"\n"
    for block in blocks:
        data = held + block if held else block
        if data.endswith(b"\r"):
            held = b"\r"
            data = data[:-1]
        else:
            held = b""
        if b"\r" in data:
            data = data.replace(b"\r\n", b"\n")
        if data:
            last = data[-1:]
            yield data.replace(b"\n", b"\r\n")
    if held or last != b"\n":
        yield b"\r\n"


def top(blocks: Iterable[bytes], body_lines: int) -> Iterator[bytes]:
    """Of a message in CRLF form the header, the empty line and `body_lines` lines of the body."""
    tail = b"\r\n"  # a message may begin with its empty line
    in_header = True
    left = body_lines
    for block in blocks:
        start = 0
        if in_header:
            joined = tail + block
            found = joined.find(b"\r\n\r\n")
            if found < 0:
                tail = joined[-3:]
                yield block
                continue
            in_header = False
            start = found + 4 - len(tail)
        lines = block.count(b"\n", start)
        if lines < left:
            left -= lines
            yield block
            continue
        end = start
        for _ in range(left):
            end = block.index(b"\n", end) + 1
        if end:
            yield block[:end]
        return
