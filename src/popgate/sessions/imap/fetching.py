"""FETCH: the messages of a set, item by item, as blocks of the wire form.

However much is asked for, what lies in memory is one batch of rows and about one block of octets.
A message that is gone when its turn comes is left out and remembered in `has_missed`; one
that breaks off in the middle of a literal raises, since what was promised cannot be taken back.
"""

from collections.abc import Callable, Iterator, Sequence
from itertools import chain

from popgate.mailbox.folders import MessageGone, MessageRow, Parsed
from popgate.mailbox.mailbox import MailboxError
from popgate.message import header as fields
from popgate.message.decode import decode, is_known
from popgate.message.envelope import envelope as envelope_of
from popgate.message.part import Envelope, Part
from popgate.message.sections import locate, part_of
from popgate.protocols.imap import answers
from popgate.protocols.imap.fetch import Attribute, FetchItem, Preview, Section
from popgate.sessions.imap.dialect import Dialect
from popgate.sessions.imap.selected import Selected

BLOCK = 32768
"""Blocks are given out when they are so long; one that holds a piece of a body may be 64 KiB longer."""

READ_WHOLE = 65536
"""A section up to this size is read before anything of its message is told."""

_FIRST_BATCH, _LARGEST_BATCH = 8, 512
_QUICK_SECONDS, _SLOW_SECONDS = 0.005, 0.02
_SEEN = frozenset(("\\Seen",))

Piece = bytes | Iterator[bytes]


