"""The structure of a message from one pass over its octets.

The message comes in blocks cut anywhere, and of it no more is held than a block, a header up to a
limit, and as many octets as a boundary is long. Only delimiters and line ends are looked for, by
`bytes.find` and `bytes.count`, so the time is that of reading, however the lines look.

How it works: a stack of open entities. In a header the next empty line or delimiter is looked for;
in a body the next delimiter of any open multipart. A delimiter of an outer multipart ends all
within it, which is what broken mail without closing delimiters needs. As in RFC 2046 5.1.1 a line
that begins with a delimiter is one; where two open boundaries fit, the longer one is meant.

Where RFC 2046 leaves a broken message open:
- a multipart without usable boundary is text/plain; one without parts has an empty text/plain part;
- message/rfc822 in base64 or quoted-printable, which RFC 2046 5.2.1 forbids, is application/octet-stream,
  and so is whatever is nested too deep, and the rest of a message that has too many parts;
- a header may end by a delimiter instead of an empty line, and its part has no body then.
"""

from collections.abc import Iterable

from popgate.message import header as header_fields
from popgate.message import mime_fields
from popgate.message.part import Parameters, Part
from popgate.message.structure_json import from_json, to_json

__all__ = ["parse", "to_json", "from_json"]

_LONGEST_BOUNDARY = 1000  # RFC 2046 5.1.1 allows 70
_UNKNOWN, _NONE = -2, -1
_ASCII: Parameters = (("charset", "us-ascii"),)


def parse(
    blocks: Iterable[bytes], *, most_parts: int = 1000, most_depth: int = 50, header_octets: int = 65536
) -> tuple[Part, bytes]:
    """The tree of parts, and the header with its empty line; of a longer one its first `header_octets`.

    What comes after `most_parts` parts, and what is nested deeper than `most_depth`, is one part.
    """
    splitter = _Splitter(most_parts, most_depth, header_octets)
    for block in blocks:
        if block:
            splitter.feed(block)
    return splitter.finish()


class _Open:
    """An entity whose end has not come."""

    __slots__ = ("about", "body", "delimiter", "hit", "lines_before", "parts", "start")

    def __init__(self, start: int, body: int, lines_before: int, about: "_About") -> None:
        self.start = start
        self.body = body
        self.lines_before = lines_before
        self.about = about
        self.parts: list[Part] = []
        self.delimiter: bytes | None = about.delimiter
        self.hit = _UNKNOWN

    def closed(self, end: int, lines: int) -> Part:
        about = self.about
        parts = self.parts
        if about.type == "multipart" and not parts:
            parts = [Part("text", "plain", _ASCII, "7bit", end, end, end, 0)]
        return Part(
            about.type,
            about.subtype,
            about.parameters,
            about.encoding,
            self.start,
            self.body,
            end,
            lines - self.lines_before,
            *about.others,
            tuple(parts),
        )


_Others = tuple[
    str | None, str | None, str | None, tuple[str, Parameters] | None, tuple[str, ...], str | None
]
_NO_OTHERS: _Others = (None, None, None, None, (), None)


class _About:
    """What a header says of its part."""

    __slots__ = ("delimiter", "encoding", "others", "parameters", "subtype", "type")

    def __init__(self, type_: str, subtype: str, parameters: Parameters, encoding: str = "7bit") -> None:
        self.type = type_
        self.subtype = subtype
        self.parameters = parameters
        self.encoding = encoding
        self.others = _NO_OTHERS
        self.delimiter: bytes | None = None

    @property
    def has_message(self) -> bool:
        return self.type == "message" and self.subtype in ("rfc822", "global")

    def make_opaque(self) -> None:
        self.type, self.subtype = "application", "octet-stream"
        self.delimiter = None


def _mime_fields(header: bytes) -> dict[bytes, bytes]:
    """The first field of each name that begins with Content-, by the name's rest."""
    lower = header.lower()
    found: dict[bytes, bytes] = {}
    at = 0 if lower.startswith(b"content-") else lower.find(b"\ncontent-") + 1
    while at or not found:
        if not lower.startswith(b"content-", at):
            break
        end = header_fields.end_of_field(header, at)
        colon = lower.find(b":", at, end)
        if colon > 0:
            found.setdefault(lower[at + 8 : colon].rstrip(b" \t"), header[colon + 1 : end])
        at = lower.find(b"\ncontent-", end - 1) + 1
        if not at:
            break
    return found


