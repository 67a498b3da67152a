"""A map for Postfix's lmdb: tables, changed in place by transactions.

Postfix reads without LMDB's own table of readers. What it takes instead is a shared lock (fcntl) on the
database file for each look-up, so a writer has to hold the exclusive one while pages may change; a
page that LMDB frees would otherwise be used again under a reader's eyes.
"""

import fcntl
import os
from collections.abc import Collection

import lmdb

from popgate.integrations.maps.content import Content
from popgate.integrations.maps.map_file import fault_of, give, remove_file
from popgate.integrations.maps.settings import MapSettings
from popgate.values.address import ClientAddress

_MOST_OCTETS = 256 * 1024 * 1024
"""How large it can become; the file grows as it is filled."""


class LmdbMap:
    """A map_file.MapFile. Made in the process that uses it, never before a fork."""

    def __init__(self, settings: MapSettings, content: Content) -> None:
        self.settings = settings
        self._content = content
        self._environment: lmdb.Environment | None = None
        self._lock = -1
        self._written = -1
        self._there: frozenset[ClientAddress] = frozenset()

    def write(self, addresses: Collection[ClientAddress]) -> None:
        try:
            try:
                self._put(addresses)
            except lmdb.Error:
                # not a database, or a torn one: servers that have it open go on with a file that has no name
                self.close()
                remove_file(self.settings.path)
                self._put(addresses)
        except (lmdb.Error, OSError) as fault:
            self.close()
            raise fault_of(self.settings.path, fault) from fault

    def _put(self, addresses: Collection[ClientAddress]) -> None:
        environment = self._opened()
        fcntl.lockf(self._lock, fcntl.LOCK_EX)
        try:
            with environment.begin(write=True) as transaction:
                if not self.is_as_written():
                    self._there = frozenset()
                    for key in [bytes(key) for key, _ in transaction.cursor()]:
                        transaction.delete(key)
                wanted = frozenset(addresses)
                for address in self._there - wanted:
                    transaction.delete(self._content.key(address))
                for address in wanted - self._there:
                    transaction.put(self._content.key(address), self._content.record(address) or b"")
            self._written = environment.info()["last_txnid"]
            self._there = wanted
        finally:
            fcntl.lockf(self._lock, fcntl.LOCK_UN)

    def _opened(self) -> lmdb.Environment:
        if self._environment is None or not self._is_there():
            self.close()
            path = self.settings.path
            self._lock = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600)
            give(self._lock, self.settings)
            self._environment = lmdb.open(
                path, subdir=False, lock=False, map_size=_MOST_OCTETS, mode=int(self.settings.file_mode, 8)
            )
        return self._environment

    def is_as_written(self) -> bool:
        if self._environment is None or not self._is_there():
            return False
        return self._environment.info()["last_txnid"] == self._written

    def _is_there(self) -> bool:
        try:
            found, ours = os.stat(self.settings.path, follow_symlinks=False), os.fstat(self._lock)
        except OSError:
            return False
        return (found.st_dev, found.st_ino) == (ours.st_dev, ours.st_ino)

    def remove(self) -> None:
        self.close()
        remove_file(self.settings.path)

    def holds(self, address: ClientAddress) -> bool:
        path = self.settings.path
        if not os.path.exists(path):
            return False
        try:
            with (
                lmdb.open(path, subdir=False, lock=False, readonly=True) as environment,
                environment.begin() as transaction,
            ):
                return transaction.get(self._content.key(address)) is not None
        except (lmdb.Error, OSError) as fault:
            raise fault_of(path, fault) from fault

    def close(self) -> None:
        self._written = -1
        if self._environment is not None:
            self._environment.close()
            self._environment = None
        if self._lock >= 0:
            os.close(self._lock)
            self._lock = -1
