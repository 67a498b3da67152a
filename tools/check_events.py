"""Holds docs/events.md against the events that the code makes.

An administrator writes rules and alarms on the names of events, so each one stands in the
table, and nothing stands there that is never made.
"""

import ast
import re
import sys
from collections.abc import Iterator
from pathlib import Path

TABLE = Path("docs/events.md")

_NAME = re.compile(r"[a-z0-9_]+(?:\.[a-z0-9_-]+)+")
_ROW = re.compile(r"^\| `([^`]+)` \|(.*)\|(.*)\|$")


def documented(text: str) -> tuple[list[str], list[str]]:
    """The names in the table, in its order, and what is wrong with the table."""
    names: list[str] = []
    faults: list[str] = []
    for line, content in enumerate(text.splitlines(), 1):
        if not content.startswith("| `"):
            continue
        row = _ROW.match(content)
        if row is None or not row[2].strip() or not row[3].strip():
            faults.append(f"{TABLE}:{line}: a row is | `event` | when | fields |")
        else:
            names.append(row[1])
    if names != sorted(set(names)):
        faults.append(f"{TABLE}: rows must be sorted by name, each once")
    return names, faults


def emitted(tree: ast.AST) -> Iterator[tuple[str, int]]:
    """Names of events, with their lines: what stands first in a call of Event or of something that emits."""
    for node in ast.walk(tree):
        if not isinstance(node, ast.Call) or not node.args:
            continue
        called = node.func
        name = called.attr if isinstance(called, ast.Attribute) else getattr(called, "id", "")
        if name != "Event" and not re.search(r"emit|event|tell|note|log$", name):
            continue
        for text, line in _texts(node.args[0]):
            if _NAME.fullmatch(text):
                yield text, line


def _texts(tree: ast.AST) -> Iterator[tuple[str, int]]:
    for node in ast.walk(tree):
        if isinstance(node, ast.Constant) and isinstance(node.value, str):
            yield node.value, node.lineno


def check(root: Path) -> list[str]:
    """All faults below `root`."""
    names, faults = documented((root / TABLE).read_text(encoding="utf-8"))
    known = set(names)
    texts: set[str] = set()
    for path in sorted((root / "src").rglob("*.py")):
        tree = ast.parse(path.read_text(encoding="utf-8"))
        texts.update(text for text, _ in _texts(tree))
        faults += [
            f"{path.relative_to(root)}:{line}: the event {name} is not in {TABLE}"
            for name, line in emitted(tree)
            if name not in known
        ]
    faults += [f"{TABLE}: no code makes the event {name}" for name in names if name not in texts]
    return list(dict.fromkeys(faults))  # emit(Event("...")) is two calls


def main() -> int:
    """Print the faults; the exit status says whether there are any."""
    faults = check(Path.cwd())
    print("\n".join(faults), end="\n" if faults else "")
    return 1 if faults else 0


if __name__ == "__main__":
    sys.exit(main())
