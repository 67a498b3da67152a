"""The index of a user's folders: what a Maildir cannot say of its messages, in one SQLite file.

`popgate.index` in the user's Maildir gives messages their uids and change numbers, remembers
which are gone, and keeps what was read of their content. Everything in it but the numbers can be made
anew from the files; so an index that is lost or damaged is begun again, with new uid_validities.

A process keeps a bounded number of connections open, each for one user and one thread at a time:
whoever calls holds the user's lock. Writers of all processes take turns by BEGIN IMMEDIATE.
"""

import os
import sqlite3
import stat
import threading
from collections import OrderedDict
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Final

from popgate.mailbox.mailbox import MailboxError, MailboxFull

FILE: Final = "popgate.index"
BUSY_SECONDS: Final = 20.0
APPLICATION_ID: Final = 0x706F7069
VERSION: Final = 1

_SCHEMA = """
CREATE TABLE folders (
    id INTEGER PRIMARY KEY AUTOINCREMENT,
    name TEXT NOT NULL UNIQUE,
    inode INTEGER NOT NULL,
    uid_validity INTEGER NOT NULL,
    uid_next INTEGER NOT NULL DEFAULT 1,
    modseq INTEGER NOT NULL DEFAULT 1,
    recent_from INTEGER NOT NULL DEFAULT 1,
    mailbox_id TEXT NOT NULL,
    special_use TEXT NOT NULL DEFAULT '',
    vanished_floor INTEGER NOT NULL DEFAULT 0,
    stamps TEXT NOT NULL DEFAULT '',
    messages INTEGER NOT NULL DEFAULT 0,
    unseen INTEGER NOT NULL DEFAULT 0,
    deleted INTEGER NOT NULL DEFAULT 0,
    octets INTEGER NOT NULL DEFAULT 0,
    deleted_octets INTEGER NOT NULL DEFAULT 0,
    disk_octets INTEGER NOT NULL DEFAULT 0
);
CREATE TABLE messages (
    folder INTEGER NOT NULL,
    uid INTEGER NOT NULL,
    name NOT NULL,
    base NOT NULL,
    in_new INTEGER NOT NULL,
    letters TEXT NOT NULL,
    modseq INTEGER NOT NULL,
    octets INTEGER NOT NULL,
    disk_octets INTEGER NOT NULL,
    received INTEGER NOT NULL,
    email_id TEXT NOT NULL,
    PRIMARY KEY (folder, uid)
) WITHOUT ROWID;
CREATE INDEX messages_base ON messages (folder, base);
CREATE INDEX messages_modseq ON messages (folder, modseq);
CREATE TABLE twins (
    folder INTEGER NOT NULL,
    base NOT NULL,
    name NOT NULL,
    in_new INTEGER NOT NULL,
    PRIMARY KEY (folder, name, in_new)
) WITHOUT ROWID;
CREATE TABLE vanished (
    folder INTEGER NOT NULL,
    uid INTEGER NOT NULL,
    modseq INTEGER NOT NULL,
    PRIMARY KEY (folder, modseq, uid)
) WITHOUT ROWID;
CREATE TABLE content (
    folder INTEGER NOT NULL,
    uid INTEGER NOT NULL,
    header BLOB NOT NULL,
    structure TEXT NOT NULL,
    preview TEXT NOT NULL,
    PRIMARY KEY (folder, uid)
)
"""

_DAMAGED: Final = frozenset((sqlite3.SQLITE_CORRUPT, sqlite3.SQLITE_NOTADB))
_NEW = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC

Connect = Callable[[str], sqlite3.Connection]


class IndexDamaged(Exception):
    """The file is no index of ours, or none any more."""


def connect(path: str) -> sqlite3.Connection:
    """A connection to the index at `path`, made where it is missing. Raises IndexDamaged, OSError,
    sqlite3.Error.

    SQLite opens by path. So the files are looked at before: in a Maildir that somebody else may write
    to, a link in their place would have popgate write elsewhere.
    """
    try:
        os.close(os.open(path, _NEW, 0o600))
    except FileExistsError:
        pass
    for each in (path, path + "-wal", path + "-shm"):
        _check(each)
    connection = sqlite3.connect(
        path, timeout=BUSY_SECONDS, isolation_level=None, check_same_thread=False, cached_statements=64
    )
    try:
        _prepare(connection)
    except BaseException:
        connection.close()
        raise
    return connection


def _check(path: str) -> None:
    try:
        found = os.lstat(path)
    except FileNotFoundError:
        return
    if not stat.S_ISREG(found.st_mode) or found.st_nlink != 1 or found.st_uid != os.geteuid():
        raise PermissionError(1, "not a file of popgate's own", path)


