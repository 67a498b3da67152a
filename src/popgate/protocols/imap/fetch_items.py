"""The grammar of what FETCH asks for (RFC 9051 6.4.5 and 9, fetch-att)."""

import re
from typing import Literal

from popgate.protocols.imap.fetch import Attribute, FetchItem, Preview, Section
from popgate.protocols.imap.lexer import MAX_NUMBER64, Cursor, Syntax
from popgate.protocols.imap.sequence import MAX_NUMBER

MAX_ITEMS = 100
"""Of one FETCH; each may be a whole message that is sent again."""
MAX_FIELDS = 256
"""Of HEADER.FIELDS."""
MAX_PART_LEVELS = 50
"""Numbers in BODY[1.2.3]."""

_ATTRIBUTES: dict[bytes, FetchItem] = {
    b"UID": Attribute("uid"),
    b"FLAGS": Attribute("flags"),
    b"INTERNALDATE": Attribute("internaldate"),
    b"RFC822.SIZE": Attribute("rfc822.size"),
    b"ENVELOPE": Attribute("envelope"),
    b"BODY": Attribute("body"),
    b"BODYSTRUCTURE": Attribute("bodystructure"),
    b"MODSEQ": Attribute("modseq"),  # RFC 7162 3.1.4
    b"EMAILID": Attribute("emailid"),  # RFC 8474 5.3
    b"THREADID": Attribute("threadid"),
    # RFC 3501 6.4.5: forms of sections that RFC 9051 no longer has
    b"RFC822": Section(b"RFC822"),
    b"RFC822.HEADER": Section(b"RFC822.HEADER", what="header", peek=True),
    b"RFC822.TEXT": Section(b"RFC822.TEXT", what="text"),
}
_FAST = (b"FLAGS", b"INTERNALDATE", b"RFC822.SIZE")
_MACROS: dict[bytes, tuple[FetchItem, ...]] = {
    name: tuple(_ATTRIBUTES[item] for item in items)
    for name, items in {
        b"FAST": _FAST,
        b"ALL": (*_FAST, b"ENVELOPE"),
        b"FULL": (*_FAST, b"ENVELOPE", b"BODY"),
    }.items()
}
_WITH_SECTION = (b"BODY", b"BODY.PEEK", b"BINARY", b"BINARY.PEEK", b"BINARY.SIZE")
What = Literal["all", "header", "header.fields", "header.fields.not", "text", "mime"]
_TEXTS: dict[bytes, What] = {
    b"HEADER": "header",
    b"HEADER.FIELDS": "header.fields",
    b"HEADER.FIELDS.NOT": "header.fields.not",
    b"TEXT": "text",
    b"MIME": "mime",
}
_NAME = re.compile(rb"[A-Za-z0-9.]+")
_LAZY = re.compile(rb" \( *LAZY(?: +LAZY)* *\)", re.IGNORECASE)
_PART = re.compile(rb"([1-9][0-9]{0,9})(?:\.(?=[^\]])|(?=\]))")
_SECTION_TEXT = re.compile(rb"[A-Za-z.]+")
_PARTIAL = re.compile(rb"<([0-9]{1,19})\.([1-9][0-9]{0,18})>")
# RFC 5322 3.6.8 field-name: any printable US-ASCII but the colon
_FIELD_NAME = re.compile(rb"[!-9;-~]+")
_NEEDS_QUOTES = re.compile(rb'[(){%*"\\\]]')


def read_items(cursor: Cursor) -> tuple[FetchItem, ...]:
    """A macro, an item or a list of them; those that come twice are told once. Raises Syntax."""
    items: dict[FetchItem, None] = {}  # the first of equal ones gives the order

    def one() -> None:
        items[_read_item(cursor)] = None

    if cursor.peek() == 0x28:
        cursor.list_of(one, MAX_ITEMS)
    else:
        for name, macro in _MACROS.items():
            if cursor.comes(name):
                return macro
        one()
    return tuple(items)


def _read_item(cursor: Cursor) -> FetchItem:
    found = cursor.match(_NAME)
    name = found[0].upper() if found else b""
    if name in _WITH_SECTION and cursor.take(b"["):
        return _read_section(cursor, name)
    if name == b"PREVIEW":
        # RFC 8970 3. A list that is not this one belongs to FETCH itself, such as (CHANGEDSINCE 5).
        return Preview(lazy=cursor.match(_LAZY) is not None)
    item = _ATTRIBUTES.get(name)
    if item is None:
        raise Syntax(b"Unknown FETCH item")
    return item


def _read_section(cursor: Cursor, name: bytes) -> Section:
    """Behind the opening bracket."""
    is_binary = name.startswith(b"BINARY")
    numbers: list[int] = []
    while found := cursor.match(_PART):
        numbers.append(int(found[1]))
        if numbers[-1] > MAX_NUMBER or len(numbers) > MAX_PART_LEVELS:
            raise Syntax(b"Part number out of range")
    what: What = "all"
    names: list[bytes] = []
    section = [b"%d" % number for number in numbers]
    text = cursor.match(_SECTION_TEXT)
    if text:
        known = _TEXTS.get(text[0].upper())
        # RFC 9051 9: section-binary has no section-text, and MIME is of a part only
        if known is None or is_binary or (known == "mime" and not numbers):
            raise Syntax(b"Unknown section")
        what = known
        section.append(text[0].upper())
        if what.startswith("header.fields"):
            names = _read_field_names(cursor)
    if not cursor.take(b"]"):
        raise Syntax(b"Section is not well-formed")
    label = b".".join(section)
    if names:
        label += b" (" + b" ".join(_quoted_if_needed(one) for one in names) + b")"
    label = name.removesuffix(b".PEEK") + b"[" + label + b"]"
    partial = None
    if name != b"BINARY.SIZE" and cursor.peek() == 0x3C:
        partial = _read_partial(cursor)
        label += b"<%d>" % partial[0]
    return Section(
        label,
        part=tuple(numbers),
        what=what,
        fields=tuple(dict.fromkeys(one.decode("ascii") for one in names)),
        partial=partial,
        peek=name.endswith((b".PEEK", b".SIZE")),
        binary=is_binary,
        size_only=name == b"BINARY.SIZE",
    )


def _read_field_names(cursor: Cursor) -> list[bytes]:
    """RFC 9051 9 header-list, upper-case."""
    names: list[bytes] = []

    def one() -> None:
        name = cursor.astring()
        if not _FIELD_NAME.fullmatch(name):
            raise Syntax(b"Not the name of a header field")
        names.append(name.upper())

    cursor.space()
    cursor.list_of(one, MAX_FIELDS)
    return names


def _read_partial(cursor: Cursor) -> tuple[int, int]:
    """RFC 9051 9 partial: the origin and how many octets, which are not none."""
    found = cursor.match(_PARTIAL)
    if not found or int(found[1]) > MAX_NUMBER64 or int(found[2]) > MAX_NUMBER64:
        raise Syntax(b"Partial range is not well-formed")
    return int(found[1]), int(found[2])


def _quoted_if_needed(name: bytes) -> bytes:
    if not _NEEDS_QUOTES.search(name):
        return name
    return b'"' + name.replace(b"\\", b"\\\\").replace(b'"', b'\\"') + b'"'
