"""What is wrong with somebody's mail host, in words for its administrator."""

from typing import Literal

from popgate.values.value import value

Level = Literal["danger", "broken", "advice"]
"""danger: strangers may relay, or a server runs as root. broken: mail is refused, or a service does
not run. advice: it works, slower or more fragile than it need be."""


@value
class Finding:
    """One trap somebody stepped into. `line` is None where the whole file (or what it lacks) is meant."""

    trap: str
    level: Level
    file: str
    line: int | None
    what: str
    remedy: str

    def place(self) -> str:
        return self.file if self.line is None else f"{self.file}:{self.line}"


ORDER: tuple[Level, ...] = ("danger", "broken", "advice")


def in_order(findings: list[Finding]) -> list[Finding]:
    """The dangerous first, then by file and line; each once."""
    return sorted(set(findings), key=lambda one: (ORDER.index(one.level), one.file, one.line or 0, one.trap))
