"""The folders of all users as Maildir++: ROOT/DOMAIN/USER is the INBOX, `.A.B` in it the folder A/B.

The Maildirs are those that `popgate.mailbox.backends.maildir` delivers to and POP3 serves, by the same
rules of what is a message and what is skipped. Courier and Dovecot may serve them too: names, flags,
keywords and subscriptions lie where they look for them.
"""

import sqlite3
import threading
from collections.abc import Callable, Sequence
from typing import TypeVar

from popgate.files.disk import Disk
from popgate.mailbox.backends.maildir_draft import MaildirDraft, file_drafts
from popgate.mailbox.backends.maildir_folders import (
    empty_trash,
    existing_name,
    folder_row,
    make_directory,
    reconciled,
    rename_directories,
    trash_directory,
)
from popgate.mailbox.backends.maildir_home import Home, Site
from popgate.mailbox.backends.maildir_index import Connect, Indexes, connect, transaction
from popgate.mailbox.backends.maildir_open_folder import MaildirFolder
from popgate.mailbox.backends.maildir_rows import FolderRow
from popgate.mailbox.backends.maildir_subscriptions import Subscriptions
from popgate.mailbox.backends.maildir_work import look, write
from popgate.mailbox.folder_names import INBOX, folder_name, parents_of, special_use_of
from popgate.mailbox.folders import (
    BadFolderName,
    ChangeNotices,
    Draft,
    FolderExists,
    FolderInfo,
    FolderState,
    NoSuchFolder,
    Placed,
    TooMany,
)
from popgate.values.clock import Clock
from popgate.values.event import EventSink
from popgate.values.identity import Identity

_T = TypeVar("_T")


class MaildirAccounts:
    """`popgate.mailbox.folders.Accounts` below the directory `root`, which must exist.

    Any number of threads and processes may share the directory. `notices`: who tells of changes;
    without one, `Folder.watch` never calls. `most_indexes`: how many users' indexes stay open
    without work for them, at three descriptors each. `most_folders`: of one user.
    """

    def __init__(
        self,
        root: str,
        disk: Disk,
        clock: Clock,
        hostname: str,
        emit: EventSink,
        notices: ChangeNotices | None = None,
        *,
        most_indexes: int = 64,
        most_folders: int = 1000,
        connect: Connect = connect,
    ) -> None:
        self._indexes = Indexes(most_indexes, connect)
        self._site = Site(root, disk, clock, hostname, emit, notices, self._indexes, most_folders)
        self._homes: dict[Identity, Home] = {}
        self._guard = threading.Lock()

    def open_account(self, identity: Identity) -> "MaildirAccount":
        with self._guard:
            home = self._homes.get(identity)
            if home is None:
                home = self._homes[identity] = Home(self._site, identity)
            home.sessions += 1
        account = MaildirAccount(home, self._leave)
        try:
            if home.sessions == 1:
                home.settle()
        except BaseException:
            account.close()
            raise
        return account

    def _leave(self, home: Home) -> None:
        with self._guard:
            home.sessions -= 1
            if not home.sessions and self._homes.get(home.identity) is home:
                del self._homes[home.identity]

    def close(self) -> None:
        """Close the indexes that no work is under way with; may be used again."""
        self._indexes.close()


