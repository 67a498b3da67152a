"""The files that a log has become: renamed, copied, compressed.

Where the following was interrupted (a restart, a disk that stood still), the rest of what was being
read may be in one of them, and whole files may have come and gone since. They stand beside the log,
named after it with a number or a date, as logrotate, savelog, newsyslog and multilog-like
scripts name them: `mail.log.1`, `mail.log.2.gz`, `mail.log-20261124`, `mail-20261124.log`,
`maillog.0`, `mail.log.old`.
"""

import bz2
import gzip
import lzma
import os
import re
import stat
import zlib
from collections.abc import Callable, Container, Iterator
from typing import IO, cast

from popgate.integrations.logs.follow_mark import Mark
from popgate.integrations.logs.follow_trust import NotTrusted, Writers, open_trusted
from popgate.values.value import value

CANDIDATES_AT_MOST = 8
"""Of the rotated files the newest are looked at."""
UNPACKED_AT_MOST = 1 << 31
_BLOCK = 1 << 16
_OPENERS: dict[str, Callable[..., object]] = {
    ".gz": gzip.open,
    ".bz2": bz2.open,
    ".xz": lzma.open,
    ".lzma": lzma.open,
}


@value
class Rotated:
    """A rotated file: its path, and its state when it was found. Its time is that of the last line."""

    path: str
    state: os.stat_result


def rotated_files(path: str, inode: int = -1) -> list[Rotated]:
    """The newest CANDIDATES_AT_MOST rotated files of the log at `path`, the oldest first; and the file
    in that directory with the number `inode`, whatever its name."""
    directory, name = os.path.split(os.path.realpath(path))
    pattern = _names(name)
    named: list[Rotated] = []
    numbered: list[Rotated] = []
    try:
        with os.scandir(directory) as entries:
            for entry in entries:
                is_named = pattern.fullmatch(entry.name) is not None
                if is_named or entry.inode() == inode:
                    state = entry.stat(follow_symlinks=False)
                    if stat.S_ISREG(state.st_mode):
                        (named if is_named else numbered).append(Rotated(entry.path, state))
    except OSError:
        pass  # what was found until then
    named.sort(key=_age)
    return sorted(named[-CANDIDATES_AT_MOST:] + numbered[:1], key=_age)


def _age(file: Rotated) -> int:
    return file.state.st_mtime_ns


def _names(name: str) -> "re.Pattern[str]":
    stem, dot, extension = name.rpartition(".")
    number = r"[.-](?:\d[\d.T_-]{0,40}|old)"
    names = re.escape(name) + number
    if stem and dot:
        names = f"(?:{names}|{re.escape(stem)}{number}{re.escape(dot + extension)})"
    return re.compile(names + r"(?:\.gz|\.bz2|\.xz|\.lzma)?")


def rest_of(path: str, mark: Mark, writers: Writers) -> tuple[Iterator[bytes], Rotated] | None:
    """What follows `mark` in the rotated file that fits it, in blocks, and that file. None: there is none."""
    candidates = rotated_files(path, mark.inode)
    candidates.sort(key=lambda one: (one.state.st_ino != mark.inode, -_age(one)))
    for candidate in candidates:
        blocks = _rest(candidate, mark, writers)
        if blocks is not None:
            return blocks, candidate
    return None


def newer_than(path: str, time_ns: int, known: Container[int], writers: Writers) -> list[Iterator[bytes]]:
    """The rotated files whose last line is later than that, each in blocks, the oldest first; but not those
    whose numbers are `known`."""
    return [
        _whole(file, writers)
        for file in rotated_files(path)
        if _age(file) > time_ns and file.state.st_ino not in known
    ]


class _Reader:
    """A file, unpacked where its name says that it is packed. Used in one go and closed."""

    def __init__(self, file: Rotated, writers: Writers) -> None:
        """Raises OSError or NotTrusted."""
        self._plain = os.fdopen(open_trusted(file.path, writers), "rb", buffering=0)
        opener = _OPENERS.get(os.path.splitext(file.path)[1])
        self._unpacked = cast("IO[bytes]", self._plain if opener is None else opener(self._plain, "rb"))

    def read(self, octets: int) -> bytes:
        return self._unpacked.read(octets) or b""

    def read_at(self, offset: int, octets: int) -> bytes:
        """In a packed file everything before is read too."""
        self._unpacked.seek(offset)
        out = b""
        while len(out) < octets:
            block = self.read(octets - len(out))
            if not block:
                break
            out += block
        return out

    def close(self) -> None:
        if self._unpacked is not self._plain:
            self._unpacked.close()
        self._plain.close()


def _rest(file: Rotated, mark: Mark, writers: Writers) -> Iterator[bytes] | None:
    if mark.offset > UNPACKED_AT_MOST:
        return None
    try:
        reader = _Reader(file, writers)
    except _UNREADABLE:
        return None
    is_it = False
    try:
        is_it = mark.fits(reader.read_at)
    except _UNREADABLE:
        pass
    if is_it:
        return _blocks(reader)
    reader.close()
    return None


def _whole(file: Rotated, writers: Writers) -> Iterator[bytes]:
    try:
        reader = _Reader(file, writers)
    except _UNREADABLE:
        return
    yield from _blocks(reader)


def _blocks(reader: _Reader) -> Iterator[bytes]:
    """To the end, or to where a damaged file can no longer be read."""
    octets = 0
    try:
        while octets < UNPACKED_AT_MOST:
            block = reader.read(_BLOCK)
            if not block:
                return
            octets += len(block)
            yield block
    except _UNREADABLE:
        return
    finally:
        reader.close()


_UNREADABLE = (OSError, EOFError, ValueError, lzma.LZMAError, zlib.error, NotTrusted)
