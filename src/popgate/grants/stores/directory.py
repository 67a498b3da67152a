"""Grants as files of one directory, shared with relay-ctrl's programs and among all processes.

The file format is popgate.grants.stores.spool's. Reading takes no lock. Whoever changes
an address holds an exclusive flock on the directory itself: a lock *file* would be removed
by relay-ctrl-age, and two processes would then hold "the" lock (docs/decisions).
relay-ctrl's own programs take no lock; they replace whole files by rename, so a reader
never sees half a file, and at worst one of two logins of the same instant is lost.

A step of the clock, the windows and the quotas are the rules' business, not the store's.

Kept whole: every part of it turns on the same descriptor, lock and memory of files, and which step
is safe depends on which came before.
"""

import errno
import fcntl
import os
import stat
import threading
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Final

from popgate.grants import rules
from popgate.grants.grant import DEFAULT_TERMS, Grant, Terms, Usage
from popgate.grants.ownership import Owner, make_directory, owner_for
from popgate.grants.store import Change, StoreError
from popgate.grants.stores import spool
from popgate.grants.stores.placing import Placing
from popgate.values.address import ClientAddress

STALE_SECONDS: Final = 60.0
"""Age of a temporary file that nobody will rename any more."""
CACHED_FILES: Final = 4096
_LOCK_WAIT_SECONDS: Final = 0.00005
_RACES_AT_MOST: Final = 20
_Remembered = tuple[tuple[int, int, int, int], tuple[Grant, ...], bytes]
"""The state of a file, what it says, and its octets."""