class MaildirAccount:
    """`popgate.mailbox.folders.Account`: one session's use of its user's `Home`."""

    __slots__ = ("_home", "_is_open", "_leave")

    def __init__(self, home: Home, leave: Callable[[Home], None]) -> None:
        self._home = home
        self._leave = leave
        self._is_open = True

    # Folders

    def folders(self) -> Sequence[FolderInfo]:
        def read(connection: sqlite3.Connection) -> Sequence[FolderInfo]:
            rows = reconciled(self._home, connection)
            with self._home.directory() as inbox:
                subscribed = Subscriptions(self._home.site.disk, inbox.home).names()
            names = {*rows, *subscribed}
            for name in rows:
                names.update(parents_of(name))
            given = {row.special_use for row in rows.values() if row.special_use}
            return [_info(name, rows.get(name), name in subscribed, given) for name in sorted(names)]

        return self._home.perform(read)

    def open(self, name: str) -> MaildirFolder:
        return MaildirFolder(
            self._home, self._home.perform(lambda index: folder_row(self._home, index, name))
        )

    def create(self, name: str, special_use: str = "") -> FolderInfo:
        name = folder_name(name.removesuffix("/"))
        return self._home.perform(lambda connection: self._create(connection, name, special_use))

    def _create(self, connection: sqlite3.Connection, name: str, special_use: str) -> FolderInfo:
        home = self._home
        rows = reconciled(home, connection)
        if name in rows:
            raise FolderExists(f"there is a folder {name!a}")
        missing = [each for each in (*parents_of(name), name) if each not in rows]
        if len(rows) + len(missing) > home.site.most_folders:
            raise TooMany(f"a user has at most {home.site.most_folders} folders")
        with home.directory() as inbox:
            for each in missing:
                make_directory(home.site.disk, inbox, each)
        row = reconciled(home, connection)[name]
        if special_use:
            with transaction(connection):
                connection.execute("UPDATE folders SET special_use = ? WHERE id = ?", (special_use, row.id))
        given = {each.special_use for each in rows.values() if each.special_use}
        with home.directory() as inbox:
            is_subscribed = name in Subscriptions(home.site.disk, inbox.home).names()
        row.special_use = special_use
        return _info(name, row, is_subscribed, given)

    def delete(self, name: str) -> None:
        if name.upper() == INBOX:
            raise BadFolderName("INBOX cannot be deleted")

        def remove(connection: sqlite3.Connection) -> None:
            row = folder_row(self._home, connection, name)
            with self._home.directory() as inbox:
                try:
                    trash_directory(self._home, inbox, row.name)
                except FileNotFoundError as error:
                    raise NoSuchFolder(f"there is no folder {name!a}") from error
                reconciled(self._home, connection)
                empty_trash(self._home.site.disk, inbox)

        self._home.perform(remove)

    def rename(self, name: str, new: str) -> None:
        new = folder_name(new.removesuffix("/"))
        name = existing_name(name)
        if name == INBOX:
            self.create(new)
            inbox = self.open(INBOX)
            # RFC 9051 6.3.6: the messages move, and INBOX's children stay
            inbox.move([row.uid for row in inbox.rows(_fresh_uids(inbox))], new)
            return
        if new.startswith(name + "/"):
            raise BadFolderName("a folder cannot be moved below itself")
        self._home.perform(lambda connection: self._rename(connection, name, new))

    def _rename(self, connection: sqlite3.Connection, name: str, new: str) -> None:
        home = self._home
        rows = reconciled(home, connection)
        if name not in rows:
            raise NoSuchFolder(f"there is no folder {name!a}")
        moves = [
            (each, folder_name(new + each[len(name) :]))
            for each in sorted(rows)
            if each == name or each.startswith(name + "/")
        ]
        for _, target in moves:
            if target in rows:
                raise FolderExists(f"there is a folder {target!a}")
        disk = home.site.disk
        with home.directory() as inbox:
            for parent in parents_of(new):
                if parent not in rows:
                    make_directory(disk, inbox, parent)
            rename_directories(disk, inbox, moves)
        reconciled(home, connection)

    def subscribe(self, name: str, *, subscribed: bool = True) -> None:
        if subscribed:
            name = folder_name(name)

        def change(_: sqlite3.Connection) -> None:
            site = self._home.site
            with self._home.directory() as inbox:
                Subscriptions(site.disk, inbox.home).change(name, subscribed, site.token)

        self._home.perform(change)

    def state(self, name: str) -> FolderState:
        return self._look(lambda connection: [folder_row(self._home, connection, name)])[0].state()

    def used(self) -> tuple[int, int]:
        rows = self._look(lambda connection: list(reconciled(self._home, connection).values()))
        return sum(row.messages for row in rows), sum(row.disk_octets for row in rows)

    def _look(self, which: Callable[[sqlite3.Connection], list[FolderRow]]) -> list[FolderRow]:
        def read(connection: sqlite3.Connection) -> list[FolderRow]:
            return [look(self._home, connection, row.id, row.uid_validity) for row in which(connection)]

        return self._home.perform(read)

    # Messages that come

    def draft(self) -> MaildirDraft:
        return MaildirDraft(self._home)

    def append(self, name: str, drafts: Sequence[tuple[Draft, frozenset[str], int]]) -> Placed:
        def file(connection: sqlite3.Connection) -> Placed:
            row = folder_row(self._home, connection, name)
            return write(
                self._home,
                connection,
                row.id,
                row.uid_validity,
                lambda work: file_drafts(work, drafts),
            )

        return self._home.perform(file)

    def close(self) -> None:
        if self._is_open:
            self._is_open = False
            self._leave(self._home)


def _fresh_uids(folder: MaildirFolder) -> Sequence[int]:
    folder.refresh()
    return folder.uids()


def _info(name: str, row: FolderRow | None, is_subscribed: bool, given: set[str]) -> FolderInfo:
    """`given`: the uses that somebody has given to a folder, which names do not give another one."""
    if row is None:
        return FolderInfo(name, False, is_subscribed)
    by_name = special_use_of(name)
    use = row.special_use or ("" if by_name in given else by_name)
    return FolderInfo(name, True, is_subscribed, use, row.mailbox_id)
