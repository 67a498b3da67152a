"""A disk in memory that tells what would be left of it after a loss of power.

It keeps two states: what programs see, and what is safe because fsync said so. POSIX promises
no more than that, and file systems differ in what else survives; so `after_crash` asks for
each unsafe change whether it made it to the disk.
"""

import errno
import itertools
import os
from collections.abc import Callable, Iterator, Sequence

from popgate.files.disk import DirectoryStamp, Entry

ROOT = "/"


class Crash(BaseException):
    """The power is gone: no handler of the program under test runs to any effect."""


class _Node:
    """A file or a directory. `safe` is None for a file that never was synced."""

    def __init__(self, number: int, is_directory: bool) -> None:
        self.number = number
        self.is_directory = is_directory
        self.content = b""
        self.safe_content: bytes | None = None
        self.names: dict[str, _Node] = {}
        self.safe_names: dict[str, _Node] = {}
        self.mtime = 0.0


class CrashDisk:
    """Obeys popgate.files.disk.Disk; all files belong to this process's user.

    After `crash_after` changes to the disk every operation raises Crash.
    """

    def __init__(self, crash_after: int | None = None) -> None:
        self._numbers = itertools.count(1)
        self._root = _Node(0, True)
        self._open: dict[int, tuple[_Node, int]] = {}
        self._locked: dict[int, int] = {}
        self._fds = itertools.count(1000)
        self._left = crash_after
        self.changes = 0

    def after_crash(self, survives: Callable[[str], bool]) -> "CrashDisk":
        """The disk as the next start finds it.

        `survives` is asked about each change that was not synced: "name" (a directory entry
        made or removed), "content" (what was written into a file, else nothing of it).
        """
        again = CrashDisk()
        made: dict[int, _Node] = {0: again._root}

        def copy(node: _Node) -> _Node:
            if node.number in made:
                return made[node.number]
            new = made[node.number] = _Node(node.number, node.is_directory)
            if node.content == node.safe_content or survives("content"):
                new.content = node.content
            else:
                new.content = node.safe_content or b""
            new.safe_content = new.content
            new.mtime = node.mtime
            return new

        def walk(old: _Node, new: _Node) -> None:
            for name in sorted({*old.names, *old.safe_names}):
                now, then = old.names.get(name), old.safe_names.get(name)
                chosen = now if now is then or survives("name") else then
                if chosen is not None:
                    new.names[name] = copy(chosen)
                    if chosen.is_directory:
                        walk(chosen, new.names[name])
            new.safe_names = dict(new.names)

        walk(self._root, again._root)
        again._numbers = self._numbers
        return again

    def tree(self) -> dict[str, bytes]:
        """All files by path."""
        found = {}

        def walk(node: _Node, path: str) -> None:
            for name, below in node.names.items():
                if below.is_directory:
                    walk(below, f"{path}{name}/")
                else:
                    found[path + name] = below.content

        walk(self._root, "")
        return found

    def _change(self) -> None:
        self._alive()
        if self._left is not None:
            if self._left == 0:
                self._left = -1
                raise Crash
            self._left -= 1
        self.changes += 1

    def _alive(self) -> None:
        if self._left == -1:
            raise Crash

    def _node(self, fd: int) -> _Node:
        self._alive()
        return self._open[fd][0]

    def _new_fd(self, node: _Node) -> int:
        fd = next(self._fds)
        self._open[fd] = (node, 0)
        return fd

    def _look_up(self, name: str, dir_fd: int | None) -> _Node:
        node = self._root if dir_fd is None else self._node(dir_fd)
        for part in filter(None, name.split("/")):
            if part not in node.names:
                raise FileNotFoundError(errno.ENOENT, os.strerror(errno.ENOENT), name)
            node = node.names[part]
        return node

    def _add(self, name: str, directory: _Node, node: _Node) -> None:
        if name in directory.names:
            raise FileExistsError(errno.EEXIST, os.strerror(errno.EEXIST), name)
        directory.names[name] = node

    def open_directory(self, path: str, dir_fd: int | None = None) -> int:
        self._alive()
        node = self._look_up(path, dir_fd)
        if not node.is_directory:
            raise NotADirectoryError(errno.ENOTDIR, os.strerror(errno.ENOTDIR), path)
        return self._new_fd(node)

    def make_directory(self, name: str, dir_fd: int | None = None, mode: int = 0o700) -> None:
        self._change()
        above = self._root if dir_fd is None else self._node(dir_fd)
        self._add(name, above, _Node(next(self._numbers), True))

    def create(self, name: str, dir_fd: int, mode: int = 0o600) -> int:
        self._change()
        node = _Node(next(self._numbers), False)
        self._add(name, self._node(dir_fd), node)
        return self._new_fd(node)

    def open_file(self, name: str, dir_fd: int) -> int:
        node = self._look_up(name, dir_fd)
        if node.is_directory:
            raise OSError(errno.EINVAL, "not a regular file", name)
        return self._new_fd(node)

    def read(self, fd: int, most: int) -> bytes:
        self._alive()
        node, position = self._open[fd]
        data = node.content[position : position + most]
        self._open[fd] = (node, position + len(data))
        return data

    def write(self, fd: int, data: bytes) -> None:
        node = self._node(fd)
        half = len(data) // 2
        for part in (data[:half], data[half:]):
            self._change()
            node.content += part

    def sync(self, fd: int) -> None:
        self._change()
        node = self._node(fd)
        node.safe_content = node.content

    def sync_directory(self, dir_fd: int) -> None:
        self._change()
        node = self._node(dir_fd)
        node.safe_names = dict(node.names)

    def link(self, source: str, source_fd: int, target: str, target_fd: int) -> None:
        self._change()
        self._add(target, self._node(target_fd), self._look_up(source, source_fd))

    def rename(self, source: str, source_fd: int, target: str, target_fd: int) -> None:
        self._change()
        node = self._look_up(source, source_fd)
        del self._node(source_fd).names[source]
        self._node(target_fd).names[target] = node

    def unlink(self, name: str, dir_fd: int) -> None:
        self._change()
        self._look_up(name, dir_fd)
        del self._node(dir_fd).names[name]

    def remove_directory(self, name: str, dir_fd: int) -> None:
        self._change()
        if self._look_up(name, dir_fd).names:
            raise OSError(errno.ENOTEMPTY, os.strerror(errno.ENOTEMPTY), name)
        del self._node(dir_fd).names[name]

    def names(self, dir_fd: int) -> Sequence[str]:
        return list(self._node(dir_fd).names)

    def entry(self, name: str, dir_fd: int | None = None) -> Entry:
        self._alive()
        return _entry(self._look_up(name, dir_fd))

    def stamp(self, name: str, dir_fd: int) -> DirectoryStamp:
        node = self._look_up(name, dir_fd)
        if not node.is_directory:
            raise NotADirectoryError(errno.ENOTDIR, os.strerror(errno.ENOTDIR), name)
        return node.number, self.changes, 0

    def entry_of(self, fd: int) -> Entry:
        return _entry(self._node(fd))

    def entries(self, dir_fd: int) -> Iterator[tuple[str, Entry]]:
        for name, node in list(self._node(dir_fd).names.items()):
            yield name, _entry(node)

    def lock(self, name: str, dir_fd: int) -> int:
        self._alive()
        directory = self._node(dir_fd)
        if name not in directory.names:
            self._change()
            directory.names[name] = _Node(next(self._numbers), False)
        node = directory.names[name]
        if node.number in self._locked.values():
            raise BlockingIOError(errno.EAGAIN, os.strerror(errno.EAGAIN), name)
        fd = self._new_fd(node)
        self._locked[fd] = node.number
        return fd

    def unlock(self, fd: int) -> None:
        self._alive()
        del self._locked[fd]

    def lock_again(self, fd: int, was: Entry, path: str) -> bool:
        node = self._node(fd)
        if node.number in self._locked.values():
            raise BlockingIOError(errno.EAGAIN, os.strerror(errno.EAGAIN), path)
        self._locked[fd] = node.number
        try:
            return self._look_up(path, None) is node
        except FileNotFoundError:
            return False

    def set_mtime(self, name: str, dir_fd: int, mtime: float) -> None:
        self._change()
        self._look_up(name, dir_fd).mtime = mtime

    def close(self, fd: int) -> None:
        self._alive()
        del self._open[fd]
        self._locked.pop(fd, None)


def _entry(node: _Node) -> Entry:
    kind = "d" if node.is_directory else "f"
    return Entry(kind, len(node.content), node.mtime, 1, os.geteuid(), 0o600, node.number)
