"""Names of folders: which there may be, and how they are spelt in a Maildir++.

Folder `A/B` is the directory `.A.B`, its levels in modified UTF-7 (RFC 3501 5.1.3), as Courier
and Dovecot spell it. A name that could not be read back as what it was is no folder's name, in both
directions: so no two names share a directory, and none leads out of the Maildir. This module
touches no file.
"""

import base64
import binascii
import re
import unicodedata
from collections.abc import Iterator
from typing import Final

from popgate.mailbox.folders import BadFolderName

INBOX: Final = "INBOX"
MAX_DISK_OCTETS: Final = 255
MAX_LEVELS: Final = 32

# Of the names that RFC 6154 gives a use, those that clients make by themselves
_USED_BY_NAME: Final = {
    "Archive": "\\Archive",
    "Drafts": "\\Drafts",
    "Junk": "\\Junk",
    "Sent": "\\Sent",
    "Trash": "\\Trash",
}

_REFUSED: Final = frozenset("%*\\")  # what LIST's patterns mean, and what Windows takes for a level
_ENCODED = re.compile(r"&([A-Za-z0-9+,]*)-")
_NOT_PLAIN = re.compile(r"&|[^ -~]+")


def folder_name(name: str) -> str:
    """The name as it is kept: INBOX, also as the first level, in capitals. Raises BadFolderName."""
    levels = name.split("/")
    # RFC 9051 5.1: INBOX in any case
    if levels[0].upper() == INBOX:
        levels[0] = INBOX
    if len(levels) > MAX_LEVELS:
        raise BadFolderName(f"a folder lies at most {MAX_LEVELS} levels deep")
    for level in levels:
        _check(level)
    name = "/".join(levels)
    if len(directory_of(name)) > MAX_DISK_OCTETS:
        raise BadFolderName(f"the name takes more than {MAX_DISK_OCTETS} octets on disk")
    return name


def _check(level: str) -> None:
    if not level:
        raise BadFolderName("a level of the name is empty")
    if "." in level:
        raise BadFolderName("a full stop cannot be in the name of a folder here")
    if level[0] == "~":
        raise BadFolderName("no level of a name may begin with ~")
    if level != level.strip():
        raise BadFolderName("no level of a name may begin or end with a blank")
    for char in level:
        # Cc: control characters, Cf: invisible ones that turn text around, Cs: halves of characters,
        # Zl, Zp: line and paragraph separators, Cn: what is no character
        if char in _REFUSED or ((char > "~" or char < " ") and unicodedata.category(char) in _BAD_CATEGORIES):
            raise BadFolderName(f"{char!a} cannot be in the name of a folder here")


_BAD_CATEGORIES: Final = frozenset(("Cc", "Cs", "Cn", "Zl", "Zp"))


def parents_of(name: str) -> Iterator[str]:
    """`A/B/C`: `A`, `A/B`."""
    at = name.find("/")
    while at >= 0:
        yield name[:at]
        at = name.find("/", at + 1)


def directory_of(name: str) -> str:
    """The directory of a folder that is not INBOX, in the Maildir of its user."""
    return "." + encoded(name).replace("/", ".")


def folder_of(directory: str) -> str | None:
    """The folder that a directory of the Maildir is; None when it is none."""
    if directory[:1] != ".":
        return None
    try:
        name = decoded(directory[1:].replace(".", "/"))
        if name.upper() == INBOX or folder_name(name) != name or directory_of(name) != directory:
            return None
    except (BadFolderName, ValueError):
        return None
    return name


def special_use_of(name: str) -> str:
    """What a folder of that name is for, where nobody has said so."""
    return _USED_BY_NAME.get(name, "")


def encoded(name: str) -> str:
    """RFC 3501 5.1.3 modified UTF-7."""
    return _NOT_PLAIN.sub(_encode, name)


def _encode(found: re.Match[str]) -> str:
    text = found.group()
    if text == "&":
        return "&-"
    return "&" + base64.b64encode(text.encode("utf-16-be"), b"+,").rstrip(b"=").decode("ascii") + "-"


def decoded(text: str) -> str:
    """The opposite. Raises ValueError for what is no modified UTF-7."""
    if not text.isascii() or "&" in _ENCODED.sub("", text):
        raise ValueError("not modified UTF-7")
    return _ENCODED.sub(_decode, text)


def _decode(found: re.Match[str]) -> str:
    digits = found.group(1)
    if not digits:
        return "&"
    try:
        octets = base64.b64decode(digits + "=" * (-len(digits) % 4), b"+,", validate=True)
    except binascii.Error as error:
        raise ValueError("not modified UTF-7") from error
    return octets.decode("utf-16-be")  # UnicodeDecodeError is a ValueError
