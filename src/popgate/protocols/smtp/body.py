"""Reading message bodies in blocks, with one strict reading of line ends.

Neither reader ever looks at single lines: a block is searched for the end of the body, its CR,
LF and CRLF are counted, and the dots at line starts are taken off, each by one call that runs
at memory speed. Counts that differ mean that a CR or LF stands alone. What may be the
beginning of something longer is held back, so that the result does not depend on how the
client cut its bytes.
"""

END = b"\r\n.\r\n"  # RFC 5321 4.1.1.4: only this ends a body
_TAILS = (b"\r\n.\r", b"\r\n.", b"\r\n", b"\r")  # proper beginnings of END, the longest first


class BadBody(Exception):
    """A bare CR, a bare LF or a NUL."""


class DotReader:
    """The body after DATA. It stops for good after `is_complete` or BadBody."""

    __slots__ = ("_at_start", "_held", "is_complete", "rest")

    def __init__(self) -> None:
        self._held = b"\r\n"  # as if a line end came before: a dot may stand on the first line
        self._at_start = True
        self.is_complete = False
        self.rest = b""
        """What came behind the end; set together with `is_complete`."""

    def feed(self, octets: bytes) -> bytes:
        """Take a block; returns what is content now. Raises BadBody."""
        data = self._held + octets
        dot = data.find(b"\r\n.")
        end = data.find(END, dot) if dot >= 0 else -1
        if end >= 0:
            self.is_complete = True
            self.rest = data[end + 5 :]
            block = data[: end + 2]
        else:
            held = _unfinished(data)
            self._held = data[len(data) - held :]
            block = data[: len(data) - held]
        _check(block)
        if dot != end:
            # RFC 5321 4.5.2: the first dot of a line goes. A lone dot on a line would have
            # been END, so there is no line here that it is not taken off.
            block = block.replace(b"\r\n.", b"\r\n")
        if self._at_start and block:
            self._at_start = False
            return block[2:]
        return block


class ChunkReader:
    """The body after BDAT commands: octets by count, the same rule for line ends."""

    __slots__ = ("_ends_line", "_held")

    def __init__(self) -> None:
        self._held = b""
        self._ends_line = False

    def feed(self, octets: bytes) -> bytes:
        """Take a block; returns what is content now. Raises BadBody."""
        data = self._held + octets
        if data.endswith(b"\r"):
            self._held = b"\r"
            data = data[:-1]
        else:
            self._held = b""
        _check(data)
        if data:
            self._ends_line = data.endswith(b"\n")
        return data

    def finish(self) -> bytes:
        """The last chunk is in; returns what is missing to the last line end. Raises BadBody."""
        if self._held:
            raise BadBody
        return b"" if self._ends_line else b"\r\n"


def _unfinished(data: bytes) -> int:
    for tail in _TAILS:
        if data.endswith(tail):
            return len(tail)
    return 0


def _check(block: bytes) -> None:
    lines = block.count(b"\r\n")
    if block.count(b"\n") != lines or block.count(b"\r") != lines or b"\0" in block:
        raise BadBody
