"""Flags of messages: which can be kept, and that their names are one whatever their case.

Both folder back ends know flags by these rules; how they lie on disk is the Maildir's business.
"""

from collections.abc import Iterable
from typing import Final, Literal

# RFC 9051 2.3.2. \Recent is no flag of a message but of a session.
SYSTEM_FLAGS: Final = ("\\Answered", "\\Deleted", "\\Draft", "\\Flagged", "\\Seen")
MAX_KEYWORDS: Final = 26
"""In a folder, as many as a Maildir's file names can tell apart."""

_SYSTEM: Final = {flag.lower(): flag for flag in SYSTEM_FLAGS}

Operation = Literal["replace", "add", "remove"]


def sorted_out(flags: Iterable[str]) -> tuple[frozenset[str], list[str]]:
    """System flags as RFC 9051 spells them, and keywords each once; other flags with a backslash
    cannot be kept and are left out."""
    system = set()
    keywords: dict[str, str] = {}
    for flag in flags:
        if flag[:1] == "\\":
            known = _SYSTEM.get(flag.lower())
            if known:
                system.add(known)
        elif flag:
            keywords.setdefault(flag.lower(), flag)
    return frozenset(system), list(keywords.values())


def combined(before: frozenset[str], operation: Operation, flags: frozenset[str]) -> frozenset[str]:
    if operation == "add":
        return before | flags
    return before - flags if operation == "remove" else flags
