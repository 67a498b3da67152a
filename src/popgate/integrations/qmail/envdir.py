"""Env directories: a file a variable, as envdir(8) reads them.

Its rules: the first line of the file is the text, without blanks and tabs at its end, NUL standing
for a line end; an empty file removes the variable; names that begin with a period are skipped. A
directory in it, or a file that cannot be read, and envdir starts nothing.
"""

import posixpath

from popgate.integrations.qmail.environment import Setting
from popgate.integrations.qmail.machine import Machine
from popgate.integrations.qmail.shell import UNKNOWN
from popgate.values.value import value


@value
class EnvDirectory:
    """What the directory `path` sets. `unreadable` are the entries at which envdir gives up;
    `is_read` is False where the path itself is not known before the script runs."""

    path: str
    line: int
    exists: bool
    is_read: bool
    settings: dict[str, Setting]
    removed: frozenset[str]
    unreadable: tuple[str, ...]


def read_directory(machine: Machine, path: str, line: int, where: str) -> EnvDirectory:
    """Read `path`, which is relative to the directory `where`."""
    if UNKNOWN in path:
        return EnvDirectory(path, line, True, False, {}, frozenset(), ())
    full = posixpath.normpath(posixpath.join(where, path)) if path else ""
    if not path or not machine.is_directory(full):
        return EnvDirectory(full or path, line, False, True, {}, frozenset(), ())
    try:
        names = machine.names(full)
    except OSError:
        return EnvDirectory(full, line, True, False, {}, frozenset(), ())
    settings: dict[str, Setting] = {}
    removed: set[str] = set()
    unreadable: list[str] = []
    for name in names:
        if name.startswith("."):
            continue
        file = posixpath.join(full, name)
        octets = machine.octets(file)
        if octets is None:
            unreadable.append(file)
        elif "=" in name:
            continue
        elif not octets:
            removed.add(name)
        else:
            text = octets.partition(b"\n")[0].rstrip(b" \t").replace(b"\0", b"\n")
            settings[name] = Setting(text.decode("utf-8", "surrogateescape"), file, 1)
    return EnvDirectory(full, line, True, True, settings, frozenset(removed), tuple(unreadable))
