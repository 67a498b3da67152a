"""Where in a TOML document each key stands.

tomllib gives values without their places, and a message without a line makes people
search. This scanner reads a document that tomllib has accepted, so it need not refuse
anything: it only follows the grammar closely enough to never mistake the inside of a
string, array or comment for a key.
"""

import bisect
import tomllib

KeyPath = tuple[str | int, ...]
"""Keys from the top; a number is an index into an array (of tables or of values)."""

_BARE = frozenset("ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_")
_ENDS_SCALAR = frozenset(",]}\n#")


def key_lines(text: str) -> dict[KeyPath, int]:
    """Map every table, key and array element of a valid TOML document to its line, from 1.

    A table that is named by several headers has the line of the first.
    """
    return _Scanner(text.replace("\r\n", "\n")).scan()


def nearest_line(lines: dict[KeyPath, int], path: KeyPath) -> int:
    """The line of `path`, else of the nearest thing around it that has one, else 0."""
    while path and path not in lines:
        path = path[:-1]
    return lines.get(path, 0)


class _Scanner:
    def __init__(self, text: str) -> None:
        self._text = text
        self._at = 0
        self._newlines = [index for index, char in enumerate(text) if char == "\n"]
        self._lines: dict[KeyPath, int] = {}
        self._elements: dict[KeyPath, int] = {}  # arrays of tables: how many [[headers]] so far

    def scan(self) -> dict[KeyPath, int]:
        table: KeyPath = ()
        while self._skip_blank():
            if self._peek() == "[":
                table = self._header()
            else:
                self._pair(table)
        return self._lines

    def _peek(self) -> str:
        return self._text[self._at : self._at + 1]

    def _record(self, path: KeyPath) -> None:
        self._lines.setdefault(path, bisect.bisect_left(self._newlines, self._at) + 1)

    def _skip_blank(self) -> bool:
        """Go past blanks, line ends and comments; False at the end of the document."""
        while char := self._peek():
            if char == "#":
                end = self._text.find("\n", self._at)
                self._at = len(self._text) if end < 0 else end
            elif char in " \t\n":
                self._at += 1
            else:
                return True
        return False

    def _skip_spaces(self) -> None:
        while self._peek() in (" ", "\t"):
            self._at += 1

    def _header(self) -> KeyPath:
        is_array = self._text.startswith("[[", self._at)
        start = self._at
        self._at += 2 if is_array else 1
        names = self._key()
        after, self._at = self._at, start
        path: KeyPath = ()
        for index, name in enumerate(names):
            path += (name,)
            self._record(path)
            if is_array and index == len(names) - 1:
                self._elements[path] = self._elements.get(path, 0) + 1
            if path in self._elements:  # a header goes on below the last element
                path += (self._elements[path] - 1,)
                self._record(path)
        self._at = after + (2 if is_array else 1)
        return path

    def _pair(self, table: KeyPath) -> None:
        start = self._at
        names = self._key()
        after, self._at = self._at, start
        path = table
        for name in names:
            path += (name,)
            self._record(path)
        self._at = after + 1  # the equals sign
        self._value(path)

    def _key(self) -> list[str]:
        """Read a dotted key and the blanks behind it."""
        names = []
        while True:
            self._skip_spaces()
            start = self._at
            if self._peek() in ('"', "'"):
                self._string()
                names.append(tomllib.loads("key = " + self._text[start : self._at])["key"])
            else:
                while self._peek() and self._peek() in _BARE:
                    self._at += 1
                names.append(self._text[start : self._at])
            self._skip_spaces()
            if self._peek() != ".":
                return names
            self._at += 1

    def _value(self, path: KeyPath) -> None:
        self._skip_spaces()
        char = self._peek()
        if char in ('"', "'"):
            self._string()
        elif char == "[":
            self._array(path)
        elif char == "{":
            self._inline_table(path)
        else:
            while self._peek() and self._peek() not in _ENDS_SCALAR:
                self._at += 1

    def _string(self) -> None:
        quote = self._peek()
        closing = quote * 3 if self._text.startswith(quote * 3, self._at) else quote
        self._at += len(closing)
        while not self._text.startswith(closing, self._at) and self._peek():
            self._at += 2 if quote == '"' and self._peek() == "\\" else 1
        self._at += len(closing)
        if len(closing) == 3:
            # TOML 1.0 multi-line strings: one or two quotes may stand before the closing three
            while self._peek() == quote:
                self._at += 1

    def _array(self, path: KeyPath) -> None:
        self._at += 1
        index = 0
        while self._skip_blank() and self._peek() != "]":
            if self._peek() == ",":
                self._at += 1
                continue
            element: KeyPath = (*path, index)
            self._record(element)
            self._value(element)
            index += 1
        self._at += 1

    def _inline_table(self, path: KeyPath) -> None:
        self._at += 1
        while self._skip_blank() and self._peek() != "}":
            if self._peek() == ",":
                self._at += 1
                continue
            self._pair(path)
        self._at += 1
