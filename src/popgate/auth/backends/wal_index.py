"""Has anything been committed to a SQLite database? Told by one small read, without a lock.

Every commit of any process changes the header of the wal-index, the file NAME-shm beside a
database in write-ahead mode (https://www.sqlite.org/walformat.html, 2.1):

    octets  0 to 47   version, unused, number of commits, is-initialised, byte order, page size;
                      frames in the log, pages, checksum of the last frame, salts of the log;
                      checksum of all these
    octets 48 to 95   the same again

A commit writes the second copy first; so where both agree, nobody is between them, and a writer
that was killed there leaves them different until SQLite repairs them. By these octets alone SQLite
itself tells whether the pages that it holds in memory are those of now: this is that same test, and
as exact. It never repeats: a repair counts commits from 0 again, but over the log's content, whose
checksum is in it, and a log that begins anew has another salt.

It holds while a connection of this process is open to the database: with its locks nobody can
remove the log, or put the database into another mode.

The file is read through the descriptor over which SQLite has mapped it, and never opened here:
whoever closes any descriptor of a file gives up all locks that his process has on it, SQLite's
too (https://www.sqlite.org/howtocorrupt.html, 2.2). Where that descriptor cannot be found, as on
systems without /proc, there is no wal-index, and its user asks SQLite.

This module knows nothing of accounts.
"""

import os
import sys
from typing import Final, Self

_COPY: Final = 48
_VERSION: Final = (3_007_000).to_bytes(4, sys.byteorder)  # the header is in the machine's order
_IS_INITIALISED: Final = 12  # an octet, 1 once it holds


class WalIndex:
    """The wal-index over the descriptor `fd`, which stays SQLite's own."""

    def __init__(self, fd: int) -> None:
        self._fd = fd
        self._sound: bytes | None = None  # what was last read and found good

    @classmethod
    def of(cls, path: str) -> Self | None:
        """The wal-index of the database at `path`, to which a connection of this process is open and
        has read something; None where there is none or SQLite's is another file by now."""
        try:
            wanted = os.stat(f"{path}-shm")
            names = os.listdir("/proc/self/fd")
        except OSError:
            return None
        for name in names:
            try:
                status = os.fstat(int(name))
            except OSError:  # the descriptor of the listing
                continue
            if status.st_ino == wanted.st_ino and status.st_dev == wanted.st_dev:
                return cls(int(name))
        return None

    def state(self) -> bytes | None:
        """Octets that are equal if and only if nothing was committed between two calls; None where that
        cannot be told now. Take it before what it shall vouch for."""
        try:
            header = os.pread(self._fd, 2 * _COPY, 0)
        except OSError:
            return None
        if header != self._sound:
            if (
                len(header) != 2 * _COPY
                or header[:_COPY] != header[_COPY:]
                or header[:4] != _VERSION
                or header[_IS_INITIALISED] != 1
            ):
                return None
            self._sound = header
        return header
