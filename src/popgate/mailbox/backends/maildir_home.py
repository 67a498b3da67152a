"""What all sessions of one user share in one process: the way to the directories and to the index.

Nothing stays open here but what `Indexes` keeps: every piece of work opens the directories anew,
without following a link, and closes them. What is remembered of a folder is small and the same for all
its sessions, so ten thousand idle ones cost little more than one.
"""

import itertools
import os
import secrets
import sqlite3
import threading
from array import array
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import TypeVar

from popgate.files.disk import Disk
from popgate.mailbox.backends.maildir_folder import NO_DOMAIN, Folder, release
from popgate.mailbox.backends.maildir_index import (
    FILE,
    IndexDamaged,
    Indexes,
    as_mailbox_error,
    is_damage,
)
from popgate.mailbox.backends.maildir_letters import Keywords, flags_of
from popgate.mailbox.backends.maildir_names import host_part, unique_name
from popgate.mailbox.folder_names import INBOX, directory_of
from popgate.mailbox.folders import ChangeNotices, NoSuchFolder
from popgate.mailbox.mailbox import MailboxError, MailboxFull
from popgate.values.clock import Clock
from popgate.values.event import Event, EventSink
from popgate.values.identity import Identity

_FULL = frozenset((28, 122))  # ENOSPC, EDQUOT
_T = TypeVar("_T")


class Site:
    """What the back end was given, and makes names of."""

    def __init__(
        self,
        root: str,
        disk: Disk,
        clock: Clock,
        hostname: str,
        emit: EventSink,
        notices: ChangeNotices | None,
        indexes: Indexes,
        most_folders: int,
        token: Callable[[], str] = lambda: secrets.token_hex(8),
    ) -> None:
        self.root = root
        self.disk = disk
        self.clock = clock
        self.emit = emit
        self.notices = notices
        self.indexes = indexes
        self.most_folders = most_folders
        self.token = token
        self.own_uid = os.geteuid()
        self._host = host_part(hostname)
        self._counter = itertools.count(1)

    def unique(self) -> str:
        return unique_name(self.clock.now(), os.getpid(), next(self._counter), self.token(), self._host)

    def tell(self, name: str, fields: dict[str, str | int | float | None]) -> None:
        self.emit(Event(name, self.clock.now(), fields))


class FolderDirectory(Folder):
    """The open directory of one folder; `home` is its descriptor. INBOX is the Maildir itself."""

    __slots__ = ()

    def __init__(self, disk: Disk, root: str, identity: Identity, name: str, *, settle: bool = False) -> None:
        """Raises NoSuchFolder, OSError."""
        super().__init__(disk, root, identity, settle=settle)
        if name == INBOX:
            return
        above = self.home
        self.close_parts()
        self.home = -1
        try:
            self.home = disk.open_directory(directory_of(name), above)
            disk.stamp("cur", self.home)  # without it the folder is half made, or half removed
        except (FileNotFoundError, NotADirectoryError) as error:
            self.close()
            raise NoSuchFolder(f"there is no folder {name!a}") from error
        except BaseException:
            self.close()
            raise
        finally:
            release(disk, above)


class Known:
    """What is remembered of a folder. Whoever changes it has the user's lock."""

    __slots__ = (
        "ends",
        "flag_sets",
        "keywords",
        "keywords_stamp",
        "skipped",
        "stamps",
        "uids",
        "uids_key",
        "watchers",
    )

    def __init__(self) -> None:
        self.uids: Sequence[int] = array("I")
        self.uids_key: tuple[int, int, int] = (0, 0, 0)
        self.stamps = ""
        self.keywords: Keywords = ()
        self.keywords_stamp: object = None
        self.flag_sets: dict[str, frozenset[str]] = {}
        self.skipped: frozenset[str] = frozenset()
        self.watchers: list[Callable[[], None]] = []
        self.ends: list[Callable[[], None]] = []

    def flags(self, letters: str) -> frozenset[str]:
        found = self.flag_sets.get(letters)
        if found is None:
            found = self.flag_sets[letters] = flags_of(letters, self.keywords)
        return found

    def learn(self, keywords: Keywords, stamp: object) -> None:
        self.keywords = keywords
        self.keywords_stamp = stamp
        self.flag_sets = {}


class Home:
    """One user's Maildir, for all sessions of this process."""

    def __init__(self, site: Site, identity: Identity) -> None:
        self.site = site
        self.identity = identity
        self.guard = threading.RLock()
        self.known: dict[
            int, Known
        ] = {}  # by uid_validity, which a folder of the same name made anew has not
        self.sessions = 0
        self.sizes: dict[str, int] = {}  # of messages whose name does not tell, while they are taken in
        self.index_path = f"{site.root}/{identity.domain or NO_DOMAIN}/{identity.user}/{FILE}"

    @contextmanager
    def directory(self, name: str = INBOX) -> Iterator[FolderDirectory]:
        """Raises NoSuchFolder, OSError."""
        folder = FolderDirectory(self.site.disk, self.site.root, self.identity, name)
        try:
            yield folder
        finally:
            folder.close()

    def perform(self, work: Callable[[sqlite3.Connection], _T]) -> _T:
        """Run `work` with the index, as the only thread of this process that works for the user.
        A damaged index is begun again. Raises MailboxError and its kinds."""
        with self.guard:
            for attempt in range(3):
                try:
                    with self.site.indexes.connection(self.index_path) as connection:
                        return work(connection)
                except (sqlite3.Error, IndexDamaged) as error:
                    if not is_damage(error) or attempt == 2:
                        raise as_mailbox_error(error, str(self.identity)) from error
                    self._begin_again(str(error))
                except OSError as error:
                    if isinstance(error, FileNotFoundError) and attempt == 0:
                        self._settle()  # the Maildir itself was not there yet, or is not any more
                        continue
                    raise self.mailbox_error(error) from error
            raise MailboxError(f"the mailbox of {self.identity} comes and goes")

    def settle(self) -> None:
        """Have the Maildir on disk for sure. Raises MailboxError."""
        try:
            self._settle()
        except OSError as error:
            raise self.mailbox_error(error) from error

    def _settle(self) -> None:
        FolderDirectory(self.site.disk, self.site.root, self.identity, INBOX, settle=True).close()

    def _begin_again(self, reason: str) -> None:
        try:
            self.site.indexes.remove(self.index_path)
        except OSError as error:
            raise self.mailbox_error(error) from error
        self.site.tell("mailbox.index.rebuilt", {"identity": str(self.identity), "reason": reason})

    def mailbox_error(self, error: OSError) -> MailboxError:
        kind = MailboxFull if error.errno in _FULL else MailboxError
        name = f" ({error.filename!a})" if error.filename else ""
        return kind(f"the mailbox of {self.identity}: {error.strerror or error}{name}")

    def what_is_known(self, uid_validity: int) -> Known:
        known = self.known.get(uid_validity)
        if known is None:
            known = self.known[uid_validity] = Known()
        return known
