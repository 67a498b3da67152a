"""Habits of the repository that no other checker holds.

- `__init__.py` holds a docstring, imports and plain names: whoever looks for code finds it in a module.
- A module of more than 600 lines says in its docstring why it is whole (`Kept whole: ...`).
- Every module says in a docstring what it is for.
- Names say what a thing is; Manager, Helper, Util and Misc say nothing.
- A document that names a module, or a method of a class, names one that there is.
- No file names a directory of somebody's machine or the host of a package registry.
"""

import ast
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

LONG_MODULE_LINES = 600
REASON = "Kept whole:"

_EMPTY_WORDS = ("Manager", "Helper", "Helpers", "Util", "Utils", "Misc")
_EMPTY_MODULES = frozenset({"manager", "helper", "helpers", "util", "utils", "misc", "common"})

# Where people and machines keep their checkouts; a system's own directories are fine.
_MACHINE_PATH = re.compile(
    r"(?<![\w.$}*~-])/(?:home|root|Users|work|workspace|builds|mnt)/[A-Za-z.]"
    r"|\.\./shared\b|/tmp/[\w.-]+/(?:wt|venv)\b"
)
_REGISTRY = re.compile(
    r"\b(?:pypi|pythonhosted|npmjs|crates|rubygems)\.(?:org|com|io)\b|\b(?:deb|security)\.debian\.org\b"
)

# In a document: `grants/rules.py`; `Grants.allow` and `rules.is_live`.
_MODULE = re.compile(r"`([a-z_0-9]+(?:/[a-z_0-9]+)+\.py)`")
_LINK = re.compile(r"\]\(([^)#:\s]+)(?:#[^)]*)?\)")
_METHOD = re.compile(r"`((?:[A-Z][A-Za-z0-9]+|rules)\.[a-z_]+)`")


def files(root: Path) -> list[Path]:
    """Files of the repository, as paths below `root`; those git knows or would add."""
    try:
        listed = subprocess.run(
            ["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard"],
            cwd=root,
            check=True,
            capture_output=True,
        ).stdout
        names = [Path(name) for name in listed.decode().split("\0") if name]
    except (OSError, subprocess.CalledProcessError):  # an unpacked archive
        names = [
            path.relative_to(root)
            for path in root.rglob("*")
            if not any(part in {".venv", "__pycache__"} for part in path.relative_to(root).parts)
        ]
    return sorted(name for name in names if (root / name).is_file() and not (root / name).is_symlink())


def text_faults(name: str, text: str) -> Iterator[str]:
    """Faults that any text file can have."""
    for line, content in enumerate(text.splitlines(), 1):
        if match := _MACHINE_PATH.search(content):
            yield f"{name}:{line}: a path of one machine: {match[0]}"
        if match := _REGISTRY.search(content):
            yield f"{name}:{line}: names a package registry: {match[0]}"


def module_faults(name: str, text: str) -> Iterator[str]:
    """Faults of a Python module of src or tools."""
    tree = ast.parse(text, name)
    docstring = ast.get_docstring(tree)
    if not docstring:
        yield f"{name}:1: no docstring that says what the module is for"
    lines = text.count("\n")
    if lines > LONG_MODULE_LINES and REASON not in (docstring or ""):
        yield f"{name}: {lines} lines; split it, or say in the docstring why it is whole ({REASON} ...)"
    path = Path(name)
    if path.stem in _EMPTY_MODULES:
        yield f"{name}: {path.stem} says nothing about what is in the module"
    for node in ast.walk(tree):
        if isinstance(node, ast.ClassDef) and node.name.endswith(_EMPTY_WORDS):
            yield f"{name}:{node.lineno}: class {node.name}: the name does not say what it is"
    if path.name == "__init__.py":
        yield from _init_faults(name, tree)


def _init_faults(name: str, tree: ast.Module) -> Iterator[str]:
    for node in tree.body:
        is_docstring = isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant)
        is_export = isinstance(node, ast.Import | ast.ImportFrom)
        is_constant = isinstance(node, ast.Assign) and all(
            isinstance(target, ast.Name) and target.id.startswith("__") for target in node.targets
        )
        if not (is_docstring or is_export or is_constant):
            yield f"{name}:{node.lineno}: code in __init__.py; a docstring and exports only"


def code_names(root: Path) -> set[str]:
    """What documents may name: classes with their methods and attributes, modules with their functions."""
    names: set[str] = set()
    for path in (root / "src").rglob("*.py"):
        for node in ast.parse(path.read_text(encoding="utf-8")).body:
            if isinstance(node, ast.ClassDef):
                for part in ast.walk(node):
                    if isinstance(part, ast.FunctionDef | ast.AsyncFunctionDef):
                        names.add(f"{node.name}.{part.name}")
                    elif isinstance(part, ast.AnnAssign) and isinstance(part.target, ast.Name):
                        names.add(f"{node.name}.{part.target.id}")
            elif isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
                names.add(f"{path.stem}.{node.name}")
    return names


def document_faults(root: Path, name: str, text: str, known: set[str]) -> Iterator[str]:
    """Names of code in a document that the code does not have, and links to files that are not there."""
    for line, content in enumerate(text.splitlines(), 1):
        for path in _MODULE.findall(content):
            if not any((root / top / path).exists() for top in ("", "src/popgate", "src")):
                yield f"{name}:{line}: there is no {path}"
        for target in _LINK.findall(content):
            if not ((root / name).parent / target).exists():
                yield f"{name}:{line}: the link leads nowhere: {target}"
        for called in _METHOD.findall(content):
            if called not in known:
                yield f"{name}:{line}: the code has no {called}"


def check(root: Path) -> list[str]:
    """All faults below `root`."""
    faults: list[str] = []
    known = code_names(root)
    for path in files(root):
        try:
            text = (root / path).read_text(encoding="utf-8")
        except UnicodeDecodeError:  # a corpus file, a picture
            continue
        name = str(path)
        faults += text_faults(name, text)
        if path.suffix == ".py" and path.parts[0] in {"src", "tools"}:
            faults += module_faults(name, text)
        if path.suffix == ".md" and "decisions" not in path.parts and path.name != "CHANGELOG.md":
            faults += document_faults(root, name, text, known)
    return faults


def main() -> int:
    """Print the faults; the exit status says whether there are any."""
    faults = check(Path.cwd())
    print("\n".join(faults), end="\n" if faults else "")
    return 1 if faults else 0


if __name__ == "__main__":
    sys.exit(main())
