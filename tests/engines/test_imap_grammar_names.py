"""Literals, mailbox names and the arguments of APPEND, and where the grammar of IMAP has its bounds."""

import time

import pytest

from popgate.protocols.imap.commands import AppendMessage, Create, List, Search, Select
from popgate.protocols.imap.lexer import Arguments, Context, Cursor, Literal, Syntax, literal_at_end
from popgate.protocols.imap.mailbox_names import BadName, decode_name, decode_utf7, encode_name, encode_utf7
from popgate.protocols.imap.parser import parse_append_next, parse_append_start, parse_command
from popgate.protocols.imap.search import And
from popgate.protocols.imap.sequence_sets import MAX_RANGES


@pytest.mark.parametrize(
    ("line", "literal"),
    [
        (b"{0}", Literal(0, True, False, 0)),
        (b"a LOGIN {5}", Literal(5, True, False, 8)),
        (b"a LOGIN {005}", Literal(5, True, False, 8)),
        (b"a {12+}", Literal(12, False, False, 2)),
        (b"a ~{12}", Literal(12, True, True, 2)),
        (b"a ~{12+}", Literal(12, False, True, 2)),
        (b"{9223372036854775807}", Literal(2**63 - 1, True, False, 0)),
        (b"{5} {6}", Literal(6, True, False, 4)),
        (b"", None),
        (b"a", None),
        (b"}", None),
        (b"{}", None),
        (b"{+}", None),
        (b"{5} ", None),
        (b"{5", None),
        (b"5}", None),
        (b"{a}", None),
        (b'"{5}"', None),
        (b"{5}}", None),
    ],
)
def test_announcements(line: bytes, literal: Literal | None) -> None:
    assert literal_at_end(line) == literal


@pytest.mark.parametrize(
    "size", [b"-1", b"5-", b"+5", b"+5+", b"9223372036854775808", b"99999999999999999999", b"1" * 5000]
)
def test_sizes_that_cannot_be(size: bytes) -> None:
    with pytest.raises(Syntax) as caught:
        literal_at_end(b"a LOGIN {" + size + b"}")
    assert caught.value.code == b""


NAMES = [
    (b"", ""),
    (b"INBOX", "INBOX"),
    (b"Sent Items", "Sent Items"),
    (b"a&-b", "a&b"),
    (b"&--", "&-"),
    (b"~peter/mail/&U,BTFw-/&ZeVnLIqe-", "~peter/mail/\u53f0\u5317/\u65e5\u672c\u8a9e"),
    (b"Entw&APw-rfe", "Entw\u00fcrfe"),
    (b"&2D3cqQ-", "\U0001f4a9"),
    (b"&Jjo-!", "\u263a!"),
    (b"a\\b", "a\\b"),
]


@pytest.mark.parametrize(("octets", "name"), NAMES)
def test_modified_utf7(octets: bytes, name: str) -> None:
    assert decode_utf7(octets) == name
    assert encode_utf7(name) == octets
    assert decode_name(octets, is_utf8=False) == name
    assert encode_name(name, is_utf8=False) == octets
    assert decode_name(name.encode(), is_utf8=True) == name
    assert encode_name(name, is_utf8=True) == name.encode()


@pytest.mark.parametrize(
    "octets",
    [
        b"&",
        b"a&",
        b"&Jjo",
        b"&Jjo!",
        b"&####-",
        b"&AC4-",  # a full stop that needs no shift
        b"&AC4ALgAv-etc",  # ../
        b"&AC8-",
        b"&AGE-",
        b"&ACY-",  # & itself
        b"&Jjo-&Jjo-",  # two shifts in a row
        b"&JjoAIQ-",  # ! inside the shift
        b"&Jjp-",  # bits that are in no character
        b"&Jj-",
        b"&J-",
        b"&JjoA-",
        b"&JjoAA-",
        b"&2D0-",  # half a surrogate pair
        b"&3KnYPQ-",
        b"&U/BTFw-",  # / is , here
        b"&Jjo=-",
        b"&AAA-",
        b"&AAo-",
        b"&AIU-",
        b"&IAgo-",
        b"&ICg-",  # U+2028
        b"a\x7f",
        b"\xc3\xbc",
        b"a" * 1001,
    ],
)
def test_names_that_are_none(octets: bytes) -> None:
    with pytest.raises(BadName):
        decode_name(octets, is_utf8=False)
    with pytest.raises(Syntax) as caught:
        parse_command(b"CREATE", Arguments([b" {%d}" % len(octets), b""], [octets]), Context())
    assert caught.value.code == b"[CANNOT]"


