"""What is wrong with a configuration, in a form that tells its owner where and what to do."""

from collections.abc import Sequence

from popgate.values.value import value


@value
class Problem:
    """One error or warning.

    `file` is the path of popgate.toml or `--set`; `line` is 0 where no line can be named;
    `key` is dotted (`grants.window_seconds`, `listener.0.bind`) and "" for the whole file;
    `value` is the offending value as TOML, "" when there is none to show.
    """

    file: str
    line: int
    key: str
    value: str
    message: str
    remedy: str = ""

    def __str__(self) -> str:
        where = f"{self.file}:{self.line}" if self.line else self.file
        what = f"{self.key} = {self.value}: " if self.value else f"{self.key}: " if self.key else ""
        text = f"{where}: {what}{self.message}" + (f" ({self.remedy})" if self.remedy else "")
        # one line, whatever stood in the file
        return "".join(char if char.isprintable() else f"\\u{ord(char):04x}" for char in text)


class ConfigError(Exception):
    """The configuration cannot be used; `problems` holds every error, `warnings` the rest."""

    def __init__(self, problems: Sequence[Problem], warnings: Sequence[Problem] = ()) -> None:
        super().__init__("\n".join(map(str, problems)))
        self.problems = tuple(problems)
        self.warnings = tuple(warnings)