def _describe(header: bytes, in_digest: bool) -> _About:
    found = _mime_fields(header)
    written = mime_fields.text_of(found.get(b"type"))
    stated = mime_fields.content_type(written) if written else None
    if stated is not None:
        about = _About(*stated)
    elif in_digest and written is None:
        # RFC 2046 5.1.5
        about = _About("message", "rfc822", ())
    else:
        # RFC 2045 5.2
        about = _About("text", "plain", _ASCII)
    if not found:
        return about
    encoding = mime_fields.text_of(found.get(b"transfer-encoding"))
    if encoding:
        about.encoding = mime_fields.transfer_encoding(encoding)
    if len(found) > 1:
        disposition = mime_fields.text_of(found.get(b"disposition"))
        about.others = (
            mime_fields.text_of(found.get(b"id")),
            mime_fields.text_of(found.get(b"description")),
            mime_fields.text_of(found.get(b"md5")),
            mime_fields.disposition(disposition) if disposition else None,
            mime_fields.languages(mime_fields.text_of(found.get(b"language")) or ""),
            mime_fields.text_of(found.get(b"location")),
        )
    if about.type == "multipart":
        about.delimiter = _delimiter(about.parameters)
        if about.delimiter is None:
            about.type, about.subtype, about.parameters = "text", "plain", _ASCII
        else:
            about.encoding = about.encoding if about.encoding in ("7bit", "8bit", "binary") else "7bit"
    elif about.has_message and about.encoding not in ("7bit", "8bit", "binary"):
        about.make_opaque()
    return about


def _delimiter(parameters: Parameters) -> bytes | None:
    for name, boundary in parameters:
        if name == "boundary":
            octets = boundary.rstrip().encode("utf-8", "replace")
            return b"\n--" + octets if 0 < len(octets) <= _LONGEST_BOUNDARY else None
    return None