@pytest.mark.parametrize(
    "octets",
    [
        b"\xff",
        b"\xc0\xaf",
        b"\xed\xa0\x80",
        b"\xc3",
        b"a\nb",
        b"a\rb",
        b"\xc2\x85",
        b"\xe2\x80\xa8",
        b"\x1b[2J",
    ],
)
def test_names_that_are_no_text(octets: bytes) -> None:
    with pytest.raises(BadName):
        decode_name(octets, is_utf8=True)


def test_names_by_context() -> None:
    def created(argument: bytes, *, is_utf8: bool) -> object:
        return parse_command(b"CREATE", Arguments([b" " + argument], []), Context(is_utf8))

    assert created(b"&Jjo-", is_utf8=False) == Create("\u263a")
    assert created(b"&Jjo-", is_utf8=True) == Create("&Jjo-")
    assert created('"\u263a"'.encode(), is_utf8=True) == Create("\u263a")
    for argument in ("\u263a".encode(), b'"\xff"'):
        with pytest.raises(Syntax):
            created(argument, is_utf8=True)
    listed = parse_command(b"LIST", Arguments([' "" "\u263a%"'.encode()], []), Context(is_utf8=True))
    assert listed == List("", ("\u263a%",))


def start(*pieces: bytes, literals: tuple[bytes, ...] = (), is_utf8: bool = False) -> AppendMessage | None:
    return parse_append_start(Arguments(list(pieces), list(literals)), Context(is_utf8))


def message(**changes: object) -> AppendMessage:
    values: dict[str, object] = {
        "mailbox": "INBOX",
        "flags": (),
        "date": None,
        "octets": 310,
        "is_first": True,
    }
    return AppendMessage(**{**values, **changes})  # type: ignore[arg-type]


def test_append() -> None:
    assert start(b" inbox {310}") == message()
    assert start(b" a&-b {310+}") == message(mailbox="a&b")
    assert start(b" inbox (\\seen $x) {310+}") == message(flags=("\\Seen", "$x"))
    assert start(b" inbox () {310}") == message()
    assert start(b' inbox "17-Jul-1996 02:44:25 -0730" {310}') == message(date=(837598465, -450))
    assert start(b' inbox (\\Draft) " 1-Jan-1970 01:00:00 +0100" ~{0}') == message(
        flags=("\\Draft",), date=(0, 60), octets=0, is_binary=True
    )
    assert start(b' inbox "1-jan-1970 00:00:60 +0000" {310}') == message(date=(60, 0))
    assert start(b" inbox UTF8 (~{310}") == message(is_binary=True, is_utf8=True)
    assert start(b" inbox (\\Seen) utf8 (~{310+}") == message(flags=("\\Seen",), is_binary=True, is_utf8=True)


def test_append_to_a_name_that_is_a_literal() -> None:
    assert start(b" {5}") is None
    assert start(b" {5}", b" {310}", literals=(b"inbox",)) == message()
    assert start(b" {5+}", b" (\\Seen) {310}", literals=(b"inbox",)) == message(flags=("\\Seen",))


@pytest.mark.parametrize(
    "pieces",
    [
        [b""],
        [b" inbox"],
        [b" inbox {5} "],
        [b"{5}"],
        [b" ~{5}"],
        [b" inbox{5}"],
        [b" inbox {-1}"],
        [b" inbox {99999999999999999999}"],
        [b" inbox (\\Recent) {5}"],
        [b" inbox (\\Seen {5}"],
        [b" inbox \\Seen {5}"],
        [b' inbox (\\Seen)"17-Jul-1996 02:44:25 -0700" {5}'],
        [b' inbox "99-Foo-9999 99:99:99 +9999" {1}'],
        [b' inbox "31-Feb-1996 02:44:25 -0700" {1}'],
        [b' inbox "17-Jul-1996 24:00:00 -0700" {1}'],
        [b' inbox "17-Jul-1996 02:60:25 -0700" {1}'],
        [b' inbox "17-Jul-1996 02:44:61 -0700" {1}'],
        [b' inbox "17-Jul-1996 02:44:25 -0760" {1}'],
        [b' inbox "17-Jul-1996 02:44:25 -2400" {1}'],
        [b' inbox "17-Jul-1996 02:44:25" {1}'],
        [b' inbox "17-Jul-0000 02:44:25 -0700" {1}'],
        [b" inbox UTF8 ({5}"],
        [b" inbox UTF8 ~{5}"],
        [b" inbox UTF8(~{5}"],
        [b" inbox CATENATE (~{5}"],
        [b' inbox "x" {5}'],
        [b" inbox UTF8 (~{5}", b") {3}"],
    ],
)
def test_append_that_is_bad(pieces: list[bytes]) -> None:
    literals = tuple(b"a" * 5 for _ in pieces[1:])
    with pytest.raises(Syntax):
        start(*pieces, literals=literals)


