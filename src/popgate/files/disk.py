"""Every file operation of queue and mailbox, behind one interface.

The real back end is `RealDisk`. A crash simulator can stand in its place, record the
operations and replay every prefix of them; so nothing in queue and mailbox calls os
directly. Paths are names below an open directory; symbolic links are never followed.
"""

from collections.abc import Iterator, Sequence
from typing import NamedTuple, Protocol


class Entry(NamedTuple):
    """`kind`: "f" regular file, "d" directory, "o" anything else. Sizes in bytes, times in Unix
    seconds; `mode` is the permission bits alone. No two files that exist have both `inode` and
    `device` in common."""

    kind: str
    size: int
    mtime: float
    links: int
    uid: int
    mode: int = 0o600
    inode: int = 0
    device: int = 0


DirectoryStamp = tuple[int, int, int]
"""Inode, time of the last change of names and of the last change of any kind, both in Unix nanoseconds."""


class Disk(Protocol):
    """All calls block and raise OSError. Directories and files are descriptors."""

    def open_directory(self, path: str, dir_fd: int | None = None) -> int:
        """O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC."""
        ...

    def make_directory(self, name: str, dir_fd: int | None = None, mode: int = 0o700) -> None: ...

    def create(self, name: str, dir_fd: int, mode: int = 0o600) -> int:
        """A new file for writing: O_EXCL | O_NOFOLLOW | O_CLOEXEC; FileExistsError when it is there."""
        ...

    def open_file(self, name: str, dir_fd: int) -> int:
        """An existing regular file for reading: O_NOFOLLOW | O_NONBLOCK | O_CLOEXEC, checked by
        fstat after opening; raises OSError (ELOOP, EINVAL) for anything else."""
        ...

    def read(self, fd: int, most: int) -> bytes: ...

    def write(self, fd: int, data: bytes) -> None:
        """All of `data`, however many write calls that takes."""
        ...

    def sync(self, fd: int) -> None:
        """fsync. When it raises, the file's content is unknown: give up the file."""
        ...

    def sync_directory(self, dir_fd: int) -> None: ...

    def link(self, source: str, source_fd: int, target: str, target_fd: int) -> None: ...

    def rename(self, source: str, source_fd: int, target: str, target_fd: int) -> None: ...

    def unlink(self, name: str, dir_fd: int) -> None: ...

    def remove_directory(self, name: str, dir_fd: int) -> None: ...

    def names(self, dir_fd: int) -> Sequence[str]:
        """Names in the directory, without . and .. (surrogateescape for bytes that are not UTF-8)."""
        ...

    def entry(self, name: str, dir_fd: int | None = None) -> Entry:
        """lstat."""
        ...

    def entry_of(self, fd: int) -> Entry:
        """fstat: what is open, whatever its name stands for by now."""
        ...

    def stamp(self, name: str, dir_fd: int) -> DirectoryStamp:
        """What differs when names in the directory have come or gone, or its owner or mode has changed.
        Raises NotADirectoryError for anything else, a link too."""
        ...

    def entries(self, dir_fd: int) -> Iterator[tuple[str, Entry]]:
        """names with entry; a file that vanishes meanwhile is left out."""
        ...

    def lock(self, name: str, dir_fd: int) -> int:
        """Take an exclusive lock on the file (made when missing) without waiting; close the
        descriptor to release it. Raises BlockingIOError when another holds it."""
        ...

    def unlock(self, fd: int) -> None:
        """Release what `lock` or `lock_again` took, and keep the descriptor for `lock_again`."""
        ...

    def lock_again(self, fd: int, was: Entry, path: str) -> bool:
        """Take the lock of an unlocked descriptor again, without waiting. `was`: its `entry_of`.

        False when `path`, from the root or the working directory, is another file by now or none:
        this lock guards nothing then, so close it and call `lock`. Raises BlockingIOError.
        """
        ...

    def set_mtime(self, name: str, dir_fd: int, mtime: float) -> None: ...

    def close(self, fd: int) -> None: ...
