"""The queue's SQLite file: opening it, its tables, and one transaction at a time.

WAL with synchronous=FULL: when COMMIT returns, the write-ahead log has been fsync'd.
Several processes write (SMTP workers, the delivery process, the queue command). SQLite
lets one at a time in, and makes the others poll; so a transaction here is made under
flock on a file beside the database, where the kernel wakes the next one at once. The
lock says nothing about what is on disk: a program that does not take it is still
safe, only slower.

After an error in BEGIN, a statement's I/O or COMMIT the connection is given up and the
next transaction opens a new one: nothing is ever tried again on a descriptor whose
fsync failed.
"""

import errno
import fcntl
import os
import sqlite3
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import TypeVar

from popgate.queue.queue import QueueError

Work = Callable[[sqlite3.Connection], object]
"""A part of a transaction. May run twice, so it changes nothing but the database."""

Connect = Callable[[str], sqlite3.Connection]

_T = TypeVar("_T")

FILE = "queue.sqlite"
LOCK = "queue.lock"
BODIES = "bodies"
APPLICATION_ID = 0x706F7067  # "popg"
VERSION = 1
BUSY_SECONDS = 20.0
_CREATE = os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW

# recipient.state: pending, held, delivered, failed, expanded (an alias whose targets follow as rows).
# recipient.mailbox: the one mailbox a row is for, where an alias stood for several.
# recipient.via: the alias through which a row came, written as Delivered-To.
# message.held: why the message is set aside, '' when it is not.
_SCHEMA = """
CREATE TABLE sequence (next INTEGER NOT NULL);
INSERT INTO sequence VALUES (0);
CREATE TABLE message (
    id INTEGER PRIMARY KEY,
    created_at REAL NOT NULL,
    octets INTEGER NOT NULL,
    crc INTEGER NOT NULL,
    sender_local TEXT,
    sender_domain TEXT,
    client TEXT NOT NULL,
    identity TEXT NOT NULL,
    session TEXT NOT NULL,
    helo TEXT NOT NULL,
    envid TEXT NOT NULL,
    ret TEXT NOT NULL,
    needs_smtputf8 INTEGER NOT NULL,
    is_8bit INTEGER NOT NULL,
    held TEXT NOT NULL DEFAULT '',
    warned INTEGER NOT NULL DEFAULT 0,
    body BLOB
);
CREATE TABLE recipient (
    message INTEGER NOT NULL,
    number INTEGER NOT NULL,
    local TEXT NOT NULL,
    domain TEXT NOT NULL,
    is_local INTEGER NOT NULL,
    notify TEXT NOT NULL,
    orcpt TEXT NOT NULL,
    state TEXT NOT NULL DEFAULT 'pending',
    attempts INTEGER NOT NULL DEFAULT 0,
    next_attempt_at REAL NOT NULL,
    status TEXT NOT NULL DEFAULT '',
    mailbox TEXT NOT NULL DEFAULT '',
    via TEXT NOT NULL DEFAULT '',
    PRIMARY KEY (message, number)
) WITHOUT ROWID;
CREATE INDEX recipient_due ON recipient (next_attempt_at) WHERE state = 'pending';
"""


def connect(path: str) -> sqlite3.Connection:
    """A connection as the queue needs it, usable in any one thread at a time."""
    connection = sqlite3.connect(
        path, timeout=BUSY_SECONDS, isolation_level=None, check_same_thread=False, cached_statements=64
    )
    connection.execute("PRAGMA journal_mode = WAL")
    connection.execute("PRAGMA synchronous = FULL")
    # Debian builds SQLite to overwrite what is deleted, which doubles the cost of a removal.
    connection.execute("PRAGMA secure_delete = OFF")
    connection.execute("PRAGMA cache_size = -16384")
    return connection


def as_queue_error(error: Exception) -> QueueError:
    """What the intake tells its caller for an error of SQLite or of the disk."""
    if isinstance(error, QueueError):
        return error
    code = getattr(error, "sqlite_errorcode", 0) & 0xFF
    is_full = code == sqlite3.SQLITE_FULL or (
        isinstance(error, OSError) and error.errno in (errno.ENOSPC, errno.EDQUOT)
    )
    return QueueError(f"{type(error).__name__}: {error}", is_full=is_full)


