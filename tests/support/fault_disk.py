"""A disk that records what is done to it and fails where a test says so."""

import errno
import os
from collections.abc import Callable
from typing import Any, NamedTuple


class Operation(NamedTuple):
    """`verb` is the method of popgate.files.disk.Disk; `names` are the paths it was about."""

    verb: str
    names: tuple[str, ...]


class FaultDisk:
    """Obeys popgate.files.disk.Disk and hands everything to `inner`.

    The operation for which `is_faulty(number, operation)` is true (numbers start at 0) raises
    OSError(`error`) instead; a write puts half of its data down first, as a full disk does,
    and a close closes all the same. `before` is called ahead of each operation.
    """

    def __init__(
        self,
        inner: Any,
        is_faulty: Callable[[int, Operation], bool] = lambda number, operation: False,
        error: int = errno.ENOSPC,
        before: Callable[[Operation], None] = lambda operation: None,
    ) -> None:
        self._inner = inner
        self._is_faulty = is_faulty
        self._error = error
        self._before = before
        self._names: dict[int, str] = {}
        self.operations: list[Operation] = []

    @property
    def open_descriptors(self) -> list[str]:
        return list(self._names.values())

    def verbs(self) -> list[str]:
        return [operation.verb for operation in self.operations]

    def index(self, verb: str, ending: str = "") -> int:
        """The number of the first such operation on a name that ends so."""
        for number, operation in enumerate(self.operations):
            if operation.verb == verb and operation.names[-1].endswith(ending):
                return number
        raise AssertionError(f"no {verb} of {ending!r} in {self.operations}")

    def _do(self, verb: str, names: tuple[str, ...], *arguments: Any) -> Any:
        operation = Operation(verb, names)
        self._before(operation)
        number = len(self.operations)
        self.operations.append(operation)
        act = getattr(self._inner, verb)
        if self._is_faulty(number, operation):
            if verb == "write":
                fd, data = arguments
                act(fd, data[: len(data) // 2])
            elif verb == "close":
                act(*arguments)
            raise OSError(self._error, os.strerror(self._error), names[0])
        return act(*arguments)

    def _path(self, name: str, dir_fd: int | None) -> str:
        return name if dir_fd is None else f"{self._names.get(dir_fd, '?')}/{name}"

    def _opened(self, verb: str, path: str, *arguments: Any) -> int:
        fd: int = self._do(verb, (path,), *arguments)
        self._names[fd] = path
        return fd

    def open_directory(self, path: str, dir_fd: int | None = None) -> int:
        return self._opened("open_directory", self._path(path, dir_fd), path, dir_fd)

    def make_directory(self, name: str, dir_fd: int | None = None, mode: int = 0o700) -> None:
        self._do("make_directory", (self._path(name, dir_fd),), name, dir_fd, mode)

    def create(self, name: str, dir_fd: int, mode: int = 0o600) -> int:
        return self._opened("create", self._path(name, dir_fd), name, dir_fd, mode)

    def open_file(self, name: str, dir_fd: int) -> int:
        return self._opened("open_file", self._path(name, dir_fd), name, dir_fd)

    def lock(self, name: str, dir_fd: int) -> int:
        return self._opened("lock", self._path(name, dir_fd), name, dir_fd)

    def read(self, fd: int, most: int) -> bytes:
        data: bytes = self._do("read", (self._names[fd],), fd, most)
        return data

    def write(self, fd: int, data: bytes) -> None:
        self._do("write", (self._names[fd],), fd, data)

    def sync(self, fd: int) -> None:
        self._do("sync", (self._names[fd],), fd)

    def sync_directory(self, dir_fd: int) -> None:
        self._do("sync_directory", (self._names[dir_fd],), dir_fd)

    def close(self, fd: int) -> None:
        self._do("close", (self._names.pop(fd),), fd)

    def link(self, source: str, source_fd: int, target: str, target_fd: int) -> None:
        paths = (self._path(source, source_fd), self._path(target, target_fd))
        self._do("link", paths, source, source_fd, target, target_fd)

    def rename(self, source: str, source_fd: int, target: str, target_fd: int) -> None:
        paths = (self._path(source, source_fd), self._path(target, target_fd))
        self._do("rename", paths, source, source_fd, target, target_fd)

    def unlink(self, name: str, dir_fd: int) -> None:
        self._do("unlink", (self._path(name, dir_fd),), name, dir_fd)

    def remove_directory(self, name: str, dir_fd: int) -> None:
        self._do("remove_directory", (self._path(name, dir_fd),), name, dir_fd)

    def names(self, dir_fd: int) -> Any:
        return self._do("names", (self._names[dir_fd],), dir_fd)

    def unlock(self, fd: int) -> None:
        self._do("unlock", (self._names[fd],), fd)

    def lock_again(self, fd: int, was: Any, path: str) -> Any:
        return self._do("lock_again", (path,), fd, was, path)

    def stamp(self, name: str, dir_fd: int) -> Any:
        return self._do("stamp", (self._path(name, dir_fd),), name, dir_fd)

    def entry(self, name: str, dir_fd: int | None = None) -> Any:
        return self._do("entry", (self._path(name, dir_fd),), name, dir_fd)

    def entry_of(self, fd: int) -> Any:
        return self._do("entry_of", (self._names[fd],), fd)

    def entries(self, dir_fd: int) -> Any:
        return self._do("entries", (self._names[dir_fd],), dir_fd)

    def set_mtime(self, name: str, dir_fd: int, mtime: float) -> None:
        self._do("set_mtime", (self._path(name, dir_fd),), name, dir_fd, mtime)