class DirectoryStore:
    """The grant directory at `path`; made with mode 0700 when missing. Raises StoreError.

    Only files of this process's user, of root, of the directory's owner and of `allowed_uids`
    count. What root writes is given to the directory's owner. `file_mode` is what new files get:
    0o600, or more where relay-ctrl-check runs as another user. `counts_all_where_closed`: as with
    relay-ctrl's programs, every owner's files count in a directory that other users cannot reach.
    A change waits at most `lock_seconds` for the lock. May be used by threads and after fork.
    """

    def __init__(
        self,
        path: str,
        allowed_uids: Iterable[int] = (),
        *,
        file_mode: int = 0o600,
        lock_seconds: float = 0.5,
        counts_all_where_closed: bool = False,
    ) -> None:
        self._path = path
        self._own_uids = frozenset({os.geteuid(), 0, *allowed_uids})
        self._counts_all_where_closed = counts_all_where_closed
        self._allowed_uids = self._own_uids
        self._lock_seconds = lock_seconds
        self._cache: dict[str, _Remembered] = {}
        self._directory = -1
        self._lock_file = -1
        self._lock_owner = 0
        self._threads = threading.Lock()
        self._can_rewrite = True  # until the file system proves too coarse with times
        self._placing = Placing(file_mode)
        try:
            make_directory(path)
            self._directory = _open_directory(path)
            self._placing.begin(self._directory, self._owner_here())
        except OSError as error:
            raise _fault("open", path, error) from error

    def find(self, address: ClientAddress) -> Sequence[Grant]:
        grants, state = self._look_up(address)
        if state is None and self._is_removed():
            # No file of a name means no grant only while the directory itself is there.
            if not self._is_made_anew():
                raise StoreError(f"the grant directory {self._path} was removed")
            self._reopen_if_replaced()
            grants, _ = self._look_up(address)
        return grants

    def change(self, address: ClientAddress, change: Change) -> Sequence[Grant]:
        try:
            return self._change(address, change)
        except StoreError:
            if not self._is_removed() or not self._is_made_anew():
                raise
        # One process sweeps and makes the directory anew; the others must not need a restart.
        self._reopen_if_replaced()
        return self._change(address, change)

    def _change(self, address: ClientAddress, change: Change, *, in_place: bool = True) -> Sequence[Grant]:
        with self._threads:
            self._lock()
            try:
                return self._change_locked(address, change, in_place=in_place)
            finally:
                fcntl.flock(self._lock_file, fcntl.LOCK_UN)

    def addresses(self) -> Iterator[ClientAddress]:
        if self._is_removed() and self._is_made_anew():
            self._reopen_if_replaced()
        for name in self._names():
            address = ClientAddress.canonical(name)
            if address is not None and self._read(address)[0]:
                yield address

    def sweep(self, now: float, is_dead: Callable[[Grant], bool]) -> Sequence[Grant]:
        """Foreign names (neither an address nor a temporary file's) never grant anything and
        are left alone, so that a mistyped path does not empty somebody's directory."""
        self._reopen_if_replaced()
        removed: list[Grant] = []
        for name in self._names():
            address = ClientAddress.canonical(name)
            if address is None:
                if _LIKE_AN_ADDRESS.issuperset(name) or spool.is_temporary(name):
                    self._remove_litter(name, now)
                continue
            grants, state, _ = self._read(address)
            if not grants:
                self._remove_litter(name, now)
                continue
            dying = [grant for grant in grants if is_dead(grant)]
            if dying and len(dying) == len(grants) and self._remove_unchanged(name, state):
                removed += dying
            elif dying:
                dead: list[Grant] = []

                def living(grants: Sequence[Grant], dead: list[Grant] = dead) -> Sequence[Grant]:
                    dead[:] = [grant for grant in grants if is_dead(grant)]
                    return [grant for grant in grants if grant not in dead]

                self.change(address, living)
                removed += dead
        return removed

    def redate(self, delta_seconds: float) -> None:
        """Files written while this runs are taken for dated by the new time already. A file
        caught between both keeps its old times, and the rules then refuse what they doubt."""
        before = {
            name: self._stat(name) for name in self._names() if ClientAddress.canonical(name) is not None
        }
        for name, state in before.items():
            address = ClientAddress.canonical(name)
            if address is None or state is None:
                continue

            def moved(
                grants: Sequence[Grant], name: str = name, state: os.stat_result = state
            ) -> Sequence[Grant]:
                now = self._stat(name)
                if now is None or (now.st_ino, now.st_mtime_ns) != (state.st_ino, state.st_mtime_ns):
                    return grants
                return [rules.redated(grant, delta_seconds) for grant in grants]

            self._change(address, moved, in_place=False)

    def forget(self) -> None:
        """Forget what files said, so that the next look-up of each reads it."""
        self._cache.clear()

    def close(self) -> None:
        self._placing.close()
        for file in (self._directory, self._lock_file):
            if file >= 0:
                os.close(file)
        self._directory = self._lock_file = -1
        self._cache.clear()

    # Under the lock.

    def _lock(self) -> None:
        pid = os.getpid()
        try:
            if self._lock_owner != pid:
                # After a fork the descriptor is shared with the parent, and so would the lock be.
                if self._lock_file >= 0:
                    os.close(self._lock_file)
                    self._lock_file = -1
                self._lock_file = _open_directory(".", self._directory)
                self._lock_owner = pid
            deadline = 0.0
            wait = _LOCK_WAIT_SECONDS
            while True:
                try:
                    fcntl.flock(self._lock_file, fcntl.LOCK_EX | fcntl.LOCK_NB)
                    return
                except BlockingIOError:
                    pass
                now = time.monotonic()
                deadline = deadline or now + self._lock_seconds
                if now >= deadline:
                    raise StoreError(f"the grant directory {self._path} is locked by another process")
                time.sleep(wait)
                wait = min(wait * 2, 0.002)
        except OSError as error:
            raise _fault("lock", self._path, error) from error

    def _change_locked(
        self, address: ClientAddress, change: Change, *, in_place: bool = True
    ) -> Sequence[Grant]:
        name = address.text
        for _ in range(_RACES_AT_MOST):
            before, state = self._look_up(address, is_locked=True)
            after = rules.in_order(change(before))
            if tuple(after) == before:
                return before
            try:
                if not after:
                    self._cache.pop(name, None)
                    if before:
                        os.unlink(name, dir_fd=self._directory)
                    return ()
                there = self._octets_there(name, state) if in_place else None
                if there is not None and _is_login_again(before, after) and spool.is_by_file(there):
                    stored = self._dated(name, after[0], state, there)
                else:
                    stored = self._written(address, before, after, state, there)
            except FileNotFoundError as error:
                if not after:
                    return ()
                raise _fault("write", name, error) from error
            except (OSError, ValueError, OverflowError) as error:
                raise _fault("write", name, error) from error
            if stored is not None:
                return stored
        raise StoreError(f"the grant file {name} is being replaced all the time")

    def _octets_there(self, name: str, state: os.stat_result | None) -> bytes | None:
        """What the file holds whose state is `state`, where that is known and it may be written in place."""
        remembered = self._cache.get(name)
        if not self._can_rewrite or state is None or remembered is None or remembered[0] != _key(state):
            return None
        return remembered[2]

    def _dated(
        self, name: str, grant: Grant, before: os.stat_result | None, there: bytes
    ) -> tuple[Grant, ...] | None:
        """Record a login that only the file's time will tell; None where somebody without a lock put
        another file there meanwhile, or removed the one that was (relay-ctrl's ager does)."""
        assert before is not None
        renewed = _micros(grant.renewed_at)
        modified_ns = _modified_ns(renewed, before)
        try:
            os.utime(name, ns=(modified_ns, modified_ns), dir_fd=self._directory, follow_symlinks=False)
        except FileNotFoundError:
            return None
        written = self._stat(name)
        if written is None or written.st_ino != before.st_ino:
            return None
        at = renewed / spool.MICRO
        stored = (rules.with_times(grant, grant.since, at, at),)
        self._remember(name, written, stored, there)
        return stored

    def _written(
        self,
        address: ClientAddress,
        before: Sequence[Grant],
        after: Sequence[Grant],
        state: os.stat_result | None,
        there: bytes | None,
    ) -> tuple[Grant, ...] | None:
        """Put `after` into the file, or into another one in its place; None as with `_dated`."""
        name = address.text
        records = [_record(grant) for grant in after]
        latest = max([record.renewed for record in records])
        is_newer = latest > max([_micros(grant.renewed_at) for grant in before], default=0)
        # Whoever only logs in leaves the times to the file; once something was relayed, they stand in
        # it for as long as it is written in place.
        is_by_file = is_newer and (there is None or spool.is_by_file(there))
        content, count = spool.serialise(records, by_file=latest if is_by_file else -1)
        if count < len(records):
            latest = max([record.renewed for record in records[:count]])
        modified_ns = _modified_ns(latest, state)
        if (
            there is not None
            and state is not None
            and self._overwrite(name, content, modified_ns, state, there)
        ):
            written = self._stat(name)
            if written is None or written.st_ino != state.st_ino:
                return None
        elif self._placing.put(name, content, modified_ns, state):
            written = self._stat(name)
            self._placing.retire(written)
        else:
            return None
        stored = tuple([_grant(address, record) for record in records[:count]])
        if written is not None:
            if written.st_mtime_ns != modified_ns:
                self._can_rewrite = False
            if not _is_relay_ctrls(stored):
                self._remember(name, written, stored, content)
        return stored

    def _overwrite(
        self, name: str, content: bytes, modified_ns: int, before: os.stat_result, there: bytes
    ) -> bool:
        """Put `content` into the file that is there, whose state is `before` and octets are `there`;
        False where it has to be another file.

        Octets are written only where they name their times. Until such a file is dated, its time and
        those that it names differ, and nobody takes it for renewed.
        """
        return (
            len(content) == len(there)
            and not spool.is_by_file(there)
            and spool.has_same_head(content, there)
            and spool.rewrite(self._directory, name, content, modified_ns, before)
        )

    def _remove_unchanged(self, name: str, before: os.stat_result | None) -> bool:
        """Remove a file that still is the one that was looked at; False where it is not."""
        with self._threads:
            self._lock()
            try:
                state = self._stat(name)
                if state is None or before is None or _key(state) != _key(before):
                    return False
                self._cache.pop(name, None)
                os.unlink(name, dir_fd=self._directory)
                return True
            except FileNotFoundError:
                return False
            except OSError as error:
                raise _fault("remove", name, error) from error
            finally:
                fcntl.flock(self._lock_file, fcntl.LOCK_UN)

    def _remove_litter(self, name: str, now: float) -> None:
        """Remove what is no grant file, after looking again under the lock."""
        with self._threads:
            self._lock()
            try:
                state = self._stat(name)
                if state is None:
                    return
                address = ClientAddress.canonical(name)
                if address is not None and self._read(address, is_locked=True)[0]:
                    return
                if spool.is_temporary(name):
                    if now - state.st_mtime <= STALE_SECONDS:
                        return  # relay-ctrl-allow may be about to rename it; it takes no lock
                elif not _LIKE_AN_ADDRESS.issuperset(name):
                    return
                if stat.S_ISDIR(state.st_mode):
                    os.rmdir(name, dir_fd=self._directory)
                else:
                    os.unlink(name, dir_fd=self._directory)
            except FileNotFoundError:
                pass
            except OSError as error:
                # A full directory, or another user's file in a sticky one: it stays, and grants nothing.
                if error.errno not in (errno.ENOTEMPTY, errno.EEXIST, errno.EPERM, errno.EACCES, errno.EBUSY):
                    raise _fault("remove", name, error) from error
            finally:
                fcntl.flock(self._lock_file, fcntl.LOCK_UN)

    # Without a lock.

    def _look_up(
        self, address: ClientAddress, *, is_locked: bool = False
    ) -> tuple[tuple[Grant, ...], os.stat_result | None]:
        """As _read, but at the cost of a stat where the file was read before."""
        name = address.text
        state = self._stat(name)
        if state is None:
            return (), None
        remembered = self._cache.get(name)
        if remembered is not None and remembered[0] == _key(state):
            return remembered[1], state
        if not spool.is_grant_file(state, self._allowed_uids):
            return (), state
        grants, state, content = self._read(address, is_locked=is_locked)
        if state is not None and grants and not _is_relay_ctrls(grants):
            self._remember(name, state, grants, content)
        return grants, state

    def _remember(self, name: str, state: os.stat_result, grants: tuple[Grant, ...], content: bytes) -> None:
        if len(self._cache) >= CACHED_FILES:
            self._cache.clear()
        self._cache[name] = (_key(state), grants, content)

    def _read(
        self, address: ClientAddress, *, is_locked: bool = False
    ) -> tuple[tuple[Grant, ...], os.stat_result | None, bytes]:
        name = address.text
        try:
            found = spool.read(self._directory, name, self._allowed_uids)
        except OSError as error:
            raise _fault("read", name, error) from error
        if found is None:
            return (), None, b""
        content, state = found
        modified = state.st_mtime_ns // 1000
        records = spool.parse(content, modified)
        if not is_locked and not spool.is_settled(content, modified, records):
            # Perhaps somebody is writing it. Whoever does, holds the lock.
            with self._threads:
                self._lock()
                try:
                    return self._read(address, is_locked=True)
                finally:
                    fcntl.flock(self._lock_file, fcntl.LOCK_UN)
        if records is None:
            return (), state, content
        return tuple([_grant(address, record) for record in records]), state, content

    def _names(self) -> list[str]:
        try:
            # A descriptor of its own: the reading position would be shared after a fork.
            directory = _open_directory(".", self._directory)
            try:
                return os.listdir(directory)
            finally:
                os.close(directory)
        except OSError as error:
            raise _fault("list", self._path, error) from error

    def _stat(self, name: str) -> os.stat_result | None:
        try:
            return os.stat(name, dir_fd=self._directory, follow_symlinks=False)
        except FileNotFoundError:
            return None
        except OSError as error:
            raise _fault("read", name, error) from error

    def _owner_here(self) -> Owner | None:
        """Whose our files must be. The directory's owner can put anything there, so theirs count too."""
        if self._counts_all_where_closed and spool.is_closed(self._directory):
            self._allowed_uids = spool.EVERYBODY
        else:
            self._allowed_uids = self._own_uids | {os.fstat(self._directory).st_uid}
        return owner_for(self._directory)

    def _is_removed(self) -> bool:
        try:
            return os.fstat(self._directory).st_nlink == 0
        except OSError as error:
            raise _fault("read", self._path, error) from error

    def _is_made_anew(self) -> bool:
        return os.path.isdir(self._path)

    def _reopen_if_replaced(self) -> None:
        try:
            make_directory(self._path)
            there, ours = os.stat(self._path), os.fstat(self._directory)
            if (there.st_dev, there.st_ino) == (ours.st_dev, ours.st_ino):
                return
            fresh = _open_directory(self._path)
            with self._threads:
                old, self._directory = self._directory, fresh
                self._placing.begin(fresh, self._owner_here())
                self._lock_owner = 0
                self._cache.clear()
                os.close(old)
        except OSError as error:
            raise _fault("open", self._path, error) from error


