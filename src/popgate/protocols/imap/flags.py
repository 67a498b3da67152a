"""Flags as clients write them (RFC 9051 2.3.2 and 9, flag)."""

import re

from popgate.protocols.imap.lexer import Cursor, Syntax

MAX_FLAGS = 100
"""In one command."""
MAX_KEYWORD_OCTETS = 255

SYSTEM_FLAGS = {
    name.lower().encode(): name for name in ("\\Answered", "\\Flagged", "\\Deleted", "\\Seen", "\\Draft")
}
_SYSTEM = re.compile(rb"\\[A-Za-z]+")
# flag-keyword = "$MDNSent" / ... / atom. Here `]` would end the response code that tells of it.
_KEYWORD = re.compile(rb'[^\x00-\x20(){%*"\\\]\x7f-\xff]+')


def read_keyword(cursor: Cursor) -> str:
    """Raises Syntax."""
    found = cursor.match(_KEYWORD)
    if not found:
        raise Syntax(b"Keyword expected")
    if len(found[0]) > MAX_KEYWORD_OCTETS:
        raise Syntax(b"Keyword is too long", b"[LIMIT]")
    return found[0].decode("ascii")


def read_flag(cursor: Cursor) -> str:
    """A flag that a client may set, system flags in their usual spelling. Raises Syntax (`\\Recent`, too)."""
    found = cursor.match(_SYSTEM)
    if not found:
        return read_keyword(cursor)
    name = SYSTEM_FLAGS.get(found[0].lower())
    if name is None:
        raise Syntax(b"Not a flag that can be set")
    return name


def read_flags(cursor: Cursor, *, may_be_bare: bool = False) -> tuple[str, ...]:
    """RFC 9051 9 flag-list, each flag once; with `may_be_bare` also without its parentheses, up to the end
    of the command. Raises Syntax."""
    flags: dict[str, str] = {}

    def one() -> None:
        flag = read_flag(cursor)
        flags.setdefault(flag.lower(), flag)

    if not may_be_bare or cursor.peek() == 0x28:
        cursor.list_of(one, MAX_FLAGS, may_be_empty=True)
        return tuple(flags.values())
    for _ in range(MAX_FLAGS):
        one()
        if not cursor.spaces() or cursor.is_at_end:
            return tuple(flags.values())
    raise Syntax(b"List is too long", b"[LIMIT]")
