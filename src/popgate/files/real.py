"""The disk as the kernel gives it: every call by directory descriptor, no symbolic link followed.

It knows nothing of queues or mailboxes, and it catches nothing: each OSError reaches the caller.
"""

import errno
import fcntl
import os
import stat
from collections.abc import Iterator, Sequence
from typing import Final, Literal

from popgate.files.disk import DirectoryStamp, Entry

_DIRECTORY = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
_CREATE = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
# O_NONBLOCK: opening a FIFO that someone put there must not hang
_READ = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_NOCTTY | os.O_CLOEXEC
_LOCK = os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_NOCTTY | os.O_CLOEXEC


class RealDisk:
    """`popgate.files.disk.Disk` on the real file system. Stateless; any thread may call it."""

    __slots__ = ()

    def open_directory(self, path: str, dir_fd: int | None = None) -> int:
        return os.open(path, _DIRECTORY, dir_fd=dir_fd)

    def make_directory(self, name: str, dir_fd: int | None = None, mode: int = 0o700) -> None:
        os.mkdir(name, mode, dir_fd=dir_fd)

    def create(self, name: str, dir_fd: int, mode: int = 0o600) -> int:
        return os.open(name, _CREATE, mode, dir_fd=dir_fd)

    def open_file(self, name: str, dir_fd: int) -> int:
        fd = os.open(name, _READ, dir_fd=dir_fd)
        return _regular(fd, name)

    def read(self, fd: int, most: int) -> bytes:
        return os.read(fd, most)

    def write(self, fd: int, data: bytes) -> None:
        written = os.write(fd, data)
        if written < len(data):
            rest = memoryview(data)[written:]
            while rest:
                rest = rest[os.write(fd, rest) :]

    def sync(self, fd: int) -> None:
        os.fsync(fd)

    def sync_directory(self, dir_fd: int) -> None:
        os.fsync(dir_fd)

    def link(self, source: str, source_fd: int, target: str, target_fd: int) -> None:
        os.link(source, target, src_dir_fd=source_fd, dst_dir_fd=target_fd, follow_symlinks=False)

    def rename(self, source: str, source_fd: int, target: str, target_fd: int) -> None:
        os.rename(source, target, src_dir_fd=source_fd, dst_dir_fd=target_fd)

    def unlink(self, name: str, dir_fd: int) -> None:
        os.unlink(name, dir_fd=dir_fd)

    def remove_directory(self, name: str, dir_fd: int) -> None:
        os.rmdir(name, dir_fd=dir_fd)

    def names(self, dir_fd: int) -> Sequence[str]:
        return os.listdir(dir_fd)  # from its beginning, and leaves the position there

    def entry(self, name: str, dir_fd: int | None = None) -> Entry:
        return _entry(os.stat(name, dir_fd=dir_fd, follow_symlinks=False))

    def entry_of(self, fd: int) -> Entry:
        return _entry(os.fstat(fd))

    def stamp(self, name: str, dir_fd: int) -> DirectoryStamp:
        status = os.stat(name, dir_fd=dir_fd, follow_symlinks=False)
        if not stat.S_ISDIR(status.st_mode):
            raise NotADirectoryError(errno.ENOTDIR, os.strerror(errno.ENOTDIR), name)
        return status.st_ino, status.st_mtime_ns, status.st_ctime_ns

    def entries(self, dir_fd: int) -> Iterator[tuple[str, Entry]]:
        for name in self.names(dir_fd):
            try:
                found = self.entry(name, dir_fd)
            except FileNotFoundError:
                continue
            yield name, found

    def lock(self, name: str, dir_fd: int) -> int:
        while True:
            fd = os.open(name, _LOCK, 0o600, dir_fd=dir_fd)
            try:
                fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
                ours = os.fstat(fd)
                if not stat.S_ISREG(ours.st_mode):
                    raise OSError(errno.EINVAL, "not a regular file", name)
                if _is_same_file(ours, name, dir_fd):
                    return fd
            except BaseException:
                os.close(fd)
                raise
            # someone removed or replaced the file before we had the lock: that lock guards nothing
            os.close(fd)

    def unlock(self, fd: int) -> None:
        fcntl.flock(fd, fcntl.LOCK_UN)

    def lock_again(self, fd: int, was: Entry, path: str) -> bool:
        fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
        try:
            there = os.stat(path, follow_symlinks=False)
        except (FileNotFoundError, NotADirectoryError):
            return False
        return there.st_ino == was.inode and there.st_dev == was.device

    def set_mtime(self, name: str, dir_fd: int, mtime: float) -> None:
        os.utime(name, (mtime, mtime), dir_fd=dir_fd, follow_symlinks=False)

    def close(self, fd: int) -> None:
        os.close(fd)


def _regular(fd: int, name: str) -> int:
    try:
        if not stat.S_ISREG(os.fstat(fd).st_mode):
            raise OSError(errno.EINVAL, "not a regular file", name)
    except BaseException:
        os.close(fd)
        raise
    return fd


def _is_same_file(ours: os.stat_result, name: str, dir_fd: int) -> bool:
    try:
        there = os.stat(name, dir_fd=dir_fd, follow_symlinks=False)
    except FileNotFoundError:
        return False
    return os.path.samestat(ours, there)


_KINDS: Final[dict[int, Literal["f", "d", "o"]]] = {stat.S_IFREG: "f", stat.S_IFDIR: "d"}


def _entry(status: os.stat_result) -> Entry:
    mode = status.st_mode
    kind = _KINDS.get(stat.S_IFMT(mode), "o")
    return Entry(
        kind,
        status.st_size,
        status.st_mtime,
        status.st_nlink,
        status.st_uid,
        mode & 0o7777,
        status.st_ino,
        status.st_dev,
    )