def test_more_messages_in_an_append() -> None:
    first, utf8 = message(), message(is_binary=True, is_utf8=True)
    assert parse_append_next(b"", first) is None
    assert parse_append_next(b"  ", first) is None
    assert parse_append_next(b")", utf8) is None
    assert parse_append_next(b" {7}", first) == message(octets=7, is_first=False)
    assert parse_append_next(b' (\\Seen) "01-Jan-1970 00:00:00 +0000" {7+}', first) == message(
        octets=7, is_first=False, flags=("\\Seen",), date=(0, 0)
    )
    assert parse_append_next(b") UTF8 (~{7}", utf8) == message(
        octets=7, is_first=False, is_binary=True, is_utf8=True
    )
    for piece in (b"x", b")", b"{7}", b" a {7}", b" {-1}", b" (\\Seen)", b" INBOX {7}"):
        with pytest.raises(Syntax):
            parse_append_next(piece, first)
    for piece in (b"", b" {7}", b"))", b") x"):
        with pytest.raises(Syntax):
            parse_append_next(piece, utf8)


def test_an_announcement_inside_a_piece_is_no_literal() -> None:
    cursor = Cursor(Arguments([b" {1}x"], []))
    cursor.space()
    with pytest.raises(Syntax):
        cursor.astring()


LONG = 65_000
ATTACKS: dict[str, tuple[bytes, bytes]] = {
    "imap-018": (b"LIST", b' "" "' + b"%*" * 400 + b'"'),
    "imap-021": (b"CREATE", b" .."),
    "imap-026": (b"CREATE", b" &AC4ALgAv-etc"),
    "imap-027": (b"CREATE", b" &####-"),
    "imap-031": (b"CREATE", b' "x\ny"'),
    "imap-043": (b"APPEND", b' INBOX "99-Foo-9999 99:99:99 +9999" {1}'),
    "imap-044": (b"FETCH", b" 1:4294967295 FLAGS"),
    "imap-047": (b"FETCH", b" " + b"1:*," * 20000 + b"1 FLAGS"),
    "imap-049": (b"FETCH", b" 1 BODY[]<4294967295.4294967295>"),
    "imap-050": (b"FETCH", b" 1 BODY[]<0.0>"),
    "imap-051": (b"SEARCH", b" " + b"NOT " * 50000 + b"ALL"),
    "imap-052": (b"SEARCH", b" " + b"OR ALL " * 20000 + b"ALL ALL"),
    "imap-060": (b"FETCH", b" 1 (BODY[HEADER.FIELDS (" + b"X " * 50000 + b")])"),
    "parentheses": (b"SEARCH", b" " + b"(" * LONG),
    "or-left": (b"SEARCH", b" " + b"OR " * 20000),
    "keys": (b"SEARCH", b" ALL" * 16000),
    "escapes": (b"SEARCH", b' SUBJECT "' + b'\\"' * 32000 + b'"'),
    "no-closing-quote": (b"SEARCH", b' SUBJECT "' + b"\\\\" * 32000),
    "items": (b"FETCH", b" 1 (" + b"BODY[] " * 9000 + b")"),
    "parts": (b"FETCH", b" 1 BODY[" + b"1." * 30000 + b"1]"),
    "lazy": (b"FETCH", b" 1 PREVIEW (" + b" LAZY" * 12000),
    "spaces": (b"FETCH", b" 1 PREVIEW (" + b" " * LONG),
    "spaces-in-a-list": (b"FETCH", b" 1 (FLAGS" + b" " * LONG + b"x)"),
    "flags": (b"STORE", b" 1 FLAGS (" + b"a " * 30000 + b")"),
    "bare-flags": (b"STORE", b" 1 FLAGS" + b" a" * 30000),
    "keyword": (b"STORE", b" 1 FLAGS " + b"a" * LONG),
    "shifts": (b"CREATE", b" " + b"&Jjo-" * 13000),
    "patterns": (b"LIST", b' "" (' + b"a " * 30000 + b")"),
    "status": (b"STATUS", b" a (" + b"UNSEEN " * 9000 + b")"),
    "sort-keys": (b"SORT", b" (" + b"DATE " * 12000 + b") UTF-8 ALL"),
    "fields": (b"ID", b" (" + b'"a" NIL ' * 8000 + b")"),
    "names": (b"ENABLE", b" a" * 30000),
    "digits": (b"FETCH", b" " + b"9" * LONG + b" FLAGS"),
    "size": (b"SEARCH", b" LARGER " + b"9" * LONG),
    "zeros": (b"SEARCH", b" LARGER " + b"0" * LONG),
    "resync": (b"SELECT", b" a (QRESYNC (1 2 " + b"1:2," * 16000 + b"1))"),
}
TAKEN = {"imap-018", "imap-021", "imap-044", "imap-049", "escapes", "resync"}


