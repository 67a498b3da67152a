"""Reading message bodies in blocks, with one strict reading of line ends.

Neither reader ever looks at single lines: a block is searched for the end of the body, its line
ends are taken out, and the dots at line starts are taken off, each by one call that runs at
memory speed. A CR or LF that is left stands alone. What may be the beginning of something
longer is held back, so that the result does not depend on how the client cut its bytes.

DotReader and ChunkReader know the two framings; BodyReader takes the octets of one message from
the input, within the limits. What is replied to whom is the engine's business.
"""

import enum

from popgate.protocols.lines import InputBuffer

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
    # Counting CR and LF would say the same, at three times the cost: count is slow for single octets.
    text = block.replace(b"\r\n", b"")
    if b"\n" in text or b"\r" in text or b"\0" in text:
        raise BadBody


class Progress(enum.Enum):
    """What BodyReader.read has come to, when it has no content to give."""

    STARVED = "starved"  # more octets are needed
    MORE = "more"  # octets were used up; read again
    CHUNK = "chunk"  # a BDAT chunk is complete, and not the last one
    COMPLETE = "complete"  # the message is, or the chunk that was to be dropped
    TOO_LARGE = "too-large"  # told once; what still comes is dropped
    ENDLESS = "endless"  # far too large: nothing tells where it would end
    BAD = "bad"  # a bare CR, a bare LF or a NUL


_BLOCK = 262144  # octets looked at in one go


class BodyReader:
    """Takes the octets of one message from `source`.

    `message_bytes`: the largest content; `swallow_bytes`: how much is read of a message by DATA
    before it is given up. `octets`: of content so far.
    """

    __slots__ = (
        "_chunks",
        "_dots",
        "_is_dropping",
        "_is_finished",
        "_is_last",
        "_message_bytes",
        "_raw_octets",
        "_remaining",
        "_source",
        "_swallow_bytes",
        "octets",
    )

    def __init__(self, source: InputBuffer, *, message_bytes: int, swallow_bytes: int) -> None:
        self._source = source
        self._message_bytes = message_bytes
        self._swallow_bytes = swallow_bytes
        self._dots: DotReader | None = None
        self._chunks = ChunkReader()
        self._raw_octets = 0
        self._remaining = 0  # octets of the present chunk still to come
        self._is_last = False
        self._is_finished = False
        self._is_dropping = False
        self.octets = 0

    def begin_data(self) -> None:
        """The body comes by DATA."""
        self._dots = DotReader()

    def begin_chunk(self, size: int, *, is_last: bool, is_dropped: bool = False) -> None:
        """A chunk of `size` octets comes by BDAT. `is_dropped`: it and its message were refused."""
        self._remaining = size
        self._is_last = is_last
        self._is_dropping = is_dropped

    def fits(self, size: int) -> bool:
        """Whether a chunk of `size` octets keeps the message within its limit."""
        return self.octets + size <= self._message_bytes

    def read(self) -> bytes | Progress:
        """Content (never empty), or what has been come to."""
        return self._read_chunk() if self._dots is None else self._read_dots(self._dots)

    def _read_dots(self, reader: DotReader) -> bytes | Progress:
        if reader.is_complete:
            return Progress.COMPLETE
        source = self._source
        octets = source.take(min(_BLOCK, self._swallow_bytes - self._raw_octets))
        if not octets:
            return Progress.STARVED
        self._raw_octets += len(octets)
        try:
            block = reader.feed(octets)
        except BadBody:
            return Progress.BAD
        if reader.is_complete:
            source.feed(reader.rest + source.take(len(source)))
        elif self._raw_octets >= self._swallow_bytes:
            return Progress.ENDLESS
        if self._is_dropping:
            return Progress.MORE
        self.octets += len(block)
        if self.octets > self._message_bytes:
            self._is_dropping = True
            return Progress.TOO_LARGE
        return block or Progress.MORE

    def _read_chunk(self) -> bytes | Progress:
        if self._remaining:
            octets = self._source.take(min(_BLOCK, self._remaining))
            if not octets:
                return Progress.STARVED
            self._remaining -= len(octets)
            if self._is_dropping:
                return Progress.MORE
            self.octets += len(octets)
            try:
                return self._chunks.feed(octets) or Progress.MORE
            except BadBody:
                return Progress.BAD
        if self._is_dropping:
            return Progress.COMPLETE
        if not self._is_last:
            return Progress.CHUNK
        if not self._is_finished:
            self._is_finished = True
            try:
                return self._chunks.finish() or Progress.COMPLETE
            except BadBody:
                return Progress.BAD
        return Progress.COMPLETE
