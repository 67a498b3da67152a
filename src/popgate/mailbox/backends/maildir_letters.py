"""Flags as letters in the names of a Maildir's files, as Dovecot writes them.

The system flags are D, F, R, S and T. Keywords are a to z, by the file `dovecot-keywords` of the folder:
lines of a number, 0 for `a`, and the keyword. It is changed as Dovecot does it, by a lock file that takes
its place, so both may. Letters that mean nothing to popgate stay where they are.
"""

import re
from typing import Final

from popgate.files.disk import Disk, Entry
from popgate.mailbox.backends.maildir_folder import release
from popgate.mailbox.backends.maildir_names import split_name
from popgate.mailbox.folders import TooMany
from popgate.mailbox.mailbox import MailboxError
from popgate.mailbox.message_flags import MAX_KEYWORDS, sorted_out
from popgate.values.clock import Clock

FILE: Final = "dovecot-keywords"
LOCK: Final = FILE + ".lock"
STALE_LOCK_SECONDS: Final = 60
_MAX_FILE = 65536

_SYSTEM: Final = {"\\Draft": "D", "\\Flagged": "F", "\\Answered": "R", "\\Seen": "S", "\\Deleted": "T"}
_FLAGS: Final = {letter: flag for flag, letter in _SYSTEM.items()}
_KEYWORD_LETTERS: Final = "abcdefghijklmnopqrstuvwxyz"
_OURS: Final = frozenset("DFRST" + _KEYWORD_LETTERS)
_LINE = re.compile(rb"([0-9]{1,2}) (.+)")
# RFC 9051 9 flag-keyword: an atom
_ATOM = re.compile(r"[!#$&'+,./0-9:;<=>?@A-Z\[^_`a-z|}~\-]{1,255}\Z")

Keywords = tuple[str, ...]
"""By number; "" where a number has none."""


def letters_of(name: str) -> str:
    """The flags in a file's name that popgate knows, each once, in order."""
    info = split_name(name)[1]
    if not info.startswith(":2,"):
        return ""
    return "".join(sorted(_OURS.intersection(info[3:].partition(",")[0])))


def name_with(name: str, letters: str) -> str:
    """The name with these flags in place of those that popgate knows; the same where it can have none."""
    base, info = split_name(name)
    if info.startswith(":1,") or name[0] == ":":
        return name
    there, comma, rest = info[3:].partition(",")
    kept = {letter for letter in there if letter not in _OURS}
    return base + ":2," + "".join(sorted(kept.union(letters))) + comma + rest


def flags_of(letters: str, keywords: Keywords) -> frozenset[str]:
    flags = []
    for letter in letters:
        flag = _FLAGS.get(letter)
        if flag is None:
            number = ord(letter) - 97
            flag = keywords[number] if 0 <= number < len(keywords) else ""
        if flag:
            flags.append(flag)
    return frozenset(flags)


def letters_for(flags: frozenset[str], keywords: Keywords) -> tuple[str, list[str]]:
    """The letters of flags, and the keywords among them that have none yet."""
    system, wanted = sorted_out(flags)
    letters = [_SYSTEM[flag] for flag in system]
    numbers = {keyword.lower(): number for number, keyword in reversed(list(enumerate(keywords))) if keyword}
    missing = []
    for keyword in wanted:
        number = numbers.get(keyword.lower())
        if number is None:
            missing.append(keyword)
        else:
            letters.append(_KEYWORD_LETTERS[number])
    return "".join(sorted(letters)), missing


def read_keywords(disk: Disk, home: int) -> Keywords:
    """Raises OSError."""
    try:
        fd = disk.open_file(FILE, home)
    except FileNotFoundError:
        return ()
    try:
        data = b""
        while len(data) < _MAX_FILE and (block := disk.read(fd, _MAX_FILE - len(data))):
            data += block
    finally:
        release(disk, fd)
    found: dict[int, str] = {}
    for line in data.split(b"\n"):
        parts = _LINE.fullmatch(line)
        if parts is None or int(parts[1]) >= MAX_KEYWORDS:
            continue
        keyword = parts[2].decode("utf-8", "replace")
        if _ATOM.match(keyword):
            found[int(parts[1])] = keyword
    return tuple(found.get(number, "") for number in range(max(found) + 1)) if found else ()


def keywords_stamp(disk: Disk, home: int) -> Entry | None:
    """What differs when the file of keywords has changed."""
    try:
        return disk.entry(FILE, home)
    except FileNotFoundError:
        return None


def add_keywords(disk: Disk, home: int, missing: list[str], clock: Clock) -> Keywords:
    """Give letters to keywords, in the folder whose directory `home` is; they are on disk when it returns.
    One caller at a time. Raises TooMany, MailboxError, OSError."""
    for keyword in missing:
        if not _ATOM.match(keyword):
            raise MailboxError("a keyword that is no atom")
    fd = _locked(disk, home, clock)
    try:
        try:
            keywords = list(read_keywords(disk, home))
            there = {keyword.lower() for keyword in keywords}
            for keyword in missing:
                if keyword.lower() in there:
                    continue  # another program gave it one meanwhile
                _give_number(keywords, keyword)
            disk.write(fd, "".join(f"{n} {each}\n" for n, each in enumerate(keywords) if each).encode())
            disk.sync(fd)
        finally:
            disk.close(fd)
        disk.rename(LOCK, home, FILE, home)
    except BaseException:
        try:
            disk.unlink(LOCK, home)
        except OSError:
            pass
        raise
    disk.sync_directory(home)
    return tuple(keywords)


def _give_number(keywords: list[str], keyword: str) -> None:
    if "" in keywords:
        # A number without a keyword may stand in names of files still; the last ones are taken first
        if len(keywords) < MAX_KEYWORDS:
            keywords.append(keyword)
        else:
            keywords[keywords.index("")] = keyword
        return
    if len(keywords) >= MAX_KEYWORDS:
        raise TooMany(f"a folder has at most {MAX_KEYWORDS} keywords")
    keywords.append(keyword)


def _locked(disk: Disk, home: int, clock: Clock) -> int:
    for _ in range(2):
        try:
            return disk.create(LOCK, home)
        except FileExistsError:
            try:
                if disk.entry(LOCK, home).mtime > clock.now() - STALE_LOCK_SECONDS:
                    break
                disk.unlink(LOCK, home)
            except FileNotFoundError:
                continue
    raise MailboxError("another program has the keywords locked")