def _prepare(connection: sqlite3.Connection) -> None:
    connection.execute("PRAGMA journal_mode = WAL")
    connection.execute("PRAGMA synchronous = FULL")
    connection.execute("PRAGMA secure_delete = OFF")
    connection.execute("PRAGMA cache_size = -2048")
    connection.execute("PRAGMA trusted_schema = OFF")
    if _is_ours(connection):
        return
    with transaction(connection):
        if _is_ours(connection):
            return
        if connection.execute("SELECT count(*) FROM sqlite_schema").fetchone()[0]:
            raise IndexDamaged("the index is of another version, or no index")
        for statement in _SCHEMA.split(";"):
            connection.execute(statement)
        connection.execute(f"PRAGMA application_id = {APPLICATION_ID}")
        connection.execute(f"PRAGMA user_version = {VERSION}")


def _is_ours(connection: sqlite3.Connection) -> bool:
    version: int = connection.execute("PRAGMA user_version").fetchone()[0]
    application: int = connection.execute("PRAGMA application_id").fetchone()[0]
    return (application, version) == (APPLICATION_ID, VERSION)


@contextmanager
def transaction(connection: sqlite3.Connection) -> Iterator[None]:
    """All of it is on disk at the end, or nothing."""
    connection.execute("BEGIN IMMEDIATE")
    try:
        yield
        connection.execute("COMMIT")
    except BaseException:
        if connection.in_transaction:
            connection.execute("ROLLBACK")
        raise


def is_damage(error: Exception) -> bool:
    return isinstance(error, IndexDamaged) or getattr(error, "sqlite_errorcode", 0) & 0xFF in _DAMAGED


def as_mailbox_error(error: sqlite3.Error | IndexDamaged, whose: str) -> MailboxError:
    is_full = getattr(error, "sqlite_errorcode", 0) & 0xFF == sqlite3.SQLITE_FULL
    kind = MailboxFull if is_full else MailboxError
    return kind(f"the index of {whose}: {error}")


class Indexes:
    """The connections of one process, at most `most` without a caller. Any thread may call."""

    def __init__(self, most: int, connect: Connect = connect) -> None:
        self._most = most
        self._connect = connect
        self._idle: OrderedDict[str, tuple[sqlite3.Connection, int]] = OrderedDict()
        self._guard = threading.Lock()
        self._process = os.getpid()
        self._left_alone: list[sqlite3.Connection] = []  # of the process that this one was forked from

    @contextmanager
    def connection(self, path: str) -> Iterator[sqlite3.Connection]:
        """One for `path`, which no other caller has. After an error of SQLite's it is given up."""
        taken, inode = self._take(path)
        try:
            yield taken
        except (sqlite3.Error, IndexDamaged):
            _close(taken)
            raise
        except BaseException:
            self._give_back(path, taken, inode)
            raise
        self._give_back(path, taken, inode)

    def _take(self, path: str) -> tuple[sqlite3.Connection, int]:
        with self._guard:
            if self._process != os.getpid():
                # SQLite: a connection must not be carried through a fork, not even to close it
                self._left_alone += [connection for connection, _ in self._idle.values()]
                self._idle.clear()
                self._process = os.getpid()
            kept = self._idle.pop(path, None)
        if kept is not None:
            if _inode(path) == kept[1]:
                return kept
            _close(kept[0])  # the file was removed, or made anew by another process
        opened = self._connect(path)
        return opened, _inode(path)

    def _give_back(self, path: str, connection: sqlite3.Connection, inode: int) -> None:
        surplus = None
        with self._guard:
            self._idle[path] = connection, inode
            if len(self._idle) > self._most:
                _, (surplus, _) = self._idle.popitem(last=False)
        if surplus is not None:
            _close(surplus)

    def remove(self, path: str) -> None:
        """Have the next caller begin a new index there. Raises OSError."""
        with self._guard:
            kept = self._idle.pop(path, None)
        if kept is not None:
            _close(kept[0])
        for each in (path + "-wal", path + "-shm", path):
            try:
                os.unlink(each)
            except FileNotFoundError:
                pass

    def close(self) -> None:
        with self._guard:
            kept = list(self._idle.values())
            self._idle.clear()
            is_ours = self._process == os.getpid()
        for connection, _ in kept if is_ours else ():
            _close(connection)


def _inode(path: str) -> int:
    try:
        return os.lstat(path).st_ino
    except FileNotFoundError:
        return 0


def _close(connection: sqlite3.Connection) -> None:
    try:
        connection.close()
    except sqlite3.Error:
        pass
