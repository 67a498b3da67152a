"""Large bodies: a file each, beside the database, named by the queue id.

A file is complete, fsync'd and its name fsync'd before the row that speaks of it is
committed; it is removed only after its row is gone. So a file without a row is litter
of a crash, and a row without its file does not come about by itself.
"""

import zlib
from collections.abc import Iterator

from popgate.files.disk import Disk

BLOCK = 65536


class BodyFiles:
    """The directory of bodies. All calls block and raise OSError."""

    def __init__(self, disk: Disk, queue_fd: int, name: str) -> None:
        self._disk = disk
        try:
            disk.make_directory(name, queue_fd, 0o700)
            disk.sync_directory(queue_fd)
        except FileExistsError:
            pass
        self._fd = disk.open_directory(name, queue_fd)

    def create(self, queue_id: str) -> "BodyFile":
        return BodyFile(self._disk, self._fd, queue_id)

    def read(self, queue_id: str) -> Iterator[bytes]:
        """The body in blocks. The file is opened at once, so that an error comes here."""
        fd = self._disk.open_file(queue_id, self._fd)
        return self._blocks(fd)

    def _blocks(self, fd: int) -> Iterator[bytes]:
        try:
            while block := self._disk.read(fd, BLOCK):
                yield block
        finally:
            self._disk.close(fd)

    def size(self, queue_id: str) -> int | None:
        """The file's size, None when there is no such regular file."""
        try:
            entry = self._disk.entry(queue_id, self._fd)
        except OSError:
            return None
        return entry.size if entry.kind == "f" else None

    def remove(self, queue_id: str) -> None:
        """Remove the file; no error when it is gone already."""
        try:
            self._disk.unlink(queue_id, self._fd)
        except FileNotFoundError:
            pass

    def quiet_since(self, before: float) -> Iterator[str]:
        """Names of files that were not written after `before` (Unix seconds)."""
        for name, entry in self._disk.entries(self._fd):
            if entry.kind == "f" and entry.mtime < before:
                yield name

    def try_lock(self, queue_id: str) -> int | None:
        """Lock a body against its writer; None while the writer still has it open."""
        try:
            return self._disk.lock(queue_id, self._fd)
        except BlockingIOError:
            return None

    def release(self, lock: int) -> None:
        self._disk.close(lock)

    def close(self) -> None:
        if self._fd >= 0:
            self._disk.close(self._fd)
            self._fd = -1


class BodyFile:
    """One body while it is written, by one thread at a time.

    The lock tells the sweeper that somebody still writes here; it is held until the row is
    committed and then given up by `release`.
    """

    def __init__(self, disk: Disk, directory_fd: int, name: str) -> None:
        self._disk = disk
        self._directory_fd = directory_fd
        self._name = name
        self._fd = disk.create(name, directory_fd)
        self._lock = -1
        try:
            self._lock = disk.lock(name, directory_fd)
        except BaseException:
            self.discard()
            raise
        self.crc = 0

    def write(self, data: bytes) -> None:
        self._disk.write(self._fd, data)
        self.crc = zlib.crc32(data, self.crc)

    def finish(self) -> None:
        """Make content and name durable. When this raises, only `discard` may follow."""
        self._disk.sync(self._fd)
        self._disk.close(self._fd)
        self._fd = -1
        self._disk.sync_directory(self._directory_fd)

    def release(self) -> None:
        if self._lock >= 0:
            self._disk.close(self._lock)
            self._lock = -1

    def discard(self) -> None:
        """Close and remove the file, whatever state it is in. Never raises."""
        for fd in (self._fd, self._lock):
            if fd >= 0:
                try:
                    self._disk.close(fd)
                except OSError:
                    pass
        self._fd = self._lock = -1
        try:
            self._disk.unlink(self._name, self._directory_fd)
        except OSError:
            pass  # the sweeper finds it
