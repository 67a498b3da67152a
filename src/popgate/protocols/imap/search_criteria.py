"""The grammar of SEARCH, SORT and THREAD: from words to a tree of keys (RFC 9051 6.4.4, RFC 5256).

A client may nest keys as it likes, so nothing here calls itself: what is open is on a list, and
the list has an end.
"""

import re
from collections.abc import Callable
from typing import Literal

from popgate.protocols.imap.dates import read_date
from popgate.protocols.imap.flags import read_keyword
from popgate.protocols.imap.lexer import MAX_NUMBER64, Cursor, Syntax
from popgate.protocols.imap.search import (
    All,
    And,
    Day,
    HasFlag,
    HeaderHas,
    ModSeq,
    Not,
    Numbers,
    ObjectId,
    Or,
    SearchKey,
    Size,
    SortKey,
    TextHas,
    Within,
)
from popgate.protocols.imap.sequence_sets import read_sequence

MAX_DEPTH = 50
"""NOT, OR and parentheses in one another."""
MAX_KEYS = 1000
"""In one command; each may read every message of the mailbox."""
MAX_SORT_KEYS = 20

Decode = Callable[[bytes], str]
_Read = Callable[[Cursor, Decode], SearchKey]


def _header(name: str) -> _Read:
    return lambda cursor, decode: HeaderHas(name, decode(cursor.astring()))


def _day(relation: Literal["before", "on", "since"], *, sent: bool = False) -> _Read:
    return lambda cursor, decode: Day(relation, read_date(cursor), sent)


def _object_id(kind: Literal["email", "thread"]) -> _Read:
    def read(cursor: Cursor, decode: Decode) -> SearchKey:
        octets = cursor.astring()
        if not _OBJECT_ID.fullmatch(octets):
            raise Syntax(b"Not an object identifier")
        return ObjectId(kind, octets.decode("ascii"))

    return read


def _named_header(cursor: Cursor, decode: Decode) -> SearchKey:
    name = cursor.astring()
    if not _FIELD_NAME.fullmatch(name):
        raise Syntax(b"Not the name of a header field")
    cursor.space()
    return HeaderHas(name.decode("ascii").lower(), decode(cursor.astring()))


def _modseq(cursor: Cursor, decode: Decode) -> SearchKey:
    # RFC 7162 3.1.5: there are no modseqs of single flags here, so any entry is the message's.
    if cursor.peek() == 0x22:
        cursor.string()
        cursor.space()
        if not cursor.match(_ENTRY_TYPE):
            raise Syntax(b"Entry type expected")
        cursor.space()
    return ModSeq(cursor.number(0, MAX_NUMBER64))


_OBJECT_ID = re.compile(rb"[A-Za-z0-9_-]{1,255}")  # RFC 8474 7
_FIELD_NAME = re.compile(rb"[!-9;-~]+")  # RFC 5322 3.6.8
_ENTRY_TYPE = re.compile(rb"(?:all|priv|shared)(?= )", re.IGNORECASE)
_SEEN = HasFlag("\\Seen")
_RECENT = HasFlag("\\Recent")
_WITHOUT_ARGUMENT: dict[bytes, SearchKey] = {
    b"ALL": All(),
    b"SEEN": _SEEN,
    b"UNSEEN": Not(_SEEN),
    b"RECENT": _RECENT,
    b"NEW": And((_RECENT, Not(_SEEN))),
    b"OLD": Not(_RECENT),
}
for _name in ("Answered", "Deleted", "Draft", "Flagged"):
    _flag = HasFlag("\\" + _name)
    _WITHOUT_ARGUMENT[_name.upper().encode()] = _flag
    _WITHOUT_ARGUMENT[b"UN" + _name.upper().encode()] = Not(_flag)