class Fetching:
    """One FETCH. `blocks` may be read piecemeal, in any thread, one at a time."""

    def __init__(
        self,
        view: Selected,
        items: Sequence[FetchItem],
        dialect: Dialect,
        monotonic: Callable[[], float],
        *,
        with_uid: bool,
    ) -> None:
        self._view = view
        self._folder = view.folder
        self._items = [item for item in items if item != Attribute("uid")]
        self._with_uid = with_uid or len(self._items) < len(items)
        self._dialect = dialect
        self._monotonic = monotonic
        self._sets_seen = not view.is_read_only and any(_shows(item) for item in items)
        self._needs_parsed = any(_needs_parsed(item) for item in items)
        self.has_missed = False
        self.has_unknown_encoding = False
        self.told: dict[int, int] = {}
        """Messages whose flags this has changed and told, with their modseq."""

    def blocks(self, uids: Sequence[int], rows: Sequence[MessageRow] | None = None) -> Iterator[bytes]:
        """The answers for rising `uids`; `rows`: where the caller has them already.

        Raises MailboxError."""
        gathered: list[bytes] = []
        size = at = 0
        step = _FIRST_BATCH
        while at < len(uids):
            began = self._monotonic()
            batch = uids[at : at + step]
            known = rows[at : at + step] if rows is not None else list(self._folder.rows(batch))
            at += len(batch)
            for piece in chain.from_iterable(self._batch(batch, known)):
                for block in (piece,) if isinstance(piece, bytes) else piece:
                    gathered.append(block)
                    size += len(block)
                    if size >= BLOCK:
                        yield b"".join(gathered)
                        gathered, size = [], 0
            took = self._monotonic() - began
            if took < _QUICK_SECONDS and step < _LARGEST_BATCH:
                step *= 2
            elif took > _SLOW_SECONDS and step > 1:
                step //= 2
        if gathered:
            yield b"".join(gathered)

    def _batch(self, uids: Sequence[int], rows: Sequence[MessageRow]) -> Iterator[list[Piece]]:
        changed: frozenset[int] | set[int] = frozenset()
        if self._sets_seen:
            rows, changed = self._mark_seen(rows)
        if len(rows) < len(uids):
            self.has_missed = True
        parsed = dict(self._folder.parsed([row.uid for row in rows])) if self._needs_parsed else {}
        for row in rows:
            content = parsed.get(row.uid)
            if self._needs_parsed and content is None:
                self.has_missed = True
                continue
            try:
                yield self._message(row, content, with_flags=row.uid in changed)
            except MessageGone:
                self.has_missed = True

    def _mark_seen(self, rows: Sequence[MessageRow]) -> tuple[Sequence[MessageRow], set[int]]:
        # RFC 9051 6.4.5: \Seen is set, and told where it changed
        unseen = [row.uid for row in rows if "\\Seen" not in row.flags]
        if not unseen:
            return rows, set()
        stored = self._folder.store(unseen, "add", _SEEN)
        now = {row.uid: row for row in stored.rows}
        for row in stored.rows:
            self.told[row.uid] = row.modseq
        gone = set(stored.gone)
        return [now.get(row.uid, row) for row in rows if row.uid not in gone], set(now)

    def _message(self, row: MessageRow, parsed: Parsed | None, *, with_flags: bool) -> list[Piece]:
        """One answer. What is small is read now, so that a message that is gone is told of by nothing."""
        number = self._view.number(row.uid)
        pieces: list[Piece] = [b"* %d FETCH (" % number]
        if self._with_uid:
            pieces.append(b"UID %d" % row.uid)
        has_flags = has_modseq = False
        for item in self._items:
            if isinstance(item, Attribute):
                has_flags |= item.name == "flags"
                has_modseq |= item.name == "modseq"
                told: list[Piece] = [self._attribute(item.name, row, parsed)]
            elif isinstance(item, Preview):
                assert parsed is not None
                told = [b"PREVIEW " + answers.nstring(parsed.preview, is_utf8=self._dialect.is_utf8)]
            else:
                told = self._section(item, row, parsed)
            if len(pieces) > 1:
                pieces.append(b" ")
            pieces += told
        if with_flags and not has_flags:
            pieces.append((b" " if len(pieces) > 1 else b"") + self._view.flags_text(row))
        if with_flags and self._dialect.condstore and not has_modseq:
            pieces.append(b" MODSEQ (%d)" % row.modseq)
        pieces.append(b")\r\n")
        if has_flags or with_flags:
            pieces.insert(0, self._view.learn_flags(row.flags))
        return pieces

    def _attribute(self, name: str, row: MessageRow, parsed: Parsed | None) -> bytes:
        if name == "flags":
            return self._view.flags_text(row)
        if name == "internaldate":
            return b"INTERNALDATE " + answers.internal_date(row.received)
        if name == "rfc822.size":
            return b"RFC822.SIZE %d" % row.octets
        if name == "modseq":
            return b"MODSEQ (%d)" % row.modseq
        if name == "emailid":
            return b"EMAILID (%b)" % row.email_id.encode("ascii", "replace")
        if name == "threadid":
            return (
                b"THREADID (%b)" % row.thread_id.encode("ascii", "replace")
                if row.thread_id
                else b"THREADID NIL"
            )
        assert parsed is not None
        if name == "envelope":
            return b"ENVELOPE " + answers.envelope(envelope_of(parsed.header), is_utf8=self._dialect.is_utf8)
        extended = name == "bodystructure"
        return (b"BODYSTRUCTURE " if extended else b"BODY ") + answers.body_structure(
            parsed.root,
            extended=extended,
            embedded=lambda part: self._embedded(row.uid, part),
            is_utf8=self._dialect.is_utf8,
        )

    def _embedded(self, uid: int, part: Part) -> Envelope:
        octets = min(part.body - part.start, READ_WHOLE)
        return envelope_of(b"".join(self._folder.read(uid, part.start, octets)))

    # Sections

    def _section(self, section: Section, row: MessageRow, parsed: Parsed | None) -> list[Piece]:
        if section.binary:
            return self._binary(section, row, parsed)
        if section.what == "all" and not section.part:
            return self._range(section, row, 0, row.octets)
        assert parsed is not None
        found = locate(parsed.root, section.part, section.what)
        if found is None:
            return [section.label + b" NIL"]
        start, end = found
        if section.what in ("header.fields", "header.fields.not"):
            chosen = fields.select(
                self._header(row, parsed, start, end),
                section.fields,
                but_not=section.what == "header.fields.not",
            )
            return [section.label + b" " + answers.literal(_cut(chosen, section.partial))]
        if start == 0 and end <= len(parsed.header):
            return [section.label + b" " + answers.literal(_cut(parsed.header[:end], section.partial))]
        return self._range(section, row, start, end)

    def _header(self, row: MessageRow, parsed: Parsed, start: int, end: int) -> bytes:
        if start == 0 and end <= len(parsed.header):
            return parsed.header[:end]
        return b"".join(self._folder.read(row.uid, start, end - start))

    def _range(self, section: Section, row: MessageRow, start: int, end: int) -> list[Piece]:
        if section.partial is not None:
            first, most = section.partial
            start = min(start + first, end)
            end = min(start + most, end)
        octets = end - start
        head = section.label + b" " + answers.literal_head(octets)
        if octets <= READ_WHOLE:
            return [head + self._whole(row.uid, start, octets)]
        blocks = self._folder.read(row.uid, start, octets)
        first_block = next(blocks, b"")  # here a message that is gone raises
        return [head, _exactly(octets, chain((first_block,), blocks))]

    def _whole(self, uid: int, start: int, octets: int) -> bytes:
        if not octets:
            return b""
        return b"".join(_exactly(octets, self._folder.read(uid, start, octets)))

    def _binary(self, section: Section, row: MessageRow, parsed: Parsed | None) -> list[Piece]:
        """RFC 3516: the part with its content transfer encoding taken off."""
        assert parsed is not None
        part = part_of(parsed.root, section.part)
        if part is None:
            return [section.label + (b" 0" if section.size_only else b" NIL")]
        start, end, encoding = part.body, part.end, part.encoding
        if not section.part:
            start, encoding = part.start, ""  # the message itself has none
        if part.is_multipart or part.is_message:
            encoding = ""
        if not is_known(encoding):
            self.has_unknown_encoding = True
            return [section.label + (b" 0" if section.size_only else b" NIL")]

        def decoded() -> Iterator[bytes]:
            return decode(_exactly(end - start, self._folder.read(row.uid, start, end - start)), encoding)

        if section.size_only:
            return [section.label + b" %d" % sum(map(len, decoded()))]
        if end - start <= READ_WHOLE:
            content = _cut(b"".join(decoded()), section.partial)
            head = answers.literal_head(len(content), is_binary=b"\0" in content)
            return [section.label + b" " + head + content]
        octets = sum(map(len, decoded()))
        first, most = section.partial or (0, octets)
        first = min(first, octets)
        most = min(most, octets - first)
        head = section.label + b" " + answers.literal_head(most, is_binary=True)
        return [head, _exactly(most, _within(decoded(), first, most))]


def _shows(item: FetchItem) -> bool:
    return isinstance(item, Section) and not item.peek and not item.size_only


def _needs_parsed(item: FetchItem) -> bool:
    if isinstance(item, Attribute):
        return item.name in ("envelope", "body", "bodystructure")
    if isinstance(item, Preview):
        return True
    return item.binary or bool(item.part) or item.what != "all"


def _cut(content: bytes, partial: tuple[int, int] | None) -> bytes:
    return content if partial is None else content[partial[0] : partial[0] + partial[1]]


def _within(blocks: Iterator[bytes], first: int, most: int) -> Iterator[bytes]:
    for block in blocks:
        if first >= len(block):
            first -= len(block)
            continue
        piece = block[first : first + most]
        first = 0
        most -= len(piece)
        yield piece
        if not most:
            return


def _exactly(octets: int, blocks: Iterator[bytes]) -> Iterator[bytes]:
    """What a literal has promised, no more and no less, whoever changed the file meanwhile."""
    left = octets
    for block in blocks:
        left -= len(block)
        if left < 0:
            break
        yield block
    if left:
        raise MailboxError("a message has changed while it was read")
