"""The words of IMAP (RFC 9051 9, RFC 3501 9): a cursor over one complete command.

The engine gathers a command's lines and literals and knows nothing of what they mean; the parser
knows what they mean and nothing of how they came. This module is what both share: what a
literal's announcement looks like, and the reading of atoms, strings, numbers and parentheses.
"""

import re
from collections.abc import Callable

from popgate.values.value import value

MAX_NUMBER64 = 9223372036854775807  # RFC 9051 9 number64, RFC 7162 mod-sequence-value: 63 bits


@value
class Context:
    """What of the session's state the grammar depends on.

    `is_utf8`: after ENABLE UTF8=ACCEPT (RFC 6855) or IMAP4rev2 names and strings are UTF-8; before,
    names of mailboxes are in modified UTF-7.
    """

    is_utf8: bool = False


@value
class Arguments:
    """The octets behind the verb (its space included), literals gathered: piece i is followed by literal i.

    A piece holds no CRLF and ends, if a literal follows, in what announces it: `{n}`, `{n+}` or `~{n}`.
    There is one piece more than there are literals. `UID FETCH 1 FLAGS` has the one piece ` 1 FLAGS`.
    """

    pieces: list[bytes]
    literals: list[bytes]


class Syntax(Exception):
    """The command is not in the grammar, or beyond a bound of ours.

    `code` b"": answer the tagged BAD with `text`; otherwise NO with `code` (in its brackets) before `text`.
    """

    def __init__(self, text: bytes, code: bytes = b"") -> None:
        super().__init__(text)
        self.text = text
        self.code = code


@value
class Literal:
    """An announcement. `is_sync`: the client waits for `+` before it sends the octets (RFC 7888).
    `is_binary`: `~{n}`, which may hold NUL (RFC 3516)."""

    octets: int
    is_sync: bool
    is_binary: bool
    start: int = 0
    """Where in the line the announcement begins."""


_ANNOUNCED = re.compile(rb"[+-]?[0-9]+[+-]?")


def literal_at_end(line: bytes) -> Literal | None:
    """The literal that `line` (without CRLF) announces at its end, or None.

    Raises Syntax for what means to be one but has no size that can be: `{-1}`, 2**63 and above. Whether
    the size is one that the session takes is for the caller to say.
    """
    if not line.endswith(b"}"):
        return None
    start = line.rfind(b"{")
    size = line[start + 1 : -1]
    if start < 0 or not _ANNOUNCED.fullmatch(size):
        return None
    is_sync = not size.endswith(b"+")  # RFC 7888 4
    digits = size if is_sync else size[:-1]
    digits = digits.lstrip(b"0") or b"0"
    if len(digits) > 19 or not digits.isdigit() or int(digits) > MAX_NUMBER64:
        raise Syntax(b"Size of literal is out of range")
    is_binary = start > 0 and line[start - 1] == 0x7E
    return Literal(int(digits), is_sync, is_binary, start - is_binary)


# RFC 9051 9 ASTRING-CHAR = ATOM-CHAR / resp-specials. That `]` may stand in an astring but not in an atom
# matters to those who read answers, so one pattern serves both here.
_ATOM = re.compile(rb'[^\x00-\x20(){%*"\\\x7f-\xff]+')
# list-char = ATOM-CHAR / list-wildcards / resp-specials
_LIST_MAILBOX = re.compile(rb'[^\x00-\x20(){"\\\x7f-\xff]+')
# quoted = DQUOTE *QUOTED-CHAR DQUOTE; octets above 127 are for the charset to judge
_QUOTED = re.compile(rb'"([^"\\\r\n\x00]*(?:\\["\\][^"\\\r\n\x00]*)*)"')
_SPACES = re.compile(rb" +")
_WORD = re.compile(rb"[A-Za-z0-9.=+-]+")
_DIGITS = re.compile(rb"[0-9]+")
_END = -1
_LITERAL = -2


