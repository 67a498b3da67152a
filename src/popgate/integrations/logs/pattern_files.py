"""Reads patterns: those that are shipped, as data files beside this module, and a site's own files.

A file is one pattern in TOML; docs/logs.md tells the keys. The `example` tables of the
shipped files are run as tests.
"""

import tomllib
from collections.abc import Mapping, Sequence
from functools import cache
from importlib.resources import files
from typing import Literal, get_args

from popgate.grants.grant import LoginProtocol
from popgate.integrations.logs.pattern import (
    KINDS,
    FormKind,
    KnownFrom,
    Pattern,
    PatternError,
    make_forms,
    probe_forms,
)
from popgate.integrations.logs.syntaxes import OWN_FILES
from popgate.values.value import value

_KEYS = frozenset(
    (
        *("name", "title", "versions", "known_from", "source", "syntax", "programs", "units"),
        *("as_root", "session", "contains", "example"),
        *KINDS,
    )
)
PROTOCOLS: tuple[LoginProtocol, ...] = ("pop3", "imap")


@value
class Example:
    """Lines of a log, and what they tell: `login USER ADDRESS PROTOCOL SESSION`, `logout ...`, or nothing."""

    lines: tuple[str, ...]
    sees: tuple[str, ...]


@cache
def shipped() -> Mapping[str, Pattern]:
    """All patterns that come with popgate, by name, in the order of their names."""
    patterns = [pattern_of(tomllib.loads(text)) for text in _texts().values()]
    return {pattern.name: pattern for pattern in sorted(patterns, key=lambda pattern: pattern.name)}


def shipped_examples() -> Mapping[str, Sequence[Example]]:
    """The examples in the data files, by the pattern's name."""
    found = {}
    for text in _texts().values():
        document = tomllib.loads(text)
        found[document["name"]] = [
            Example(tuple(one["lines"]), tuple(one.get("sees", ()))) for one in document["example"]
        ]
    return found


def _texts() -> dict[str, str]:
    directory = files("popgate.integrations.logs") / "known"
    return {
        entry.name: entry.read_text(encoding="utf-8")
        for entry in directory.iterdir()
        if entry.name.endswith(".toml")
    }


def read_pattern(text: str) -> Pattern:
    """A site's pattern from the text of its file: its expressions are tried on hostile text too.
    Raises PatternError, or tomllib's ValueError."""
    pattern = pattern_of(tomllib.loads(text))
    probe_forms(pattern)
    return pattern


def pattern_of(document: Mapping[str, object]) -> Pattern:
    """A pattern from its table. Raises PatternError."""
    for key in document:
        if key not in _KEYS:
            raise PatternError((key,), "there is no such key", f"known here: {', '.join(sorted(_KEYS))}")
    name = _text(document, "name")
    if not name:
        raise PatternError(("name",), "is missing", 'write name = "my-pop3d"')
    forms: dict[FormKind, Sequence[str]] = {kind: _texts_of(document, kind) for kind in KINDS}
    known_from = _text(document, "known_from") or "unverified"
    if known_from not in get_args(KnownFrom):
        raise PatternError(("known_from",), "is no such word", f"one of {', '.join(get_args(KnownFrom))}")
    syntax = _text(document, "syntax") or "syslog"
    if syntax not in ("syslog", *OWN_FILES):
        raise PatternError(("syntax",), "is no such word", f"one of syslog, {', '.join(OWN_FILES)}")
    as_root = document.get("as_root", False)
    if not isinstance(as_root, bool):
        raise PatternError(("as_root",), "must be true or false", "write as_root = true, or leave it out")
    session = _text(document, "session")
    if session not in ("", "pid"):
        raise PatternError(("session",), "is no such word", 'write session = "pid", or leave it out')
    return Pattern(
        name=name,
        title=_text(document, "title") or name,
        versions=_text(document, "versions"),
        known_from=known_from,  # type: ignore[arg-type]
        source=_text(document, "source"),
        syntax=syntax,
        programs=_programs(document),
        units=tuple(_texts_of(document, "units")),
        as_root=as_root,
        forms=make_forms(forms, _texts_of(document, "contains")),
        session_is_pid=session == "pid",
    )


def _programs(document: Mapping[str, object]) -> Mapping[str, LoginProtocol | Literal[""]]:
    given = document.get("programs")
    if not isinstance(given, Mapping) or not given:
        raise PatternError(
            ("programs",),
            "names no program: any user can write lines as another program",
            'write programs = { pop3d = "pop3" }',
        )
    programs: dict[str, LoginProtocol | Literal[""]] = {}
    for program, protocol in given.items():
        if protocol not in (*PROTOCOLS, ""):
            raise PatternError(
                ("programs", str(program)),
                "is no protocol",
                'write "pop3" or "imap", or "" with a group protocol',
            )
        programs[str(program)] = protocol
    return programs


def _text(document: Mapping[str, object], key: str) -> str:
    given = document.get(key, "")
    if not isinstance(given, str):
        raise PatternError((key,), "must be text", f'write {key} = "..."')
    return given.strip()


def _texts_of(document: Mapping[str, object], key: str) -> Sequence[str]:
    given = document.get(key, [])
    if not isinstance(given, list) or not all(isinstance(one, str) for one in given):
        raise PatternError((key,), "must be a list of texts", f"write {key} = ['...']")
    return given
