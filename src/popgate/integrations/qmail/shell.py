"""Reads run scripts as sh would, and runs nothing.

Words with their quoting, simple commands, and the line of each; that is what one needs to know
which programs a run script starts. Control structures are passed through: the commands of all
branches come out, in their order. Here-documents and comments are skipped. What is wrong with
the text (a quote without its partner, marks that came from a web page) comes out as flaws.

The grammar is that of POSIX.1-2017, Shell Command Language, 2.2 (quoting), 2.3 (tokens) and 2.10.
This module must not know which programs there are.
"""

import re
from collections.abc import Iterator
from typing import Literal

from popgate.values.value import value

UNKNOWN = "\ufffc"
"""Stands in a text for something that only running the script would tell."""

JOINED = "\ue000"
"""Stands in the text of an inner script for a line end that the outer one had escaped; so that
lines can still be counted."""

MOST_OCTETS = 262_144
"""No run script is longer; what is gets no reading."""

_NAME = re.compile(r"[A-Za-z_][A-Za-z0-9_]*")
_OPERATOR = re.compile(r"&&|\|\||;;|<<-|<<|>>|<&|>&|<>|>\||[;&|()<>]")
_CURLY = {"\u201c": '"', "\u201d": '"', "\u201e": '"', "\u2018": "'", "\u2019": "'", "\u201a": "'"}
_DASHES = "\u2013\u2014\u2212"

_OPENING = frozenset({"if", "then", "else", "elif", "do", "while", "until", "!", "{"})
_CLOSING = frozenset({"fi", "done", "esac", "}"})

FlawKind = Literal["quote", "curly-quote", "dash", "carriage-return", "continuation"]


@value
class Text:
    """Literal characters; `is_quoted` where blanks do not divide them."""

    text: str
    is_quoted: bool


@value
class Variable:
    """`$NAME` or `${NAME...}`; `default` is what stands for it when it is unset (`${NAME:-default}`)."""

    name: str
    is_quoted: bool
    default: str | None


@value
class Output:
    """`$(command)` or the same in backquotes."""

    command: str
    is_quoted: bool


Part = Text | Variable | Output


@value
class Word:
    """One word of a command, before expansion."""

    parts: tuple[Part, ...]
    line: int


@value
class Assignment:
    """`NAME=word`, alone or before a command."""

    name: str
    word: Word


@value
class Command:
    """A simple command; without words it only assigns."""

    assignments: tuple[Assignment, ...]
    words: tuple[Word, ...]
    line: int


@value
class Flaw:
    """Something in the text that sh will not understand as it was meant."""

    kind: FlawKind
    line: int
    detail: str


@value
class Script:
    """What a text says: its commands in order, and its flaws in order of lines."""

    commands: tuple[Command, ...]
    flaws: tuple[Flaw, ...]


def read(source: str, first_line: int = 1) -> Script:
    """Read a script or the argument of `sh -c`; `first_line` is the line that it begins on. Never raises."""
    reader = _Reader(source, first_line)
    commands = tuple(_commands(reader))
    return Script(commands, tuple(sorted(reader.flaws, key=lambda flaw: flaw.line)))


