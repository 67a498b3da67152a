"""What a file name in a Maildir says: when it came, which message it is, its sizes and flags.

    UNIQUE[,S=octets on disk][,W=octets with CRLF][:2,FLAGS]

The part before `:2,` (the base) names the message for as long as it exists; programs change
only what follows. Names come from anybody who may write to the Maildir, so they are read
as hostile text. This module touches no file.
"""

import hashlib
import os
import re
from typing import NamedTuple

_HOST_CHARS = frozenset("abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789.-_")
_MAX_HOST = 100  # a file name has at most 255 bytes, and flags come behind

_SIZES = re.compile(r",([SW])=([0-9]{1,15})(?=,|\Z)")
_ARRIVAL = re.compile(r"[0-9]{1,12}(?=\.)")
# RFC 1939 7: a unique-id has 1 to 70 characters in the range 0x21 to 0x7E
_PLAIN_UID = re.compile(r"[!\"$-~][!-~]{0,69}\Z")


class Sizes(NamedTuple):
    """What the name claims; None where it claims nothing."""

    stored: int | None
    wire: int | None


def host_part(hostname: str) -> str:
    """The host name as it may stand in a file name: `/`, `:` and `,` as octal escapes."""
    escaped = "".join(
        char if char in _HOST_CHARS else "\\%03o" % ord(char) if char in "/:," else "_"
        for char in hostname[:_MAX_HOST]
    )
    return escaped[:_MAX_HOST] or "localhost"


def unique_name(now: float, process: int, count: int, token: str, host: str) -> str:
    """A base without its sizes: its time, and what no other delivery has at that time."""
    seconds = int(now)
    return "%d.M%06dP%dQ%06dR%s.%s" % (seconds, int((now - seconds) * 1_000_000), process, count, token, host)


def split_name(name: str) -> tuple[str, str]:
    """The base and the info behind it (`:2,FS`, or "")."""
    # A colon alone ends no base: names such as `12:30` from odd programs stay whole and apart.
    for mark in (":2,", ":1,"):
        base, colon, flags = name.partition(mark)
        if colon and base:
            return base, colon + flags
    return name, ""


def seen_name(name: str) -> str:
    """The name for cur with the S flag set and the other flags kept."""
    base, info = split_name(name)
    if info.startswith(":1,") or name[0] == ":":
        return name  # experimental semantics, or no base to put flags behind
    return base + ":2," + "".join(sorted({*info[3:], "S"}))


def uid_of(base: str) -> str:
    """The UIDL of the message: the base itself, or `#` and a hash where RFC 1939 forbids it.

    It depends on the base alone, so it never changes when other messages come or go, and
    two bases never share one: no plain one begins with `#`.
    """
    if _PLAIN_UID.match(base):
        return base
    return "#" + hashlib.sha256(os.fsencode(base)).hexdigest()[:48]


def email_id_of(base: str) -> str:
    """RFC 8474 EMAILID of a message that came with this base."""
    return "M" + hashlib.sha256(os.fsencode(base)).hexdigest()[:32]


def sizes_of(base: str) -> Sizes:
    claims = _SIZES.findall(base)
    if not claims:
        return Sizes(None, None)
    found = {}
    for letter, digits in claims:
        found[letter] = int(digits)
    return Sizes(found.get("S"), found.get("W"))


def arrival_of(base: str) -> int:
    """Unix time of delivery; 0 when the name does not tell."""
    found = _ARRIVAL.match(base)
    return int(found.group()) if found else 0
