"""Tells which names of a directory something happened to.

A file that is written or dated in place changes nothing of its directory, so its modification time would
tell nothing; inotify does. Of what another machine does over NFS it tells nothing either, and its watches
may be used up: whoever asks must look at the whole directory now and then.
"""

import os
from collections.abc import Collection
from contextlib import suppress

from asyncinotify import Inotify, Mask

_MASK = (
    Mask.CREATE | Mask.MOVED_TO | Mask.MOVED_FROM | Mask.DELETE | Mask.CLOSE_WRITE | Mask.MODIFY | Mask.ATTRIB
    | Mask.DELETE_SELF | Mask.MOVE_SELF
)  # fmt: skip
_LOST = Mask.Q_OVERFLOW | Mask.IGNORED | Mask.DELETE_SELF | Mask.MOVE_SELF | Mask.UNMOUNT


class DirectoryWatch:
    """Watches the directory at `path`. `fileno()` is readable when something happened, -1 without inotify."""

    def __init__(self, path: str) -> None:
        self._path = path
        self._inotify: Inotify | None = None
        self._identity: tuple[int, int] | None = None
        with suppress(OSError):
            self._inotify = Inotify(sync_timeout=0)

    def fileno(self) -> int:
        return -1 if self._inotify is None else self._inotify.fd

    @property
    def is_told(self) -> bool:
        """Is every change here told of?"""
        return self._identity is not None

    def renew(self) -> bool:
        """Watch the directory that has the name now; False where it was watched already. Look at all of
        it when that was so, for something may have happened before."""
        identity = _identity(self._path)
        if self._inotify is None or (identity is not None and identity == self._identity):
            return False
        self._identity = None
        try:
            self._inotify.add_watch(self._path, _MASK | Mask.ONLYDIR)
        except OSError:
            return False
        self._identity = identity if identity == _identity(self._path) else None
        return True

    def changed(self) -> Collection[str] | None:
        """The names, without waiting; None where anything may have happened."""
        names: set[str] = set()
        is_lost = False
        if self._inotify is not None:
            for event in self._inotify:
                if event.mask & _LOST:
                    is_lost = True
                    self._identity = None
                elif event.name is not None:
                    names.add(os.fspath(event.name))
        return None if is_lost else names

    def close(self) -> None:
        if self._inotify is not None:
            self._inotify.close()
            self._inotify = None


def _identity(path: str) -> tuple[int, int] | None:
    try:
        found = os.stat(path)
    except OSError:
        return None
    return found.st_dev, found.st_ino
