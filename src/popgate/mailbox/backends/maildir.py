"""Mailboxes as Maildirs: ROOT/DOMAIN/USER with tmp, new and cur.

A delivery writes to tmp, syncs the file, links it into new and syncs new: whatever breaks,
and whenever, a reader finds the whole message or none (docs/mailboxes.md has the table).
Deliveries take no lock; only a POP3 session locks the Maildir, against other POP3 sessions.
"""

import errno
import itertools
import os
import secrets
from collections.abc import Callable, Iterable, Iterator

from popgate.files.disk import Disk
from popgate.mailbox.backends.maildir_folder import Folder
from popgate.mailbox.backends.maildir_kept import LOCK_NAME, KeptFolders, LockedFolder
from popgate.mailbox.backends.maildir_listings import Listings, stamp_of
from popgate.mailbox.backends.maildir_maildrop import Listing, MaildirMaildrop, SizeMemory
from popgate.mailbox.backends.maildir_names import host_part, unique_name
from popgate.mailbox.line_ends import BLOCK, StoredForm
from popgate.mailbox.mailbox import MailboxError, MailboxFull, MailboxInUse
from popgate.values.clock import Clock
from popgate.values.event import Event, EventSink
from popgate.values.identity import Identity

TMP_LIFETIME_SECONDS = 36 * 3600  # what the Maildir definition allows a delivery to take
CLEANING_INTERVAL_SECONDS = 3600

_ATTEMPTS = 10
_MAX_SETTLED = 10_000
_FULL = frozenset((errno.ENOSPC, errno.EDQUOT))


