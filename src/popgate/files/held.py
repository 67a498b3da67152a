"""A file that one process at a time holds: which of several does a thing that one alone may do.

The kernel frees the lock however that process ends, and the next one goes on.
"""

import fcntl
import os


class HeldFile:
    """One process's way to the file at `path`. Each method may block as long as a local disk does."""

    def __init__(self, path: str) -> None:
        self._path = path
        self._file = -1

    def take(self) -> bool:
        """Have it, unless another process has. Raises OSError."""
        if self._file >= 0:
            return True
        file = os.open(self._path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600)
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            is_there = self._is_at_path(file)
        except BlockingIOError:
            is_there = False
        except BaseException:
            os.close(file)
            raise
        if not is_there:
            os.close(file)
            return False
        self._file = file
        return True

    @property
    def descriptor(self) -> int:
        """Of the file, for reading and writing, while it is held; else -1."""
        return self._file

    def is_held(self) -> bool:
        """Is it still the file that others would open? Somebody may have removed it."""
        return self._file >= 0 and self._is_at_path(self._file)

    def give_up(self) -> None:
        if self._file >= 0:
            os.close(self._file)
            self._file = -1

    def _is_at_path(self, file: int) -> bool:
        try:
            return os.path.samestat(os.fstat(file), os.stat(self._path, follow_symlinks=False))
        except OSError:
            return False
