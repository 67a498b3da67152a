"""Whatever octets make a command, it is a Syntax or a value within the bounds, and its labels, sets and names
mean the same when they are read again.

The first octet of an input chooses UTF-8; after it come pieces with CRLF between them, each literal as many
octets as were announced.
"""

from collections.abc import Iterator

from popgate.protocols.imap.commands import AppendMessage, Copy, Fetch, Search, Select, Sort, Store, Thread
from popgate.protocols.imap.fetch import Section
from popgate.protocols.imap.fetch_items import MAX_FIELDS, MAX_ITEMS, MAX_PART_LEVELS
from popgate.protocols.imap.flags import MAX_FLAGS
from popgate.protocols.imap.lexer import Arguments, Context, Cursor, Syntax, literal_at_end
from popgate.protocols.imap.mailbox_names import decode_name, encode_name
from popgate.protocols.imap.parser import (
    parse_append_next,
    parse_append_start,
    parse_authenticate,
    parse_command,
)
from popgate.protocols.imap.search import And, Not, Or, SearchKey
from popgate.protocols.imap.search_criteria import MAX_DEPTH, MAX_KEYS
from popgate.protocols.imap.sequence import MAX_NUMBER, SequenceSet
from popgate.protocols.imap.sequence_sets import parse_numbers
from support import fuzzing
from support.imap_sets import format_numbers

_NOT_SPOKEN = frozenset("\0\r\n")


def check(data: bytes) -> None:
    context = Context(is_utf8=bool(data[:1] and data[0] & 1))
    try:
        arguments = gathered(data[1:])
    except Syntax:
        return
    verb, arguments = with_verb(arguments)
    if verb == b"APPEND":
        append(arguments, context)
        return
    try:
        event = (
            parse_authenticate(arguments)
            if verb == b"AUTHENTICATE"
            else parse_command(verb, arguments, context)
        )
    except Syntax as error:
        assert len(error.text) < 100
        assert not error.code or error.code.startswith(b"[")
        assert not set((error.code + error.text).decode("ascii")) & _NOT_SPOKEN
        return
    hash(event)
    mailbox = getattr(event, "mailbox", None)
    if isinstance(mailbox, str):
        assert not set(mailbox) & _NOT_SPOKEN
        assert decode_name(encode_name(mailbox, is_utf8=context.is_utf8), is_utf8=context.is_utf8) == mailbox
    if isinstance(event, (Search, Sort, Thread)):
        assert depth(event.key) <= 2 * MAX_DEPTH  # UNSEEN and NEW are two levels themselves
        assert sum(1 for _ in walk(event.key)) <= 3 * MAX_KEYS + MAX_DEPTH
    if isinstance(event, (Fetch, Store, Copy)) and isinstance(event.set, SequenceSet):
        assert parse_numbers(format_numbers(event.set)) == event.set
        assert all(0 <= end <= MAX_NUMBER for both in event.set.ranges for end in both)
    if isinstance(event, Select) and event.resync is not None and event.resync.known_uids is not None:
        assert all(low and high for low, high in event.resync.known_uids.ranges)
    if isinstance(event, Store):
        assert len(event.flags) <= MAX_FLAGS
        assert "\\Recent" not in event.flags
        assert all(flag.isascii() and flag.isprintable() and "]" not in flag for flag in event.flags)
    if isinstance(event, Fetch):
        assert len(event.items) <= MAX_ITEMS
        for item in event.items:
            if isinstance(item, Section):
                fetched_again(item)


def gathered(octets: bytes) -> Arguments:
    """As an engine does it: lines, and literals of the size that was announced at their ends."""
    pieces: list[bytes] = []
    literals: list[bytes] = []
    while True:
        line, _, octets = octets.partition(b"\r\n")
        pieces.append(line)
        announced = literal_at_end(line)
        if announced is None:
            return Arguments(pieces, literals)
        assert line[announced.start :].endswith(b"}")
        if announced.octets > len(octets):
            raise Syntax(b"Cut off")
        literals.append(octets[: announced.octets])
        octets = octets[announced.octets :]


def with_verb(arguments: Arguments) -> tuple[bytes, Arguments]:
    verb, space, rest = arguments.pieces[0].partition(b" ")
    if verb.upper() == b"UID":
        second, space, rest = rest.partition(b" ")
        verb += b" " + second
    return verb.upper(), Arguments([space + rest, *arguments.pieces[1:]], arguments.literals)


def append(arguments: Arguments, context: Context) -> None:
    """The pieces as they come, each literal asked about before it is there."""
    message: AppendMessage | None = None
    try:
        for index, piece in enumerate(arguments.pieces):
            if message is not None:
                message = parse_append_next(piece, message)
                if message is None:
                    return
            else:
                so_far = Arguments(arguments.pieces[: index + 1], arguments.literals[:index])
                message = parse_append_start(so_far, context)
            assert message is None or message.octets == len(arguments.literals[index])
    except Syntax:
        return
    except IndexError as error:
        raise AssertionError("a message without an announcement") from error


def fetched_again(section: Section) -> None:
    assert len(section.part) <= MAX_PART_LEVELS
    assert len(section.fields) <= MAX_FIELDS
    assert (section.partial is None) == (b"]<" not in section.label[-23:])
    label = section.label
    if section.partial is not None:
        assert section.partial[1] > 0
        assert label.endswith(b"<%d>" % section.partial[0])
        label = label[: label.rindex(b"<")]
    event = parse_command(b"FETCH", Arguments([b" 1 " + label], []), Context())
    assert isinstance(event, Fetch)
    (again,) = event.items
    assert isinstance(again, Section)
    assert (again.label, again.what, again.part, again.fields) == (
        label,
        section.what,
        section.part,
        section.fields,
    )
    Cursor(Arguments([label], [])).atom()  # no octet of a label is above 127


def walk(key: SearchKey) -> Iterator[tuple[SearchKey, int]]:
    still = [(key, 1)]
    while still:
        one, level = still.pop()
        yield one, level
        if isinstance(one, Not):
            still.append((one.key, level + 1))
        elif isinstance(one, Or):
            still += [(one.left, level + 1), (one.right, level + 1)]
        elif isinstance(one, And):
            assert len(one.keys) > 1
            still += [(inner, level + 1) for inner in one.keys]


def depth(key: SearchKey) -> int:
    return max(level for _, level in walk(key))


if __name__ == "__main__":
    fuzzing.main(check)
