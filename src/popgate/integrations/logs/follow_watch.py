"""Waits until something happens to a log file, or for a while.

The kernel tells of local changes (inotify). Of what another machine writes over NFS it tells nothing,
and its watches may be used up; so nobody waits longer than POLL_SECONDS, and all looks are cheap.
"""

import os
import select
from contextlib import suppress

from asyncinotify import Inotify, Mask

POLL_SECONDS = 1.0
PAUSE_SECONDS = 0.005
"""Between two looks, so that what is written meanwhile to a busy log is read at once."""
_FILE_MASK = Mask.MODIFY | Mask.ATTRIB | Mask.MOVE_SELF | Mask.DELETE_SELF
_DIRECTORY_MASK = Mask.CREATE | Mask.MOVED_TO
_WATCHES_AT_MOST = 8


class Wakeup:
    """Ends the waiting of another thread, from any thread."""

    def __init__(self) -> None:
        self._read, self._write = os.pipe2(os.O_NONBLOCK | os.O_CLOEXEC)

    def fileno(self) -> int:
        return self._read

    def wake(self) -> None:
        with suppress(OSError):  # it is full: there is enough to wake somebody
            os.write(self._write, b"w")

    def drain(self) -> None:
        with suppress(BlockingIOError):
            os.read(self._read, 4096)

    def close(self) -> None:
        os.close(self._read)
        os.close(self._write)


class FileWatch:
    """Watches the file at `path` and the directories in which its name stands. Used by one thread."""

    def __init__(self, path: str) -> None:
        self._path = path
        self._inotify: Inotify | None = None
        with suppress(OSError):
            self._inotify = Inotify(sync_timeout=0)

    def renew(self) -> None:
        """Another file may have the name now."""
        if self._inotify is None:
            return
        directories = {os.path.dirname(self._path), os.path.dirname(os.path.realpath(self._path))}
        for path, mask in [*((each, _DIRECTORY_MASK) for each in directories), (self._path, _FILE_MASK)]:
            with suppress(OSError):  # it is not there, or there are no watches left
                self._inotify.add_watch(path, mask)
        self._inotify_of_old()

    def _inotify_of_old(self) -> None:
        inotify = self._inotify
        assert inotify is not None
        files = [watch for watch in inotify.watches if watch.mask == _FILE_MASK]
        for watch in files[:-_WATCHES_AT_MOST]:
            with suppress(OSError):
                inotify.rm_watch(watch)

    def wait(self, wakeup: Wakeup, seconds: float = POLL_SECONDS) -> None:
        """Until something happens, or somebody wakes us, or `seconds` are over."""
        poll = select.poll()
        poll.register(wakeup.fileno(), select.POLLIN)
        if not poll.poll(PAUSE_SECONDS * 1000):
            if self._inotify is not None:
                poll.register(self._inotify.fd, select.POLLIN)
            poll.poll(seconds * 1000)
        wakeup.drain()
        if self._inotify is not None:
            for _ in self._inotify:
                pass  # what it was does not matter

    def close(self) -> None:
        if self._inotify is not None:
            self._inotify.close()