_LIKE_AN_ADDRESS = frozenset("0123456789abcdefABCDEF.:")  # relay-ctrl's programs make "..." and "1", too


def _open_directory(path: str, directory: int | None = None) -> int:
    return os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC, dir_fd=directory)


def _fault(verb: str, what: str, error: Exception) -> StoreError:
    return StoreError(f"cannot {verb} {what}: {error}")


def _key(state: os.stat_result) -> tuple[int, int, int, int]:
    return state.st_ino, state.st_mtime_ns, state.st_ctime_ns, state.st_size


def _is_login_again(before: Sequence[Grant], after: Sequence[Grant]) -> bool:
    """Did the same person log in again, and nothing else change?"""
    if len(before) != 1 or len(after) != 1:
        return False
    old, new = before[0], after[0]
    return old.login_at == old.renewed_at < new.renewed_at == new.login_at and (
        (old.since, old.protocol, old.used, old.terms, old.identity)
        == (new.since, new.protocol, new.used, new.terms, new.identity)
    )


def _is_relay_ctrls(grants: Sequence[Grant]) -> bool:
    """Might relay-ctrl's programs have written it? They give it no serial number, so it is not cached."""
    return grants[0].protocol == "relay-ctrl"


def _modified_ns(renewed: int, before: os.stat_result | None) -> int:
    """The file's time, with a serial number in the nanoseconds.

    Two changes in one tick of the kernel's clock, on an inode just freed, could otherwise
    give two contents the same numbers, and a cached one would be taken for the other.
    """
    serial = time.time_ns() if before is None else before.st_mtime_ns + 1
    return renewed * 1000 + serial % 1000


