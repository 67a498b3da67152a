"""Patterns by the names that people give: shipped ones, a site's own, and files."""

import os
from collections.abc import Mapping, Sequence

from popgate.integrations.logs.pattern import Pattern, PatternError
from popgate.integrations.logs.pattern_files import read_pattern, shipped

_OCTETS = 1 << 20
ALL = "all"


class PatternSetError(ValueError):
    """There is no such pattern, or its file cannot be used; the text says where and why."""


def pattern_set(names: Sequence[str], own: Mapping[str, Pattern] | None = None) -> list[Pattern]:
    """The patterns named; all that are shipped, and the site's `own`, where nothing is named or `all`.

    A name with a slash or the ending .toml is a file, or a directory of such files. Raises PatternSetError.
    """
    own = own or {}
    found: dict[str, Pattern] = {}
    for name in names or (ALL,):
        if name == ALL:
            found |= {**shipped(), **own}
        elif "/" in name or name.endswith(".toml"):
            found |= {pattern.name: pattern for pattern in _files(name)}
        elif name in own or name in shipped():
            found[name] = own[name] if name in own else shipped()[name]
        else:
            raise PatternSetError(
                f"there is no pattern {name!r}; there are {', '.join({**shipped(), **own})}"
            )
    return list(found.values())


def _files(path: str) -> list[Pattern]:
    if not os.path.isdir(path):
        return [_file(path)]
    names = sorted(name for name in os.listdir(path) if name.endswith(".toml"))
    if not names:
        raise PatternSetError(f"{path}: there is no file *.toml")
    return [_file(os.path.join(path, name)) for name in names]


def _file(path: str) -> Pattern:
    try:
        with open(path, encoding="utf-8") as file:
            text = file.read(_OCTETS)
        return read_pattern(text)
    except PatternError as error:
        key = ".".join(str(step) for step in error.key)
        line = _line(text, error.key)
        where = f"{path}:{line}" if line else path
        raise PatternSetError(f"{where}: {key}: {error} ({error.remedy})") from None
    except OSError as error:
        raise PatternSetError(f"{path}: cannot be read: {error.strerror}") from None
    except ValueError as error:
        raise PatternSetError(f"{path}: is not TOML: {error}") from None


def _line(text: str, key: tuple[str | int, ...]) -> int:
    """Where `key` stands in the file: its own line, or for an element of a list the line after so many
    elements. 0 where that cannot be told."""
    lines = text.splitlines()
    name = str(key[0])
    start = next((n for n, line in enumerate(lines) if line.split("=")[0].strip() == name), None)
    if start is None:
        return 0
    if len(key) < 2 or not isinstance(key[1], int):
        return start + 1
    seen = -1
    for number, line in enumerate(lines[start:], start):
        stripped = line.partition("[")[2].strip() if number == start else line.strip()
        if stripped.startswith(("'", '"')):
            seen += 1
        if seen == key[1]:
            return number + 1
    return start + 1
