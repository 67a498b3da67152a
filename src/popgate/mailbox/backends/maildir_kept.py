"""Maildirs that stay open and ready to be locked between the sessions of users who poll.

Of what a poll costs, a large part was to open the mail root, the domain, the Maildir and its
lock file one below the other, and to close them again. So the last two stay open, unlocked, for
a number of users, and the next session of such a user locks and looks: one stat of the lock
file, by its path from the root, tells that no other Maildir or lock file has come in its place.

What is kept must not be mistaken for what is there:

- The lock belongs to the open file, and a process that locks twice through one descriptor is
  granted both. So a Maildir in session is never in the table: whoever takes it out owns it, and
  a second session opens it anew and meets the lock.
- A process made by fork shares the open file, and with it the lock. So each Maildir knows the
  process that opened it, and in any other it is only closed.
- A moved or removed Maildir and a replaced lock file are noticed at once. A link in place of a
  directory of the path that leads to the very Maildir that is open, or another Maildir with a hard
  link to the same lock file, is noticed after LOOK_AGAIN_SECONDS. Nothing is ever read or written
  through such a path: it is only looked at.
"""

import errno
import os
import threading
from collections import OrderedDict
from typing import Final

from popgate.files.disk import Disk, Entry
from popgate.mailbox.backends.maildir_folder import NO_DOMAIN, Folder, release
from popgate.values.clock import Clock
from popgate.values.identity import Identity

LOCK_NAME: Final = "popgate.lock"
LOOK_AGAIN_SECONDS: Final = 1.0
RECENT_SECONDS: Final = 900.0
"""A user who was here so short a time ago is not displaced by another: where many more poll in
turn than can be kept, some are kept for good rather than all for nothing. Devices poll every
minute to every quarter of an hour."""

_NEVER = float("-inf")
NO_DESCRIPTORS: Final = frozenset((errno.EMFILE, errno.ENFILE))


class LockedFolder(Folder):
    """The Maildir of one user, open and locked for one session. `taken_at`: when, on the monotonic
    clock; `tidied_at`: when its tmp was last seen to."""

    __slots__ = (
        "home_entry",
        "identity",
        "lock",
        "lock_entry",
        "lock_path",
        "looked_at",
        "process",
        "taken_at",
        "tidied_at",
    )

    def __init__(self, disk: Disk, root: str, identity: Identity, taken_at: float) -> None:
        """Raises BlockingIOError when it is in session, OSError."""
        self.lock = -1
        super().__init__(disk, root, identity)
        try:
            self.lock = disk.lock(LOCK_NAME, self.home)
        except BaseException:
            self.close()
            raise
        self.identity = identity
        self.lock_path = f"{root}/{identity.domain or NO_DOMAIN}/{identity.user}/{LOCK_NAME}"
        self.process = os.getpid()
        self.taken_at = taken_at
        self.looked_at = self.tidied_at = _NEVER
        self.home_entry: Entry | None = None  # both are looked at when it is to be kept
        self.lock_entry: Entry | None = None

    def close(self) -> None:
        super().close()
        if self.lock >= 0:
            lock, self.lock = self.lock, -1
            release(self._disk, lock)


class KeptFolders:
    """The Maildirs of one process: up to `most` open ones without a session, two descriptors each.
    Any thread may call."""

    def __init__(self, disk: Disk, root: str, clock: Clock, most: int) -> None:
        self._disk = disk
        self._root = root
        self._clock = clock
        self._most = most
        self._idle: OrderedDict[Identity, LockedFolder] = OrderedDict()  # the last used one at the end
        self._guard = threading.Lock()

    def take(self, identity: Identity) -> LockedFolder:
        """The caller's until `give_back`. Raises BlockingIOError when it is in session, OSError."""
        now = self._clock.monotonic()
        with self._guard:
            folder = self._idle.pop(identity, None)
        if folder is not None:
            if folder.process != os.getpid():
                folder.close()
                self.give_up()
            elif self._is_locked_again(folder, now):
                folder.taken_at = now
                return folder
        return LockedFolder(self._disk, self._root, identity, now)

    def give_back(self, folder: LockedFolder) -> None:
        """Unlock it: the session is over. It is the caller's no more."""
        folder.close_parts()
        surplus: LockedFolder | None = folder
        if self._has_room(folder.taken_at) and folder.process == os.getpid():
            try:
                if folder.lock_entry is None:
                    folder.home_entry = self._disk.entry_of(folder.home)
                    folder.lock_entry = self._disk.entry_of(folder.lock)
                self._disk.unlock(folder.lock)
                surplus = self._keep(folder)
            except OSError:
                pass  # closing it unlocks it as well
        if surplus is not None:
            surplus.close()

    def makes_room_for(self, error: OSError) -> bool:
        """Whether something failed for want of a descriptor and may go well now: one that nobody
        uses must never be the one that a session lacks."""
        return error.errno in NO_DESCRIPTORS and self.give_up()

    def give_up(self) -> bool:
        """Close all that are kept; False when there was none."""
        with self._guard:
            folders = list(self._idle.values())
            self._idle.clear()
        for folder in folders:
            folder.close()
        return bool(folders)

    def _is_locked_again(self, folder: LockedFolder, now: float) -> bool:
        """False, and closed, when it is not what its path stands for."""
        assert folder.lock_entry is not None
        try:
            is_same = self._disk.lock_again(folder.lock, folder.lock_entry, folder.lock_path)
            if is_same and (now - folder.looked_at < LOOK_AGAIN_SECONDS or self._is_in_place(folder, now)):
                return True
        except BlockingIOError:
            surplus = self._keep(folder)
            if surplus is not None:
                surplus.close()
            raise
        except OSError:
            pass  # opening it anew tells what is wrong
        folder.close()
        return False

    def _is_in_place(self, folder: LockedFolder, now: float) -> bool:
        """Whether the path leads to it without a link below the root."""
        disk, was = self._disk, folder.home_entry
        assert was is not None
        home = os.path.dirname(folder.lock_path)
        found = disk.entry(home)
        if (found.inode, found.device) != (was.inode, was.device):
            return False
        if disk.entry(os.path.dirname(home)).kind != "d":
            return False
        folder.looked_at = now
        return True

    def _has_room(self, now: float) -> bool:
        if len(self._idle) < self._most:
            return True
        with self._guard:
            oldest = next(iter(self._idle.values()), None)
        return oldest is not None and now - oldest.taken_at >= RECENT_SECONDS

    def _keep(self, folder: LockedFolder) -> LockedFolder | None:
        """Put it into the table, unlocked; returns what has had to go for it."""
        with self._guard:
            surplus = self._idle.pop(folder.identity, None)
            if surplus is None and len(self._idle) >= self._most:
                _, surplus = self._idle.popitem(last=False)
            self._idle[folder.identity] = folder
        return surplus
