"""One piece of work on an open folder: find it again, take in what others did, then do it, all or nothing."""

import sqlite3
from array import array
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TypeVar

from popgate.files.disk import Disk
from popgate.mailbox.backends.maildir_folder import objection_to, release
from popgate.mailbox.backends.maildir_home import FolderDirectory, Home, Known
from popgate.mailbox.backends.maildir_index import transaction
from popgate.mailbox.backends.maildir_rows import FolderRow, Message, folder_by_id
from popgate.mailbox.backends.maildir_sync import (
    NotMeasured,
    Taking,
    is_current,
    learn_keywords,
    measure_all,
    stamps_of,
)
from popgate.mailbox.folders import NoSuchFolder
from popgate.mailbox.line_ends import BLOCK, READ_BLOCK, to_wire
from popgate.mailbox.mailbox import MailboxError

_T = TypeVar("_T")
_ATTEMPTS = 6


class Elsewhere(Exception):
    """A file is not where it was seen last: look again, and begin anew."""


class Work:
    """What an act works with. `row` is the folder's, which the act changes and saves."""

    __slots__ = ("connection", "disk", "home", "known", "maildir", "row")

    def __init__(
        self, home: Home, connection: sqlite3.Connection, row: FolderRow, maildir: FolderDirectory
    ) -> None:
        self.home = home
        self.disk: Disk = home.site.disk
        self.connection = connection
        self.row = row
        self.maildir = maildir
        self.known: Known = home.what_is_known(row.uid_validity)

    def directory(self, in_new: int) -> int:
        return self.maildir.new if in_new else self.maildir.cur

    def save(self) -> None:
        self.row.save(self.connection)


def find(connection: sqlite3.Connection, number: int, uid_validity: int) -> FolderRow:
    """Raises NoSuchFolder where it was deleted, or its index begun again."""
    row = folder_by_id(connection, number)
    if row is None or row.uid_validity != uid_validity:
        raise NoSuchFolder("the folder was deleted, or made anew")
    return row


def look(home: Home, connection: sqlite3.Connection, number: int, uid_validity: int) -> FolderRow:
    """The folder as its directory is now."""
    row = find(connection, number, uid_validity)
    known = home.what_is_known(uid_validity)
    with home.directory(row.name) as maildir:
        learn_keywords(home, maildir, known)
        is_changed = not is_current(row, known, stamps_of(maildir))
    if is_changed:
        row = write(home, connection, number, uid_validity, lambda work: work.row)
    key = (uid_validity, row.uid_next, row.messages)
    if key != known.uids_key:
        found = connection.execute("SELECT uid FROM messages WHERE folder = ? ORDER BY uid", (number,))
        known.uids = array("I", [uid for (uid,) in found])
        known.uids_key = key
    return row


def write(
    home: Home,
    connection: sqlite3.Connection,
    number: int,
    uid_validity: int,
    act: Callable[[Work], _T],
    *,
    force: bool = False,
) -> _T:
    """Run `act` when the index knows all that is in the directories, in one transaction with what was
    taken in. `force`: look into the directories even if they seem not to have changed."""
    for _ in range(_ATTEMPTS):
        row = find(connection, number, uid_validity)
        with home.directory(row.name) as maildir:
            try:
                with current(home, connection, row, maildir, force) as work:
                    return act(work)
            except NotMeasured as missing:
                measure_all(home, maildir, missing.places)
            except Elsewhere:
                force = True
    raise MailboxError(f"the files of {row.name!a} move about too much")


@contextmanager
def current(
    home: Home, connection: sqlite3.Connection, row: FolderRow, maildir: FolderDirectory, force: bool = False
) -> Iterator[Work]:
    """A transaction that has begun by taking in what is in the directories."""
    known = home.what_is_known(row.uid_validity)
    try:
        with transaction(connection):
            again = find(connection, row.id, row.uid_validity)
            if again.name != row.name:
                raise Elsewhere
            learn_keywords(home, maildir, known)
            Taking(home, connection, again, maildir).take_in(force)
            yield Work(home, connection, again, maildir)
    except BaseException:
        known.stamps = ""
        raise


def open_message(work_disk: Disk, maildir: FolderDirectory, message: Message, own_uid: int) -> int:
    """A descriptor of the file. Raises FileNotFoundError where it is not there (any more), MailboxError."""
    try:
        fd = work_disk.open_file(message.name, maildir.new if message.in_new else maildir.cur)
    except FileNotFoundError:
        raise
    except OSError as error:
        raise MailboxError(f"{message.name!a} cannot be read: {error.strerror}") from error
    try:
        owner = work_disk.entry_of(maildir.home).uid
        reason = objection_to(work_disk.entry_of(fd), owner, own_uid)
        if reason:
            raise MailboxError(f"{message.name!a} cannot be read: {reason}")
    except BaseException:
        release(work_disk, fd)
        raise
    return fd


def wire_blocks(disk: Disk, fd: int, name: str, start: int, octets: int | None) -> Iterator[bytes]:
    """A range of the wire form; closes the file at the end. Call `next` once: it gives nothing yet."""
    try:
        yield b""
        left = octets
        blocks = to_wire(stored_blocks(disk, fd))
        while left != 0:
            block = next(blocks, None)
            if block is None:
                return
            if start >= len(block):
                start -= len(block)
                continue
            part = block[start : len(block) if left is None else start + left]
            start = 0
            if left is not None:
                left -= len(part)
            yield part
    except OSError as error:
        raise MailboxError(f"{name!a} cannot be read: {error.strerror}") from error
    finally:
        release(disk, fd)


def stored_blocks(disk: Disk, fd: int) -> Iterator[bytes]:
    while block := disk.read(fd, READ_BLOCK):
        yield block


def copy_content(disk: Disk, source: int, name: str, directory: int) -> None:
    """Where a file cannot be linked, it is written anew. Raises OSError."""
    fd = disk.create(name, directory)
    try:
        try:
            while block := disk.read(source, BLOCK):
                disk.write(fd, block)
            disk.sync(fd)
        finally:
            disk.close(fd)
    except BaseException:
        withdraw(disk, name, directory)
        raise


def withdraw(disk: Disk, name: str, directory: int) -> None:
    try:
        disk.unlink(name, directory)
    except OSError:
        pass