class _Reader:
    """Divides a text into words (Word) and operators (str); None is the end."""

    def __init__(self, source: str, first_line: int) -> None:
        self._source = source
        self._at = 0
        self._line = first_line
        self._bodies: list[tuple[str, bool]] = []
        self._seen: set[str] = set()
        self._word_end = -1
        self.adjoins = False
        """Whether the last operator stood right behind a word, as in `2>&1`."""
        self.flaws: list[Flaw] = []

    def next(self) -> Word | str | None:
        self._skip_blanks()
        char = self._peek()
        if not char:
            return None
        if char == "\n":
            self._at += 1
            self._line += 1
            self._skip_bodies()
            return "\n"
        if operator := _OPERATOR.match(self._source, self._at):
            self.adjoins = self._word_end == self._at
            self._at = operator.end()
            return operator[0]
        word = self._word()
        self._word_end = self._at
        return word

    def await_body(self, delimiter: str, *, strips_tabs: bool) -> None:
        """A here-document begins at the next line end."""
        self._bodies.append((delimiter, strips_tabs))

    def _peek(self, ahead: int = 0) -> str:
        at = self._at + ahead
        return self._source[at] if at < len(self._source) else ""

    def _flaw(self, kind: FlawKind, line: int, detail: str = "", *, once: bool = True) -> None:
        if once and kind in self._seen:
            return
        self._seen.add(kind)
        self.flaws.append(Flaw(kind, line, detail))

    def _skip_blanks(self) -> None:
        while char := self._peek():
            if char in " \t":
                self._at += 1
            elif char == "\r":
                self._flaw("carriage-return", self._line)
                self._at += 1
            elif char == JOINED or (char == "\\" and self._peek(1) == "\n"):
                self._at += 1 if char == JOINED else 2
                self._line += 1
            elif char == "#":
                end = self._source.find("\n", self._at)
                self._at = len(self._source) if end < 0 else end
            else:
                return

    def _skip_bodies(self) -> None:
        for delimiter, strips_tabs in self._bodies:
            while self._at < len(self._source):
                end = self._source.find("\n", self._at)
                end = len(self._source) if end < 0 else end
                text = self._source[self._at : end]
                self._at = end + 1
                self._line += 1
                if (text.lstrip("\t") if strips_tabs else text) == delimiter:
                    break
        self._bodies.clear()

    def _word(self) -> Word:
        line = self._line
        parts: list[Part] = []
        while (char := self._peek()) and char not in " \t\n" and not _OPERATOR.match(self._source, self._at):
            if char == JOINED:
                self._at += 1
                self._line += 1
            elif char == "\r":
                self._flaw("carriage-return", self._line)
                self._at += 1
            elif char == "\\":
                self._escape(parts)
            elif char == "'":
                parts.append(Text(self._single_quoted(), True))
            elif char == '"':
                self._double_quoted(parts)
            elif char in "$`":
                self._expansion(parts, is_quoted=False)
            else:
                self._note_typography(char)
                parts.append(Text(char, False))
                self._at += 1
        return Word(tuple(_merged(parts)), line)

    def _note_typography(self, char: str) -> None:
        if char in _CURLY:
            self._flaw("curly-quote", self._line, _CURLY[char])
        elif char in _DASHES:
            self._flaw("dash", self._line)

    def _escape(self, parts: list[Part]) -> None:
        after = self._peek(1)
        if after == "\n":
            self._line += 1
        elif after in (" ", "\t", "\r") and re.compile(r"[ \t\r]+\n").match(self._source, self._at + 1):
            # the backslash escapes the blank, and the line ends here after all
            self._flaw("continuation", self._line, once=False)
            parts.append(Text(after, True))
        elif after:
            parts.append(Text(after, True))
        self._at += 2

    def _single_quoted(self) -> str:
        opened = self._line
        end = self._source.find("'", self._at + 1)
        if end < 0:
            self._flaw("quote", opened, "'")
            end = len(self._source)
        text = self._source[self._at + 1 : end]
        self._at = end + 1
        self._line += text.count("\n") + text.count(JOINED)
        return text

    def _double_quoted(self, parts: list[Part]) -> None:
        opened = self._line
        self._at += 1
        parts.append(Text("", True))
        while (char := self._peek()) != '"':
            if not char:
                self._flaw("quote", opened, '"')
                return
            if char == "\\" and (after := self._peek(1)) and after in '$`"\\\n':
                parts.append(Text(JOINED if after == "\n" else after, True))
                self._line += after == "\n"
                self._at += 2
            elif char in "$`":
                self._expansion(parts, is_quoted=True)
            else:
                self._line += char in ("\n", JOINED)
                parts.append(Text(char, True))
                self._at += 1
        self._at += 1

    def _expansion(self, parts: list[Part], *, is_quoted: bool) -> None:
        if self._peek() == "`":
            parts.append(Output(self._backquoted(), is_quoted))
            return
        after = self._peek(1)
        if after == "(":
            self._at += 2
            parts.append(Output(self._until(")", "("), is_quoted))
        elif after == "{":
            self._at += 2
            parts.append(_braced(self._until("}", "{"), is_quoted))
        elif name := _NAME.match(self._source, self._at + 1):
            self._at = name.end()
            parts.append(Variable(name[0], is_quoted, None))
        elif after and after in "0123456789@*#?-$!":
            # positional and special parameters: what they are is known only when the script runs
            self._at += 2
            parts.append(Text(UNKNOWN, True))
        else:
            self._at += 1
            parts.append(Text("$", is_quoted))

    def _backquoted(self) -> str:
        opened = self._line
        self._at += 1
        text = ""
        while (char := self._peek()) != "`":
            if not char:
                self._flaw("quote", opened, "`")
                return text
            if char == "\\" and (after := self._peek(1)) and after in "$`\\":
                char = after
                self._at += 1
            self._line += char == "\n"
            text += char
            self._at += 1
        self._at += 1
        return text

    def _until(self, closing: str, opening: str) -> str:
        """The text up to the `closing` that belongs to an `opening` just passed; quotes are respected."""
        opened, start, depth = self._line, self._at, 1
        while char := self._peek():
            if char == "'":
                self._single_quoted()
                continue
            if char == '"':
                self._double_quoted([])
                continue
            if char == "\\":
                self._at += 1
                char = self._peek()
            elif char == opening:
                depth += 1
            elif char == closing:
                depth -= 1
                if not depth:
                    self._at += 1
                    return self._source[start : self._at - 1]
            self._line += char == "\n"
            self._at += 1
        self._flaw("quote", opened, "$" + opening)
        return self._source[start:]