@pytest.mark.parametrize("name", ATTACKS)
def test_attacks_are_taken_or_refused_in_no_time(name: str) -> None:
    verb, text = ATTACKS[name]
    began = time.process_time()
    try:
        parse_command(verb, Arguments([text], []), Context())
        is_taken = True
    except Syntax as error:
        is_taken = False
        assert len(error.text) < 100
    assert is_taken == (name in TAKEN)
    assert time.process_time() - began < 0.1


def test_a_sequence_set_may_fill_a_line() -> None:
    text = b",".join(b"%d" % number for number in range(1, 13_000))
    assert len(text) > LONG
    event = parse_command(b"SEARCH", Arguments([b" " + text], []), Context())
    assert isinstance(event, Search)
    for count, is_taken in ((MAX_RANGES, True), (MAX_RANGES + 1, False)):
        arguments = Arguments([b" " + b",".join([b"1"] * count)], [])
        try:
            parse_command(b"UID EXPUNGE", arguments, Context())
        except Syntax as error:
            assert not is_taken
            assert error.code == b"[LIMIT]"
        else:
            assert is_taken


def test_where_the_bounds_are() -> None:
    def taken(verb: bytes, text: bytes) -> object:
        return parse_command(verb, Arguments([text], []), Context())

    for verb, most, beyond in (
        (b"SEARCH", b" " + b"NOT " * 49 + b"ALL", b" " + b"NOT " * 50 + b"ALL"),
        (b"SEARCH", b" " + b"OR ALL " * 49 + b"ALL", b" " + b"OR ALL " * 50 + b"ALL"),
        (b"SEARCH", b" ALL" * 1000, b" ALL" * 1001),
        (b"FETCH", b" 1 (" + b"UID " * 100 + b")", b" 1 (" + b"UID " * 101 + b")"),
        (b"STORE", b" 1 FLAGS" + b" a" * 100, b" 1 FLAGS" + b" a" * 101),
        (b"STORE", b" 1 FLAGS " + b"a" * 255, b" 1 FLAGS " + b"a" * 256),
        (b"SORT", b" (" + b"DATE " * 20 + b") UTF-8 ALL", b" (" + b"DATE " * 21 + b") UTF-8 ALL"),
        (b"ID", b" (" + b'"a" NIL ' * 30 + b")", b" (" + b'"a" NIL ' * 31 + b")"),
        (b"LIST", b' "" (' + b"a " * 50 + b")", b' "" (' + b"a " * 51 + b")"),
        (b"ENABLE", b" a" * 100, b" a" * 101),
    ):
        taken(verb, most)
        with pytest.raises(Syntax) as caught:
            taken(verb, beyond)
        assert caught.value.code == b"[LIMIT]"
    thousand = taken(b"SEARCH", b" ALL" * 1000)
    assert isinstance(thousand, Search)
    assert isinstance(thousand.key, And)
    assert len(thousand.key.keys) == 1000
    taken(b"FETCH", b" 1 BODY[" + b"1." * 49 + b"1]")
    with pytest.raises(Syntax):
        taken(b"FETCH", b" 1 BODY[" + b"1." * 50 + b"1]")
    assert taken(b"SELECT", b" " + b"a" * 1000) == Select("a" * 1000)