class _Splitter:
    """The pass itself. `data` is the window on the message, `base` the offset of its first octet.

    The window begins with an LF that is not in the message, so that each line has one before it.
    """

    def __init__(self, most_parts: int, most_depth: int, header_octets: int) -> None:
        self.most_parts = most_parts
        self.most_depth = most_depth
        self.header_octets = header_octets
        self.data = b"\n"
        self.base = -1
        self.at = 1
        self.counted = 0  # up to this offset LFs are in `lines`
        self.lines = 0
        self.stack: list[_Open] = []
        self.bounded: list[_Open] = []  # those of the stack that have a delimiter, outer ones first
        self.longest = 0  # of the delimiters
        self.parts = 0
        self.step = self._in_header
        self.header = bytearray()
        self.header_start = 0
        self.taken = 1  # up to here the window is in `header`
        self.first_header: bytes | None = None
        self.root: Part | None = None
        self.is_whole = False

    def feed(self, block: bytes) -> None:
        self.data += block
        for entity in self.bounded:
            entity.hit = _UNKNOWN
        while self.step():
            pass
        # what may be the beginning of an empty line or of a delimiter, with the line end before it
        keep = min(self.at - 2, len(self.data) - self.longest - 4)
        if keep > 0:
            self._count_lines(self.base + keep)
            if self.step == self._in_header:
                self._take(keep)
            self.data = self.data[keep:]
            self.base += keep
            self.at = max(self.at - keep, 0)
            self.taken = max(self.taken - keep, 0)

    def finish(self) -> tuple[Part, bytes]:
        self.is_whole = True
        for entity in self.bounded:
            entity.hit = _UNKNOWN
        while self.step():
            pass
        end = self.base + len(self.data)
        if self.step == self._in_header:
            self._take(len(self.data))
            if not self.stack or end > self.header_start or self.stack[-1].about.has_message:
                self._open(end, is_ended=True)
        self._close(0, end)
        assert self.root is not None
        return self.root, self.first_header or b""

    # The steps: each goes on in the window and returns whether there is more to do in it

    def _in_header(self) -> bool:
        data, search = self.data, self.at - 1
        end = data.find(b"\n\r\n", search)
        bare = data.find(b"\n\n", search, end + 1 if end >= 0 else len(data))
        after = bare + 2 if bare >= 0 else end + 3
        end = bare if bare >= 0 else end
        hit, entity = self._next_delimiter(search)
        if entity is not None and (end < 0 or hit < end):
            assert entity.delimiter is not None
            if not self.is_whole and hit + self.longest + 2 > len(data):
                self.at = hit + 1
                return False
            self._take(hit + 1)
            self._open(self.base + hit + 1, is_ended=True)
            return self._delimited(hit, entity, self.base + hit + 1)
        if end < 0:
            self.at = max(self.at, len(data) - self.longest - 2)
            return False
        self._take(after)
        self.at = after
        self._open(self.base + after, is_ended=False)
        return True

    def _in_body(self) -> bool:
        data = self.data
        hit, entity = self._next_delimiter(self.at - 1)
        if entity is None:
            self.at = max(self.at, len(data) - self.longest)
            return False
        assert entity.delimiter is not None
        if not self.is_whole and hit + self.longest + 2 > len(data):
            self.at = hit + 1
            return False
        # RFC 2046 5.1.1: the line end before a delimiter belongs to it
        end = hit - 1 if hit > 0 and data[hit - 1] == 13 else hit
        return self._delimited(hit, entity, self.base + end)

    def _behind_delimiter(self) -> bool:
        line_end = self.data.find(b"\n", self.at) + 1
        if not line_end:
            self.at = len(self.data)
            return False
        self.at = line_end
        if self.parts >= self.most_parts:
            about = _About("application", "octet-stream", ())
            offset = self.base + line_end
            self.stack.append(_Open(offset, offset, self._count_lines(offset), about))
            self.bounded.clear()
            self.longest = 0
            self.step = self._in_body
        else:
            self._begin_header()
        return True

    def _delimited(self, hit: int, entity: _Open, end: int) -> bool:
        assert entity.delimiter is not None
        self._close(self.stack.index(entity) + 1, end)
        after = hit + len(entity.delimiter)
        if self.data.startswith(b"--", after):
            entity.delimiter = None
            self._forget(entity)
            self.at = after + 2
            self.step = self._in_body
        else:
            self.at = after
            self.step = self._behind_delimiter
        return True

    # What they share

    def _next_delimiter(self, search: int) -> tuple[int, _Open | None]:
        first, found = -1, None
        search = max(search, 0)
        for entity in self.bounded:
            hit, delimiter = entity.hit, entity.delimiter
            assert delimiter is not None
            if hit != _NONE and hit < search:
                hit = entity.hit = self.data.find(delimiter, search)
            if hit < 0:
                continue
            if found is None or hit < first or (hit == first and len(delimiter) >= self._length(found)):
                first, found = hit, entity
        return first, found

    @staticmethod
    def _length(entity: _Open) -> int:
        return len(entity.delimiter or b"")

    def _begin_header(self) -> None:
        self.header_start = self.base + self.at
        self.header = bytearray()
        self.taken = self.at
        self.step = self._in_header

    def _take(self, upto: int) -> None:
        if upto > self.taken:
            room = self.header_octets - len(self.header)
            self.header += self.data[self.taken : min(upto, self.taken + room)]
            self.taken = upto

    def _open(self, body: int, *, is_ended: bool) -> None:
        """The header is whole: an entity begins whose body is at `body`."""
        header = bytes(self.header)
        if self.first_header is None:
            self.first_header = header
        parent = self.stack[-1].about if self.stack else None
        about = _describe(
            header, parent is not None and (parent.type, parent.subtype) == ("multipart", "digest")
        )
        self.parts += 1
        is_last = self.parts >= self.most_parts or len(self.stack) + 1 >= self.most_depth
        if is_last and (about.delimiter is not None or about.has_message):
            about.make_opaque()
        entity = _Open(self.header_start, body, self._count_lines(body), about)
        self.stack.append(entity)
        if about.delimiter is not None:
            self.bounded.append(entity)
            self.longest = max(self.longest, len(about.delimiter))
        if not about.has_message:
            self.step = self._in_body
            return
        if is_ended:
            self.parts += 1
            empty = _describe(b"", False)
            entity.parts.append(
                Part(empty.type, empty.subtype, empty.parameters, "7bit", body, body, body, 0)
            )
            self.step = self._in_body
        else:
            self._begin_header()

    def _close(self, depth: int, end: int) -> None:
        """The entities from that depth on end; in a header that has not ended nothing is open."""
        while len(self.stack) > depth:
            entity = self.stack.pop()
            if entity.delimiter is not None:
                self._forget(entity)
            end = max(entity.body, end)  # the empty line before a body is not the delimiter's
            part = entity.closed(end, self._count_lines(end))
            if self.stack:
                self.stack[-1].parts.append(part)
            else:
                self.root = part

    def _forget(self, entity: _Open) -> None:
        if entity in self.bounded:
            self.bounded.remove(entity)
        self.longest = max((self._length(other) for other in self.bounded), default=0)

    def _count_lines(self, offset: int) -> int:
        """Line ends before `offset`."""
        if offset > self.counted:
            self.lines += self.data.count(b"\n", self.counted - self.base, offset - self.base)
            self.counted = offset
        return self.lines
