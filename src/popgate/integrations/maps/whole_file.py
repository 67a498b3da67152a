"""A map that is replaced whole, by rename, so that nobody ever reads half of one: cdb, tcprules and text.

What a crash of the machine leaves of it does not matter: it is written anew at the start, and a server that
finds a cut or empty file lets nobody relay.
"""

import os
from collections.abc import Collection

from popgate.integrations.maps.content import Content
from popgate.integrations.maps.map_file import fault_of, give, remove_file
from popgate.integrations.maps.settings import MapSettings
from popgate.integrations.ucspi.cdb import Cdb, CdbError
from popgate.values.address import ClientAddress

_FLAGS = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC | os.O_NOFOLLOW


class WholeFile:
    """A map that is written whole."""

    def __init__(self, settings: MapSettings, content: Content) -> None:
        self.settings = settings
        self._content = content
        self._state: tuple[int, ...] | None = None

    def write(self, addresses: Collection[ClientAddress]) -> None:
        path = self.settings.path
        directory, name = os.path.split(path)
        # of this process, so that two writers do not get into each other's way
        temporary = os.path.join(directory, f".{name}.{os.getpid()}.new")
        try:
            octets = self._content.octets(addresses)
            try:
                os.unlink(temporary)
            except FileNotFoundError:
                pass
            file = os.open(temporary, _FLAGS, 0o600)
            try:
                with open(file, "wb", buffering=0, closefd=False) as stream:
                    rest = memoryview(octets)
                    while rest:
                        rest = rest[stream.write(rest) :]
                give(file, self.settings)
                os.rename(temporary, path)
                self._state = _state(os.fstat(file))
            except BaseException:
                os.unlink(temporary)
                raise
            finally:
                os.close(file)
        except (OSError, ValueError) as fault:
            raise fault_of(path, fault) from fault

    def is_as_written(self) -> bool:
        try:
            return _state(os.stat(self.settings.path, follow_symlinks=False)) == self._state
        except OSError:
            return False

    def remove(self) -> None:
        self._state = None
        remove_file(self.settings.path)

    def holds(self, address: ClientAddress) -> bool:
        path = self.settings.path
        key, record = self._content.key(address), self._content.record(address)
        try:
            with open(path, "rb") as stream:
                octets = stream.read()
            if self.settings.kind == "text":
                return any(line.split(b"\t")[0] == key for line in octets.splitlines())
            return record is not None and Cdb(octets).find(key) == record
        except FileNotFoundError:
            return False
        except (OSError, CdbError) as fault:
            raise fault_of(path, fault) from fault

    def close(self) -> None:
        pass


def _state(found: os.stat_result) -> tuple[int, ...]:
    return found.st_dev, found.st_ino, found.st_mtime_ns, found.st_size