class Cursor:
    """Reads a command's arguments from left to right. Every method that finds something else than what
    it is for raises Syntax; nothing is read twice."""

    __slots__ = ("_index", "_literals", "_pieces", "at", "data", "is_binary")

    def __init__(self, arguments: Arguments) -> None:
        self._pieces = arguments.pieces
        self._literals = arguments.literals
        self._index = -1
        self._next_piece()

    def _next_piece(self) -> None:
        self._index += 1
        self.data = self._pieces[self._index]
        self.at = 0
        self.is_binary = False
        if self._index < len(self._literals):
            announced = literal_at_end(self.data)
            if announced is not None:
                self.data = self.data[: announced.start]
                self.is_binary = announced.is_binary

    # What comes next

    def peek(self) -> int:
        """The next octet; -1 at the end of the command, -2 where a literal comes."""
        if self.at < len(self.data):
            return self.data[self.at]
        return _LITERAL if self._index < len(self._literals) else _END

    @property
    def is_at_end(self) -> bool:
        return self.peek() == _END

    def comes(self, word: bytes) -> bool:
        """Whether `word` (upper-case) comes next, however it is spelt, and ends there; it is read then."""
        end = self.at + len(word)
        if self.data[self.at : end].upper() != word or _WORD.match(self.data, end):
            return False
        self.at = end
        return True

    def take(self, octet: bytes) -> bool:
        """Whether `octet` comes next; it is read then."""
        if self.data[self.at : self.at + 1] != octet:
            return False
        self.at += 1
        return True

    def match(self, pattern: re.Pattern[bytes]) -> re.Match[bytes] | None:
        """What matches `pattern` here; it is read then."""
        found = pattern.match(self.data, self.at)
        if found:
            self.at = found.end()
        return found

    def has_more(self) -> bool:
        """Whether another argument follows behind a space, which is read, as are more of them."""
        return self.spaces() and not self.is_at_end

    # What must come next

    def expect(self, octet: bytes) -> None:
        if not self.take(octet):
            raise Syntax(b"Missing " + octet if octet != b" " else b"Missing argument")

    def space(self) -> None:
        self.expect(b" ")

    def finish(self) -> None:
        """The command must be at its end; spaces before it, which some clients leave there, do no harm."""
        self.spaces()
        if not self.is_at_end:
            raise Syntax(b"Unexpected argument")

    def word(self) -> bytes:
        """A word of the protocol's own, upper-case."""
        found = self.match(_WORD)
        if not found:
            raise Syntax(b"Word expected")
        return found[0].upper()

    def atom(self) -> bytes:
        found = self.match(_ATOM)
        if not found:
            raise Syntax(b"Atom expected")
        return found[0]

    def string(self) -> bytes:
        """RFC 9051 9 string: quoted or literal; NUL is in neither."""
        following = self.peek()
        if following == 0x22:
            found = self.match(_QUOTED)
            if not found:
                raise Syntax(b"Quoted string is not well-formed")
            return found[1] if b"\\" not in found[1] else _unescape(found[1])
        if following != _LITERAL:
            raise Syntax(b"String expected")
        if self.is_binary:
            raise Syntax(b"Binary literal not allowed here")
        text = self._literals[self._index]
        if b"\0" in text:
            raise Syntax(b"NUL in a literal")
        self._next_piece()
        return text

    def astring(self) -> bytes:
        found = self.match(_ATOM)
        return found[0] if found else self.string()

    def list_mailbox(self) -> bytes:
        """An astring that may hold wildcards as an atom, too."""
        found = self.match(_LIST_MAILBOX)
        return found[0] if found else self.string()

    def number(self, least: int = 0, most: int = 4294967295) -> int:
        found = self.match(_DIGITS)
        if not found or len(found[0]) > 19 or not least <= int(found[0]) <= most:
            raise Syntax(b"Number expected, or number out of range")
        return int(found[0])

    def list_of(self, read: Callable[[], None], most: int, *, may_be_empty: bool = False) -> None:
        """A list in parentheses: `read` is called where each member begins, `most` times at most."""
        self.expect(b"(")
        self.spaces()
        if self.take(b")"):
            if not may_be_empty:
                raise Syntax(b"List is empty")
            return
        for _ in range(most):
            read()
            has_space = self.spaces()
            if self.take(b")"):
                return
            if not has_space:
                raise Syntax(b"Missing )")
        raise Syntax(b"List is too long", b"[LIMIT]")

    def spaces(self) -> bool:
        """Whether there were spaces, which are read: between members of a list more than one does no harm."""
        return self.match(_SPACES) is not None


def _unescape(quoted: bytes) -> bytes:
    # Backslashes come in pairs from the left, or before a quote; a substitution costs ten times as much.
    return b"\\".join(part.replace(b'\\"', b'"') for part in quoted.split(b"\\\\"))
