"""Holds the RFC references in the code against docs/rfc/index.tsv.

A line that obeys a rule says so: `# RFC 5321 4.1.1.4`; one that does not yet: `# RFC 5321 4.1.1.4 todo: why`.
The index says of each RFC whether we follow it: `yes`, `partial` or `no`. The two must agree, or
the list that a reader trusts rots.
"""

import re
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

INDEX = Path("docs/rfc/index.tsv")
HEADER = ["number", "title", "status", "note"]
STATUSES = ("yes", "partial", "no")

_REFERENCE = re.compile(
    r"\bRFC[ -]?(?P<number>\d{3,5})\b(?:,? (?:section )?(?P<section>[A-Z]?\d+(?:\.\d+)*))?"
    r"(?P<todo>:? todo\b)?"
)


@dataclass(frozen=True)
class Row:
    """One RFC of the index; `line` is its line number there."""

    number: int
    title: str
    status: str
    line: int


@dataclass(frozen=True)
class Reference:
    """One mention of an RFC in the code."""

    number: int
    section: str
    is_todo: bool
    where: str


def read_index(text: str) -> tuple[list[Row], list[str]]:
    """Rows of the index, and what is wrong with it."""
    rows: list[Row] = []
    faults: list[str] = []
    lines = text.splitlines()
    if not lines or lines[0].split("\t") != HEADER:
        faults.append(f"{INDEX}:1: the first line must name the columns: {' '.join(HEADER)}")
    for line, row in enumerate(lines[1:], 2):
        cells = row.split("\t")
        if len(cells) != len(HEADER) or not cells[0].isdecimal() or not cells[1]:
            faults.append(f"{INDEX}:{line}: four columns are needed: number, title, status, note")
        elif cells[2] not in STATUSES:
            faults.append(f"{INDEX}:{line}: the status is one of {', '.join(STATUSES)}, not {cells[2]!r}")
        elif cells[2] != "yes" and not cells[3]:
            faults.append(f"{INDEX}:{line}: {cells[2]} needs a note that says what is left out")
        else:
            rows.append(Row(int(cells[0]), cells[1], cells[2], line))
    numbers = [row.number for row in rows]
    if numbers != sorted(set(numbers)):
        faults.append(f"{INDEX}: rows must be sorted by number, each once")
    return rows, faults


def references(text: str, name: str) -> Iterator[Reference]:
    """Every mention of an RFC in the text of one file."""
    for line, content in enumerate(text.splitlines(), 1):
        for match in _REFERENCE.finditer(content):
            yield Reference(
                int(match["number"]), match["section"] or "", match["todo"] is not None, f"{name}:{line}"
            )


def compare(rows: list[Row], found: list[Reference]) -> list[str]:
    """What the index and the code say differently of each other."""
    faults = []
    by_number = {row.number: row for row in rows}
    for reference in found:
        row = by_number.get(reference.number)
        if row is None:
            faults.append(f"{reference.where}: RFC {reference.number} is not in {INDEX}")
        elif reference.is_todo and row.status == "yes":
            faults.append(f"{reference.where}: todo, but {INDEX}:{row.line} claims all of RFC {row.number}")
    mentioned = {reference.number for reference in found}
    faults += [
        f"{INDEX}:{row.line}: RFC {row.number} is {row.status}, but no line of src refers to it"
        for row in rows
        if row.status != "no" and row.number not in mentioned
    ]
    return faults


def check(root: Path) -> list[str]:
    """All faults below `root`."""
    rows, faults = read_index((root / INDEX).read_text(encoding="utf-8"))
    found = [
        reference
        for path in sorted((root / "src").rglob("*.py"))
        for reference in references(path.read_text(encoding="utf-8"), str(path.relative_to(root)))
    ]
    return faults + compare(rows, found)


def main() -> int:
    """Print the faults; the exit status says whether there are any."""
    faults = check(Path.cwd())
    print("\n".join(faults), end="\n" if faults else "")
    return 1 if faults else 0


if __name__ == "__main__":
    sys.exit(main())