class Database:
    """The queue's file, for one thread at a time. Raises QueueError when it cannot be opened."""

    def __init__(self, directory: str, connect: Connect = connect) -> None:
        self._path = f"{directory}/{FILE}"
        self._connect = connect
        self._connection: sqlite3.Connection | None = None
        self._lock_fd = os.open(f"{directory}/{LOCK}", _CREATE, 0o600)
        try:
            self._create()
            self.transact([_prepare])
        except BaseException:
            self.close()
            raise

    def _create(self) -> None:
        """Make the file here and not by SQLite, so that its mode does not hang on the umask; SQLite
        gives the log and the index the same mode.

        A file that is there is never opened here: closing it would take away the POSIX locks of
        all of this process's connections, and another process would delete the log under them.
        """
        fcntl.flock(self._lock_fd, fcntl.LOCK_EX)
        try:
            if not os.path.lexists(self._path):
                os.close(os.open(self._path, _CREATE | os.O_EXCL, 0o600))
        finally:
            fcntl.flock(self._lock_fd, fcntl.LOCK_UN)

    def transact(self, works: Sequence[Work]) -> list[object]:
        """Run `works` in one transaction; when it returns, all of it is on disk for good.

        Raises what a work raised, or QueueError for the database; nothing is kept then.
        """
        with self.turn():
            return self.transact_in_turn(works)

    @contextmanager
    def turn(self) -> Iterator[None]:
        """Our turn among the processes that write: `transact_in_turn` may be called, also again.

        Waiting for it takes as long as another's commit, so gather what to write after it.
        """
        fcntl.flock(self._lock_fd, fcntl.LOCK_EX)
        try:
            yield
        finally:
            fcntl.flock(self._lock_fd, fcntl.LOCK_UN)

    def transact_in_turn(self, works: Sequence[Work]) -> list[object]:
        """`transact` for whoever has the turn already."""
        try:
            connection = self.connection
            connection.execute("BEGIN IMMEDIATE")
            try:
                results = [work(connection) for work in works]
                connection.execute("COMMIT")
            except BaseException:
                if connection.in_transaction:
                    connection.execute("ROLLBACK")
                raise
        except (sqlite3.IntegrityError, sqlite3.ProgrammingError):
            raise
        except sqlite3.Error as error:
            self._give_up()
            raise as_queue_error(error) from error
        return results

    def perform(self, work: Callable[[sqlite3.Connection], _T]) -> _T:
        """`transact` with a single work."""
        result: _T = self.transact([work])[0]  # type: ignore[assignment]
        return result

    def read(self, work: Callable[[sqlite3.Connection], _T]) -> _T:
        """Run `work` as a reader. Raises QueueError."""
        try:
            return work(self.connection)
        except sqlite3.Error as error:
            self._give_up()
            raise as_queue_error(error) from error

    @property
    def connection(self) -> sqlite3.Connection:
        if self._connection is None:
            self._connection = self._connect(self._path)
        return self._connection

    def close(self) -> None:
        self._give_up()
        if self._lock_fd >= 0:
            os.close(self._lock_fd)
            self._lock_fd = -1

    def _give_up(self) -> None:
        connection, self._connection = self._connection, None
        if connection is not None:
            try:
                connection.close()
            except sqlite3.Error:
                pass  # it is being given up because of an error already


def _prepare(connection: sqlite3.Connection) -> None:
    """Make the tables in a new file; refuse a file that is not ours."""
    version = connection.execute("PRAGMA user_version").fetchone()[0]
    application = connection.execute("PRAGMA application_id").fetchone()[0]
    if version == VERSION and application == APPLICATION_ID:
        return
    if version or application or connection.execute("SELECT count(*) FROM sqlite_schema").fetchone()[0]:
        raise QueueError(
            f"the queue database is of version {version}, this popgate reads version {VERSION}:"
            " upgrade popgate, or move the queue directory away to begin with an empty queue"
        )
    for statement in _SCHEMA.split(";"):
        connection.execute(statement)
    connection.execute(f"PRAGMA application_id = {APPLICATION_ID}")
    connection.execute(f"PRAGMA user_version = {VERSION}")
