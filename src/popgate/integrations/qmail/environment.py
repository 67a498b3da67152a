"""What the variables of a run script are worth, as far as its text and its env directories tell.

A variable is unset, or has a text that is known, or one that only running would tell (its text
then holds UNKNOWN). `.` of a file that is not there, `eval` and the like may set anything: after
that nothing counts as unset.
"""

import re
from collections.abc import Sequence

from popgate.integrations.qmail.machine import Machine
from popgate.integrations.qmail.shell import UNKNOWN, Output, Text, Variable, Word
from popgate.values.value import value

_OUTPUT_ID = re.compile(r"\s*(?:\S*/)?id\s+-(u|g)\s+([A-Za-z0-9._-]+)\s*")
_OUTPUT_FILE = re.compile(r"\s*(?:\S*/)?(?:cat|head(?:\s+-n?\s*1)?)\s+<?\s*(/[^\s|;&`$\"']+)\s*")


def output_file(command: str) -> str | None:
    """The file that `cat FILE` or `head -1 FILE` prints; None where the command is another one."""
    match = _OUTPUT_FILE.fullmatch(command)
    return None if match is None else match[1]


@value
class Setting:
    """A variable's text and where it was set: a file, and a line where the file has lines."""

    text: str
    file: str
    line: int | None

    @property
    def is_known(self) -> bool:
        return UNKNOWN not in self.text


@value
class Argument:
    """A word after expansion. `unset` are the variables in it that had no value."""

    text: str
    line: int
    unset: tuple[str, ...] = ()

    @property
    def is_known(self) -> bool:
        return UNKNOWN not in self.text


@value
class Vanished:
    """A word that expanded to nothing at all; it would have been argument number `index`."""

    index: int
    line: int
    unset: tuple[str, ...]


class Shell:
    """The variables of one shell, and which of them its programs inherit."""

    def __init__(self, machine: Machine, inherited: dict[str, Setting], *, may_know_more: bool) -> None:
        self._machine = machine
        self.variables = dict(inherited)
        self.exported = set(inherited)
        self.may_know_more = may_know_more
        self.exports_all = False

    def assign(self, name: str, setting: Setting) -> None:
        self.variables[name] = setting
        if self.exports_all:
            self.exported.add(name)

    def environment(self) -> dict[str, Setting]:
        """What a program inherits."""
        return {name: it for name, it in self.variables.items() if name in self.exported}

    def expand(self, words: Sequence[Word]) -> tuple[list[Argument], list[Vanished]]:
        """The arguments that the words become."""
        arguments: list[Argument] = []
        vanished: list[Vanished] = []
        for word in words:
            made = self._fields(word)
            if made:
                arguments += made
            else:
                vanished.append(Vanished(len(arguments), word.line, self._unset(word)))
        return arguments, vanished

    def value(self, word: Word) -> str:
        """The text of a word where no field splitting happens, as in an assignment."""
        return "".join(self._part(part) for part in word.parts)

    def _unset(self, word: Word) -> tuple[str, ...]:
        if self.may_know_more:
            return ()
        return tuple(
            part.name
            for part in word.parts
            if isinstance(part, Variable) and part.default is None and part.name not in self.variables
        )

    def _fields(self, word: Word) -> list[Argument]:
        # POSIX 2.6.5: unquoted results are divided at blanks; a field is there if it has text or quotes
        unset = self._unset(word)
        fields: list[str] = []
        open_field: str | None = None
        for part in word.parts:
            text = self._part(part)
            if part.is_quoted or isinstance(part, Text):
                open_field = (open_field or "") + text
                continue
            pieces = re.split(r"[ \t\n]+", text)
            for number, piece in enumerate(pieces):
                if number and open_field is not None:
                    fields.append(open_field)
                    open_field = None
                if piece:
                    open_field = (open_field or "") + piece
        if open_field is not None:
            fields.append(open_field)
        return [Argument(field, word.line, unset) for field in fields]

    def _part(self, part: Text | Variable | Output) -> str:
        if isinstance(part, Text):
            return part.text
        if isinstance(part, Output):
            return self._output(part.command)
        setting = self.variables.get(part.name)
        if setting is not None and (setting.text or part.default is None):
            return setting.text
        if part.default is not None:
            return part.default if not re.search(r"[$`\\\"']", part.default) else UNKNOWN
        return UNKNOWN if self.may_know_more else ""

    def _output(self, command: str) -> str:
        """What `id -u qmaild` and `cat /var/qmail/control/concurrencyincoming` would print."""
        if match := _OUTPUT_ID.fullmatch(command):
            user = self._machine.user(match[2])
            # for a user that there is not, id prints nothing
            return "" if user is None else str(user[0] if match[1] == "u" else user[1])
        if match := _OUTPUT_FILE.fullmatch(command):
            text = self._machine.text(match[1])
            if text is None:
                return "" if not self._machine.exists(match[1]) else UNKNOWN
            return text.splitlines()[0].strip() if text.strip() else ""
        return UNKNOWN
