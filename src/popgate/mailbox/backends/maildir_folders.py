"""Which folders a user's Maildir++ has: its directories, and the rows of the index that stand for them.

The directories decide. A row without its directory is forgotten, a directory without a row gets one with a
uid_validity of its own; where the two are one directory by its inode, it was renamed, by whomever, and keeps
all that is known of it. The largest uid_validity ever given is kept in a file beside the index, so
that an index that is begun again does not give one twice.
"""

import sqlite3
from collections.abc import Iterable
from typing import Final

from popgate.files.disk import Disk
from popgate.mailbox.backends.maildir_folder import release
from popgate.mailbox.backends.maildir_home import FolderDirectory, Home
from popgate.mailbox.backends.maildir_index import transaction
from popgate.mailbox.backends.maildir_rows import (
    FolderRow,
    add_folder,
    all_folders,
    folder_by_name,
    remove_folder,
)
from popgate.mailbox.backends.maildir_subscriptions import replace_file
from popgate.mailbox.folder_names import INBOX, directory_of, folder_name, folder_of
from popgate.mailbox.folders import BadFolderName, NoSuchFolder

VALIDITY_FILE: Final = "popgate-uidvalidity"
TRASHED: Final = "popgate-trashed."
_MOST_DEEP: Final = 8


def existing_name(name: str) -> str:
    """The name as it is kept. Raises NoSuchFolder for one that no folder can have."""
    try:
        return folder_name(name)
    except BadFolderName as error:
        raise NoSuchFolder(f"there is no folder {name!a}") from error


def folder_row(home: Home, connection: sqlite3.Connection, name: str) -> FolderRow:
    """The row of a folder that exists. Raises NoSuchFolder."""
    name = existing_name(name)
    with home.directory(name) as maildir:
        inode = home.site.disk.entry_of(maildir.home).inode
    row = folder_by_name(connection, name)
    if row is None or row.inode != inode:
        row = reconciled(home, connection).get(name)
    if row is None:
        raise NoSuchFolder(f"there is no folder {name!a}")
    return row


def reconciled(home: Home, connection: sqlite3.Connection) -> dict[str, FolderRow]:
    """All folders, after the index has learnt what directories there are."""
    with home.directory() as inbox:
        found = _directories(home.site.disk, inbox)
        rows = all_folders(connection)
        if {name: row.inode for name, row in rows.items()} != found:
            with transaction(connection):
                # again, in our turn: another process may have been at it meanwhile
                found = _directories(home.site.disk, inbox)
                _learn(home, connection, inbox, found)
                rows = all_folders(connection)
    return rows


def _directories(disk: Disk, inbox: FolderDirectory) -> dict[str, int]:
    found = {INBOX: disk.entry_of(inbox.home).inode}
    for directory in disk.names(inbox.home):
        name = folder_of(directory)
        if name is None:
            continue
        try:
            entry = disk.entry(directory, inbox.home)
            # without cur it is half made, or half removed
            if entry.kind == "d" and disk.entry(f"{directory}/cur", inbox.home).kind == "d":
                found[name] = entry.inode
        except OSError:
            continue
    return found


def _learn(home: Home, connection: sqlite3.Connection, inbox: FolderDirectory, found: dict[str, int]) -> None:
    rows = all_folders(connection)
    lost = {row.inode: row for name, row in rows.items() if name not in found}
    new = []
    for name, inode in found.items():
        row = rows.get(name)
        if row is not None:
            if row.inode != inode:
                connection.execute("UPDATE folders SET inode = ? WHERE id = ?", (inode, row.id))
            continue
        renamed = lost.pop(inode, None)
        if renamed is None:
            new.append(name)
        else:
            connection.execute("UPDATE folders SET name = ? WHERE id = ?", (name, renamed.id))
    for row in lost.values():
        remove_folder(connection, row.id)
        home.known.pop(row.uid_validity, None)
    if new:
        used = max((row.uid_validity for row in rows.values()), default=0)
        first = _uid_validities(home, inbox, len(new), used)
        for uid_validity, name in enumerate(sorted(new), first):
            add_folder(connection, name, found[name], uid_validity)


def _uid_validities(home: Home, inbox: FolderDirectory, count: int, used: int) -> int:
    """The first of so many that were never given in this Maildir. Raises OSError."""
    disk = home.site.disk
    before = 0
    try:
        fd = disk.open_file(VALIDITY_FILE, inbox.home)
        try:
            text = disk.read(fd, 16).strip()
        finally:
            release(disk, fd)
        if text.isdigit():
            before = int(text)
    except FileNotFoundError:
        pass
    first = max(before, used, int(home.site.clock.now()) - 1) + 1
    # On disk before the first of them is told to anybody
    replace_file(disk, inbox.home, VALIDITY_FILE, b"%d\n" % (first + count - 1), home.site.token)
    return first


def make_directory(disk: Disk, inbox: FolderDirectory, name: str) -> None:
    """On disk for sure when it returns. Raises OSError."""
    directory = directory_of(name)
    try:
        disk.make_directory(directory, inbox.home)
    except FileExistsError:
        pass  # half made, or half removed
    fd = disk.open_directory(directory, inbox.home)
    try:
        try:
            disk.close(disk.create("maildirfolder", fd))
        except FileExistsError:
            pass
        for part in ("tmp", "new", "cur"):  # cur last: with it the folder is there
            try:
                disk.make_directory(part, fd)
            except FileExistsError:
                pass
        disk.sync_directory(fd)
    finally:
        release(disk, fd)
    disk.sync_directory(inbox.home)


def trash_directory(home: Home, inbox: FolderDirectory, name: str) -> None:
    """The folder is gone for sure when it returns; what it held goes after that. Raises OSError."""
    disk = home.site.disk
    disk.rename(directory_of(name), inbox.home, TRASHED + home.site.token(), inbox.home)
    disk.sync_directory(inbox.home)


def empty_trash(disk: Disk, inbox: FolderDirectory) -> None:
    """Remove what deletions, also those that broke off, have left."""
    for name in disk.names(inbox.home):
        if name.startswith(TRASHED):
            _remove_tree(disk, name, inbox.home, _MOST_DEEP)


def _remove_tree(disk: Disk, name: str, above: int, deepest: int) -> None:
    try:
        fd = disk.open_directory(name, above)
        try:
            for each, entry in disk.entries(fd):
                if entry.kind != "d":
                    disk.unlink(each, fd)
                elif deepest:
                    _remove_tree(disk, each, fd, deepest - 1)
        finally:
            release(disk, fd)
        disk.remove_directory(name, above)
    except OSError:
        pass  # it is only tidying, and the next deletion tries again


def rename_directories(disk: Disk, inbox: FolderDirectory, moves: Iterable[tuple[str, str]]) -> None:
    """All or, where one cannot be renamed, none. On disk when it returns. Raises OSError."""
    done: list[tuple[str, str]] = []
    try:
        for source, target in moves:
            disk.rename(directory_of(source), inbox.home, directory_of(target), inbox.home)
            done.append((source, target))
        disk.sync_directory(inbox.home)
    except BaseException:
        for source, target in reversed(done):
            try:
                disk.rename(directory_of(target), inbox.home, directory_of(source), inbox.home)
            except OSError:
                continue
        raise