def _braced(text: str, is_quoted: bool) -> Part:
    name = _NAME.match(text)
    if name is None:
        return Text(UNKNOWN, True)
    rest = text[name.end() :]
    if not rest:
        return Variable(name[0], is_quoted, None)
    if rest.startswith((":-", ":=")):
        return Variable(name[0], is_quoted, rest[2:])
    if rest.startswith(("-", "=")):
        return Variable(name[0], is_quoted, rest[1:])
    # the other forms end the script when it is unset, or cut pieces off
    return Text(UNKNOWN, True)


def _merged(parts: list[Part]) -> Iterator[Part]:
    """Neighbouring texts of one quoting as one."""
    gathered: Text | None = None
    for part in parts:
        if isinstance(part, Text) and gathered is not None and gathered.is_quoted == part.is_quoted:
            gathered = Text(gathered.text + part.text, part.is_quoted)
            continue
        if gathered is not None:
            yield gathered
        gathered = None
        if isinstance(part, Text):
            gathered = part
        else:
            yield part
    if gathered is not None:
        yield gathered


def plain(word: Word) -> str | None:
    """The word's text where it has no quotes and no expansions: only such a word can be a keyword."""
    if all(isinstance(part, Text) and not part.is_quoted for part in word.parts):
        return "".join(part.text for part in word.parts if isinstance(part, Text))
    return None


def _commands(reader: _Reader) -> Iterator[Command]:
    assignments: list[Assignment] = []
    words: list[Word] = []
    while (lexeme := reader.next()) is not None:
        if isinstance(lexeme, Word):
            keyword = None if words else plain(lexeme)
            if keyword in _OPENING or keyword in _CLOSING:
                continue
            if keyword == "case":
                _skip_to_pattern_end(reader)
                continue
            if keyword == "for":
                loop = tuple(_loop_variable(reader))
                if loop:
                    yield Command(loop, (), loop[0].word.line)
                continue
            assignment = None if words else _assignment(lexeme)
            if assignment is not None:
                assignments.append(assignment)
            else:
                words.append(lexeme)
        elif lexeme in ("<", ">", ">>", "<&", ">&", "<>", ">|", "<<", "<<-"):
            _redirect(reader, lexeme, words)
        else:
            if assignments or words:
                yield _command(assignments, words)
            assignments, words = [], []
            if lexeme == ";;":
                _skip_pattern(reader)
    if assignments or words:
        yield _command(assignments, words)


def _command(assignments: list[Assignment], words: list[Word]) -> Command:
    line = assignments[0].word.line if assignments else words[0].line
    return Command(tuple(assignments), tuple(words), line)


def _assignment(word: Word) -> Assignment | None:
    first = word.parts[0] if word.parts else None
    if not isinstance(first, Text) or first.is_quoted:
        return None
    name, equals, rest = first.text.partition("=")
    if not equals or not _NAME.fullmatch(name):
        return None
    return Assignment(name, Word((Text(rest, False), *word.parts[1:]), word.line))


def _redirect(reader: _Reader, operator: str, words: list[Word]) -> None:
    # POSIX 2.7: digits right before the operator name the descriptor; they were read as a word
    if reader.adjoins and words and (plain(words[-1]) or "").isdigit():
        words.pop()
    target = reader.next()
    if isinstance(target, Word) and operator in ("<<", "<<-"):
        delimiter = "".join(part.text for part in target.parts if isinstance(part, Text))
        reader.await_body(delimiter, strips_tabs=operator == "<<-")


def _loop_variable(reader: _Reader) -> Iterator[Assignment]:
    name = reader.next()
    if isinstance(name, Word) and (text := plain(name)) and _NAME.fullmatch(text):
        yield Assignment(text, Word((Text(UNKNOWN, True),), name.line))
    while (lexeme := reader.next()) not in (None, ";", "\n"):
        if isinstance(lexeme, Word) and plain(lexeme) == "do":
            return


def _skip_to_pattern_end(reader: _Reader) -> None:
    while (lexeme := reader.next()) is not None:
        if isinstance(lexeme, Word) and plain(lexeme) == "in":
            _skip_pattern(reader)
            return


def _skip_pattern(reader: _Reader) -> None:
    """The patterns of one branch of `case`, up to their parenthesis, or `esac`."""
    while (lexeme := reader.next()) is not None:
        if lexeme == ")" or (isinstance(lexeme, Word) and plain(lexeme) == "esac"):
            return