def _record(grant: Grant) -> spool.Record:
    terms, used = grant.terms, grant.used
    return spool.Record(
        None if grant.identity == rules.ANONYMOUS else grant.identity,
        grant.protocol,
        _micros(grant.since),
        _micros(grant.login_at),
        _micros(grant.renewed_at),
        terms.window_seconds,
        terms.max_age_seconds,
        (terms.quota_messages, terms.quota_recipients, terms.quota_bytes),
        (used.messages, used.recipients, used.bytes),
        terms.is_device,
        spool.fitting_senders(terms.senders) if terms.senders else (),
    )


def _grant(address: ClientAddress, record: spool.Record) -> Grant:
    if (
        record.window is None
        and record.max_age is None
        and not record.senders
        and not record.is_device
        and record.quotas == (-1, -1, -1)
    ):
        terms = DEFAULT_TERMS
    else:
        terms = Terms(record.window, record.max_age, *record.quotas, record.senders, record.is_device)
    return Grant(
        address,
        record.identity or rules.ANONYMOUS,
        record.protocol,
        record.since / spool.MICRO,
        record.login / spool.MICRO,
        record.renewed / spool.MICRO,
        terms,
        Usage(*record.used),
    )


def _micros(seconds: float) -> int:
    return max(0, round(seconds * spool.MICRO))