class MaildirMailboxes:
    """`popgate.mailbox.mailbox.Mailboxes` below the directory `root`, which must exist.

    Any number of threads and processes may share the directory.
    """

    def __init__(
        self,
        root: str,
        disk: Disk,
        clock: Clock,
        hostname: str,
        emit: EventSink,
        *,
        token: Callable[[], str] = lambda: secrets.token_hex(8),
        most_kept: int = 0,
    ) -> None:
        """`token` gives hexadecimal text that is new each time. `most_kept`: how many Maildirs stay
        open between the sessions of their users, with two descriptors each until `close`."""
        self._root = root
        self._disk = disk
        self._clock = clock
        self._host = host_part(hostname)
        self._emit = emit
        self._token = token
        self._counter = itertools.count(1)
        self._settled: set[Identity] = set()
        self._known_sizes: SizeMemory = {}
        self._listings: Listings[Listing] = Listings()
        self._folders = KeptFolders(disk, root, clock, most_kept)
        self._own_uid = os.geteuid()

    # Delivery

    def deliver(self, identity: Identity, body: Iterable[bytes]) -> str:
        try:
            folder = Folder(self._disk, self._root, identity, settle=identity not in self._settled)
            try:
                self._remember_settled(identity)
                return self._deliver(folder, body)
            finally:
                folder.close()
        except OSError as error:
            raise _mailbox_error(identity, error) from error

    def _deliver(self, folder: Folder, body: Iterable[bytes]) -> str:
        disk = self._disk
        unique, fd = self._create(folder.tmp)
        try:
            try:
                form = StoredForm()
                for block in _gathered(form, body):
                    disk.write(fd, block)
                disk.sync(fd)
            finally:
                disk.close(fd)
            return self._publish(folder, unique, form)
        finally:
            # Whether it is delivered by now or not, this name has done its work. When it
            # cannot be removed, a later session finds it stale.
            self._withdraw(unique, folder.tmp)

    def _create(self, tmp: int) -> tuple[str, int]:
        for _ in range(_ATTEMPTS):
            unique = self._unique()
            try:
                return unique, self._disk.create(unique, tmp)
            except FileExistsError:
                continue
        raise FileExistsError(errno.EEXIST, "no unique name could be found in tmp")

    def _publish(self, folder: Folder, unique: str, form: StoredForm) -> str:
        disk = self._disk
        name = unique
        for _ in range(_ATTEMPTS):
            name = f"{name},S={form.stored_octets},W={form.wire_octets}"
            try:
                # link, not rename: it never replaces a message of the same name
                disk.link(unique, folder.tmp, name, folder.new)
            except FileExistsError:
                name = self._unique()
                continue
            try:
                disk.sync_directory(folder.new)
            except BaseException:
                self._withdraw(name, folder.new)
                raise
            return name
        raise FileExistsError(errno.EEXIST, "no unique name could be found in new")

    def _withdraw(self, name: str, fd: int) -> None:
        try:
            self._disk.unlink(name, fd)
        except OSError:
            pass

    def _unique(self) -> str:
        return unique_name(self._clock.now(), os.getpid(), next(self._counter), self._token(), self._host)

    def _remember_settled(self, identity: Identity) -> None:
        if len(self._settled) >= _MAX_SETTLED:
            self._settled.clear()
        self._settled.add(identity)

    # Fetching

    def open_maildrop(self, identity: Identity) -> MaildirMaildrop:
        try:
            try:
                return self._open(identity)
            except OSError as error:
                if not self._folders.makes_room_for(error):
                    raise
            return self._open(identity)
        except OSError as error:
            raise _mailbox_error(identity, error) from error

    def close(self) -> None:
        """Close what no session has open; may be used again."""
        self._folders.give_up()

    def _open(self, identity: Identity) -> MaildirMaildrop:
        try:
            # RFC 1939 4: the maildrop is locked exclusively before the TRANSACTION state
            folder = self._folders.take(identity)
        except BlockingIOError as error:
            raise MailboxInUse(f"the mailbox of {identity} is open in another session") from error
        try:
            self._clean(folder)
            return self._list(identity, folder)
        except BaseException:
            folder.close()
            raise

    def _list(self, identity: Identity, folder: LockedFolder) -> MaildirMaildrop:
        stamp = stamp_of(folder)
        listing = self._listings.get(identity, stamp)
        if listing is not None:
            return MaildirMaildrop(self._disk, self._folders, folder, self._own_uid, listing)
        maildrop = MaildirMaildrop(self._disk, self._folders, folder, self._own_uid)
        skipped: dict[str, list[str]] = {}
        maildrop.look(self._known_sizes, lambda name, reason: skipped.setdefault(reason, []).append(name))
        if not skipped:
            now = self._clock.now()
            self._listings.keep(identity, stamp, len(maildrop.messages), maildrop.listing, now)
        # one event a reason: a directory full of links must not fill the log at every poll
        for reason, names in skipped.items():
            fields: dict[str, str | int | float | None] = {
                "identity": str(identity),
                "reason": reason,
                "name": ascii(names[0])[1:-1],
                "count": len(names),
            }
            self._emit(Event("mailbox.skipped", self._clock.now(), fields))
        return maildrop

    def _clean(self, folder: LockedFolder) -> None:
        """Remove what broken deliveries left in tmp; the lock file's time says when that was last done."""
        if folder.taken_at - folder.tidied_at < CLEANING_INTERVAL_SECONDS:
            return
        folder.tidied_at = folder.taken_at
        disk, now = self._disk, self._clock.now()
        if disk.entry_of(folder.lock).mtime > now - CLEANING_INTERVAL_SECONDS:
            return
        try:
            disk.set_mtime(LOCK_NAME, folder.home, now)
            for name, entry in disk.entries(folder.tmp):
                if entry.kind != "d" and entry.mtime < now - TMP_LIFETIME_SECONDS:
                    disk.unlink(name, folder.tmp)
        except OSError:
            pass  # it is only tidying: the session goes on


def _gathered(form: StoredForm, body: Iterable[bytes]) -> Iterator[bytes]:
    """The stored form in blocks that are worth a write call."""
    waiting: list[bytes] = []
    octets = 0
    for block in body:
        stored = form.feed(block)
        waiting.append(stored)
        octets += len(stored)
        if octets >= BLOCK:
            yield b"".join(waiting)
            waiting.clear()
            octets = 0
    waiting.append(form.finish())
    yield b"".join(waiting)


def _mailbox_error(identity: Identity, error: OSError) -> MailboxError:
    kind = MailboxFull if error.errno in _FULL else MailboxError
    name = f" ({error.filename!a})" if error.filename else ""
    return kind(f"the mailbox of {identity}: {error.strerror or error}{name}")