_WITH_ARGUMENT: dict[bytes, _Read] = {
    b"BCC": _header("bcc"),
    b"CC": _header("cc"),
    b"FROM": _header("from"),
    b"SUBJECT": _header("subject"),
    b"TO": _header("to"),
    b"HEADER": _named_header,
    b"BODY": lambda cursor, decode: TextHas(decode(cursor.astring()), in_header=False),
    b"TEXT": lambda cursor, decode: TextHas(decode(cursor.astring()), in_header=True),
    b"BEFORE": _day("before"),
    b"ON": _day("on"),
    b"SINCE": _day("since"),
    b"SENTBEFORE": _day("before", sent=True),
    b"SENTON": _day("on", sent=True),
    b"SENTSINCE": _day("since", sent=True),
    b"KEYWORD": lambda cursor, decode: HasFlag(read_keyword(cursor)),
    b"UNKEYWORD": lambda cursor, decode: Not(HasFlag(read_keyword(cursor))),
    b"LARGER": lambda cursor, decode: Size("larger", cursor.number(0, MAX_NUMBER64)),
    b"SMALLER": lambda cursor, decode: Size("smaller", cursor.number(0, MAX_NUMBER64)),
    # RFC 5032 3: nz-number
    b"OLDER": lambda cursor, decode: Within("older", cursor.number(1)),
    b"YOUNGER": lambda cursor, decode: Within("younger", cursor.number(1)),
    b"UID": lambda cursor, decode: Numbers(read_sequence(cursor), uid=True),
    b"MODSEQ": _modseq,
    b"EMAILID": _object_id("email"),
    b"THREADID": _object_id("thread"),
}
_SET_BEGINS = frozenset(b"0123456789*$")


class _Open:
    """A list of keys, a NOT or an OR that waits for what it is of."""

    __slots__ = ("keys", "kind")

    def __init__(self, kind: Literal["list", "not", "or"]) -> None:
        self.kind = kind
        self.keys: list[SearchKey] = []


def read_criteria(cursor: Cursor, decode: Decode) -> SearchKey:
    """One key or several, all of which must hold, up to the end of the command. Raises Syntax."""
    whole = _Open("list")
    still_open = [whole]
    for _ in range(MAX_KEYS):
        _open_all(cursor, still_open)
        key = _read_key(cursor, decode)
        if _close_all(cursor, still_open, key) is whole:
            return _joined(whole.keys)
    raise Syntax(b"Too many search keys", b"[LIMIT]")


def _open_all(cursor: Cursor, still_open: list[_Open]) -> None:
    while True:
        if cursor.take(b"("):
            still_open.append(_Open("list"))
            cursor.spaces()
        elif cursor.comes(b"NOT"):
            still_open.append(_Open("not"))
            cursor.space()
        elif cursor.comes(b"OR"):
            still_open.append(_Open("or"))
            cursor.space()
        else:
            return
        if len(still_open) > MAX_DEPTH:
            raise Syntax(b"Search keys are nested too deeply", b"[LIMIT]")


def _read_key(cursor: Cursor, decode: Decode) -> SearchKey:
    if cursor.peek() in _SET_BEGINS:
        return Numbers(read_sequence(cursor), uid=False)
    word = cursor.word()
    key = _WITHOUT_ARGUMENT.get(word)
    if key is not None:
        return key
    read = _WITH_ARGUMENT.get(word)
    if read is None:
        raise Syntax(b"Unknown search key")
    cursor.space()
    return read(cursor, decode)


def _close_all(cursor: Cursor, still_open: list[_Open], key: SearchKey) -> _Open | None:
    """Put `key` where it belongs, and what that completes likewise; the outermost list if it is complete."""
    while True:
        inner = still_open[-1]
        inner.keys.append(key)
        if inner.kind == "not":
            key = Not(key)
        elif inner.kind == "or" and len(inner.keys) == 2:
            key = Or(inner.keys[0], key)
        else:
            has_space = cursor.spaces()
            if inner.kind == "list" and len(still_open) > 1 and cursor.take(b")"):
                key = _joined(inner.keys)
            elif len(still_open) == 1 and cursor.is_at_end:
                return inner
            elif has_space:
                return None
            else:
                raise Syntax(b"Search key is not well-formed")
        still_open.pop()


def _joined(keys: list[SearchKey]) -> SearchKey:
    return keys[0] if len(keys) == 1 else And(tuple(keys))


_SORT_KEYS = frozenset(
    # RFC 5256 3, RFC 5957 3
    (b"ARRIVAL", b"CC", b"DATE", b"FROM", b"SIZE", b"SUBJECT", b"TO", b"DISPLAYFROM", b"DISPLAYTO")
)


def read_sort_keys(cursor: Cursor) -> tuple[SortKey, ...]:
    """RFC 5256 5 sort-criteria. Raises Syntax."""
    keys: list[SortKey] = []

    def one() -> None:
        reverse = cursor.comes(b"REVERSE")
        if reverse:
            cursor.space()
        name = cursor.word()
        if name not in _SORT_KEYS:
            raise Syntax(b"Unknown sort key")
        keys.append(SortKey(name.decode("ascii").lower(), reverse))

    cursor.list_of(one, MAX_SORT_KEYS)
    return tuple(keys)
