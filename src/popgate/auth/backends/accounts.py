"""The account database: who may log in here, what their grants are good for, and aliases.

One SQLite file in write-ahead mode. Many processes use it at once: servers look one row up by its
primary key for each login and each recipient (account_reader), so a change counts from the next
login on and nobody needs to be told; the command line writes, in transactions that are on disk
when the call returns. Secrets that must be recoverable (APOP, CRAM-MD5) stand in a table of their own,
so that an ordinary login never touches them; the file is its owner's alone.

This module knows neither protocols nor how a login is decided; see popgate.auth.logins.
"""

import contextlib
import errno
import os
import sqlite3
import stat
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any
from urllib.parse import quote

from popgate.auth.account import (
    Account,
    AccountError,
    AccountExists,
    AccountStoreError,
    AccountUnknown,
    Alias,
    BadName,
    BadPassword,
    account_identity,
    alias_target,
    checked_password,
    checked_terms,
)
from popgate.auth.addressbook import Listing
from popgate.auth.authenticator import LookupUnavailable
from popgate.auth.backends.account_reader import ACCOUNTS, AccountReader, file_at, read_account, read_address
from popgate.auth.hashing import DUMMY_HASH, hash_password, is_outdated, is_password
from popgate.auth.logins import Credentials, RecoverableCredentials
from popgate.grants.grant import DEFAULT_TERMS, Terms
from popgate.values.identity import Identity
from popgate.values.mail import MailAddress

__all__ = [
    "AccountDatabase",
    "Account",
    "Alias",
    "AccountError",
    "AccountExists",
    "AccountStoreError",
    "AccountUnknown",
    "BadName",
    "BadPassword",
]

# One step a version: MIGRATIONS[n] takes the file from user_version n to n + 1.
MIGRATIONS: tuple[tuple[str, ...], ...] = (
    (
        """CREATE TABLE accounts (
            address TEXT PRIMARY KEY,
            password TEXT NOT NULL,
            is_enabled INTEGER NOT NULL,
            is_device INTEGER NOT NULL,
            window_seconds INTEGER,
            max_age_seconds INTEGER,
            quota_messages INTEGER NOT NULL,
            quota_recipients INTEGER NOT NULL,
            quota_bytes INTEGER NOT NULL,
            senders TEXT NOT NULL,
            created_at REAL NOT NULL,
            changed_at REAL NOT NULL
        ) WITHOUT ROWID""",
        """CREATE TABLE secrets (
            address TEXT PRIMARY KEY REFERENCES accounts (address) ON DELETE CASCADE,
            secret BLOB NOT NULL
        ) WITHOUT ROWID""",
        """CREATE TABLE aliases (
            address TEXT NOT NULL,
            position INTEGER NOT NULL,
            target TEXT NOT NULL,
            PRIMARY KEY (address, position)
        ) WITHOUT ROWID""",
    ),
)

MAX_TARGETS = 500
_WRITE_WAIT_SECONDS = 10.0
_READ_WAIT_SECONDS = 0.25  # on the event loop's thread: never long; a reader in WAL mode hardly ever waits


class AccountDatabase:
    """The accounts and aliases in the SQLite file at `path`, which is made when it is missing.

    Methods that people's commands call raise AccountError; `credentials`, `recoverable` and
    `listing`, which servers call, raise LookupUnavailable. Writing methods block until the
    change is on disk. Reading ones belong to one thread (the event loop's); all open their
    connection at first use, so a process may fork between making the object and using it. A file
    that somebody puts in this one's place is used from the next second on.
    """

    def __init__(
        self,
        path: str,
        now: Callable[[], float] = time.time,
        monotonic: Callable[[], float] = time.monotonic,
    ) -> None:
        """Create or migrate the file. Raises AccountStoreError."""
        self._path = path
        self._now = now
        self._reader = AccountReader(path, self._connect_reader, monotonic)
        self._writer: sqlite3.Connection | None = None
        self._writer_file: object = None
        self._write_lock = threading.Lock()
        try:
            _make_private(path)
            with contextlib.closing(self._connect(_WRITE_WAIT_SECONDS)) as connection:
                connection.execute("PRAGMA journal_mode = WAL")
                _migrate(connection, path)
        except (sqlite3.Error, OSError) as error:
            raise AccountStoreError(f"{path}: {error}") from error

    def close(self) -> None:
        self._reader.close()
        if self._writer is not None:
            self._writer.close()
            self._writer = None

    # For servers: a row by its primary key.

    def credentials(self, identity: Identity) -> Credentials | None:
        """The account's hash and terms as they are now, or None. Raises LookupUnavailable."""
        return self._reader.credentials(identity)

    def recoverable(self, identity: Identity) -> RecoverableCredentials | None:
        """The same with the recoverable secret in place of the hash. Raises LookupUnavailable."""
        return self._reader.recoverable(identity)

    def listing(self, identity: Identity) -> Listing | None:
        """What mail to this name does; see AddressBook."""
        return self._reader.listing(identity)

    def has_account(self, identity: Identity) -> bool:
        """Is there an enabled account of this name? Raises LookupUnavailable."""
        account = self._reader.credentials(identity)
        return account is not None and account.is_enabled

    def sender_owners(self, sender: str) -> Sequence[str]:
        """The enabled accounts whose terms list exactly `sender`. Raises LookupUnavailable."""
        return self._reader.sender_owners(sender)

    def verify(self, identity: Identity, stored: str, password: bytes) -> str | None:
        """See CredentialSource; brings a hash of older parameters up to date. From any thread."""
        if not is_password(stored, password):
            return None
        if is_outdated(stored):
            fresh = hash_password(password)
            try:
                if self._replace_hash(identity, stored, fresh):
                    return fresh
            except AccountError:
                pass  # the login is right all the same; the next one tries again
        return stored

    def burn(self, password: bytes) -> None:
        is_password(DUMMY_HASH, password)

    # For people: accounts.

    def add(
        self, address: str, password: str, *, terms: Terms = DEFAULT_TERMS, is_recoverable: bool = False
    ) -> Account:
        """A new, enabled account. Raises BadName, BadPassword, AccountExists, AccountStoreError."""
        identity = account_identity(address)
        secret = checked_password(password)
        terms = checked_terms(terms)
        stored = hash_password(secret)
        now = self._now()
        with self._writing() as connection:
            name = str(identity)
            if _one(connection, "SELECT 1 FROM accounts WHERE address = ?", name):
                raise AccountExists(f"there is an account {name} already")
            if not terms.is_device and _one(connection, "SELECT 1 FROM aliases WHERE address = ?", name):
                raise AccountExists(f"{name} is an alias; remove the alias first, or add a device account")
            connection.execute(
                "INSERT INTO accounts VALUES (:address, :password, 1, :is_device, :window_seconds,"
                " :max_age_seconds, :quota_messages, :quota_recipients, :quota_bytes, :senders, :now, :now)",
                {"address": name, "password": stored, "now": now, **_terms_row(terms)},
            )
            if is_recoverable:
                connection.execute("INSERT INTO secrets VALUES (?, ?)", (name, secret))
        return Account(identity, True, is_recoverable, terms, now, now)

    def get(self, address: str) -> Account:
        """Raises BadName, AccountUnknown, AccountStoreError."""
        identity = account_identity(address)
        try:
            account = self._reader.account(identity)
        except LookupUnavailable as error:
            raise AccountStoreError(f"{self._path}: {error}") from error
        if account is None:
            raise AccountUnknown(f"there is no account {identity}")
        return account

    def list(self) -> Sequence[Account]:
        """All accounts, by address. Raises AccountStoreError."""
        return [read_account(row) for row in self._query(ACCOUNTS + " ORDER BY a.address")]

    def set_password(self, address: str, password: str, *, is_recoverable: bool | None = None) -> None:
        """Change the password. `is_recoverable` None keeps a recoverable secret where there was one,
        True begins to keep one, False forgets it. Raises as `add`, and AccountUnknown."""
        identity = account_identity(address)
        secret = checked_password(password)
        stored = hash_password(secret)
        with self._writing() as connection:
            name = str(identity)
            self._change(connection, identity, "password = :password", {"password": stored})
            if is_recoverable is None:
                connection.execute("UPDATE secrets SET secret = ? WHERE address = ?", (secret, name))
            elif is_recoverable:
                connection.execute("INSERT OR REPLACE INTO secrets VALUES (?, ?)", (name, secret))
            else:
                connection.execute("DELETE FROM secrets WHERE address = ?", (name,))

    def enable(self, address: str) -> None:
        """Let the account log in again. Raises BadName, AccountUnknown, AccountStoreError."""
        self._set_enabled(address, 1)

    def disable(self, address: str) -> None:
        """No login from now on; its mail is still kept. Raises as `enable`.

        Grants that the account holds already are not touched: revoke them with the grants service.
        """
        self._set_enabled(address, 0)

    def _set_enabled(self, address: str, is_enabled: int) -> None:
        identity = account_identity(address)
        with self._writing() as connection:
            self._change(connection, identity, "is_enabled = :is_enabled", {"is_enabled": is_enabled})

    def set_terms(self, address: str, terms: Terms) -> None:
        """Replace the terms whole. Raises BadName, AccountUnknown, AccountExists, AccountStoreError."""
        identity = account_identity(address)
        terms = checked_terms(terms)
        with self._writing() as connection:
            columns = _terms_row(terms)
            if not terms.is_device:
                self._refuse_hidden_mailbox(connection, identity, None)
            self._change(
                connection, identity, ", ".join(f"{column} = :{column}" for column in columns), columns
            )

    def remove(self, address: str) -> None:
        """Forget the account and its secret; its mailbox is not touched, and neither are aliases that
        lead to it. Raises as `enable`."""
        identity = account_identity(address)
        with self._writing() as connection:
            done = connection.execute("DELETE FROM accounts WHERE address = ?", (str(identity),))
            if done.rowcount != 1:
                raise AccountUnknown(f"there is no account {identity}")

    def _replace_hash(self, identity: Identity, old: str, new: str) -> bool:
        # Unless the password was changed meanwhile.
        with self._writing() as connection:
            done = connection.execute(
                "UPDATE accounts SET password = ? WHERE address = ? AND password = ?",
                (new, str(identity), old),
            )
            return done.rowcount == 1

    # For people: aliases.

    def add_alias(self, address: str, targets: Sequence[str]) -> Alias:
        """Mail to `address` goes to `targets`: addresses here or anywhere.

        An account with a mailbox may have an alias too, but must be among its targets.
        Raises BadName, AccountExists, AccountStoreError.
        """
        identity = account_identity(address)
        wanted = tuple(dict.fromkeys(alias_target(target) for target in targets))
        if not wanted:
            raise BadName(f"the alias {identity} needs at least one target")
        if len(wanted) > MAX_TARGETS:
            raise BadName(f"an alias has at most {MAX_TARGETS} targets; let it lead to further aliases")
        with self._writing() as connection:
            if _one(connection, "SELECT 1 FROM aliases WHERE address = ?", str(identity)):
                raise AccountExists(f"there is an alias {identity} already; remove it first to change it")
            self._refuse_hidden_mailbox(connection, identity, wanted)
            connection.executemany(
                "INSERT INTO aliases VALUES (?, ?, ?)",
                [(str(identity), position, str(target)) for position, target in enumerate(wanted)],
            )
        return Alias(identity, wanted)

    def remove_alias(self, address: str) -> None:
        """Raises BadName, AccountUnknown, AccountStoreError."""
        identity = account_identity(address)
        with self._writing() as connection:
            if not connection.execute("DELETE FROM aliases WHERE address = ?", (str(identity),)).rowcount:
                raise AccountUnknown(f"there is no alias {identity}")

    def list_aliases(self) -> Sequence[Alias]:
        """All aliases, by address. Raises AccountStoreError."""
        found: dict[str, list[MailAddress]] = {}
        for address, target in self._query("SELECT address, target FROM aliases ORDER BY address, position"):
            found.setdefault(address, []).append(read_address(target))
        return [Alias(Identity.parse(address), tuple(targets)) for address, targets in found.items()]

    def _refuse_hidden_mailbox(
        self, connection: sqlite3.Connection, identity: Identity, targets: Sequence[MailAddress] | None
    ) -> None:
        # An alias beside an account with a mailbox hides that mailbox unless it is among the targets.
        name = str(identity)
        if targets is None:
            rows = connection.execute("SELECT target FROM aliases WHERE address = ?", (name,)).fetchall()
            if not rows:
                return
            targets = [read_address(row[0]) for row in rows]
        elif not _one(connection, "SELECT 1 FROM accounts WHERE address = ? AND NOT is_device", name):
            return
        if not any(str(target).lower() == name for target in targets):
            raise AccountExists(
                f"{name} is an account with a mailbox, which an alias of the same name would hide;"
                f" put {name} among the targets to keep a copy there"
            )

    # Connections.

    def _connect(self, wait_seconds: float) -> sqlite3.Connection:
        # mode=rw: a file that somebody moved away is an error, not a new empty database.
        connection = sqlite3.connect(
            f"file:{quote(os.path.abspath(self._path))}?mode=rw",
            uri=True,
            timeout=wait_seconds,
            isolation_level=None,
            check_same_thread=False,
        )
        try:
            connection.execute("PRAGMA synchronous = FULL")
            connection.execute("PRAGMA foreign_keys = ON")
            connection.execute("PRAGMA secure_delete = ON")  # a removed secret leaves no bytes behind
        except BaseException:
            connection.close()
            raise
        return connection

    def _connect_reader(self) -> sqlite3.Connection:
        connection = self._connect(_READ_WAIT_SECONDS)
        connection.execute("PRAGMA query_only = ON")
        return connection

    def _query(self, query: str, *arguments: str) -> Sequence[Any]:
        try:
            return self._reader.query(query, *arguments)
        except sqlite3.Error as error:
            raise AccountStoreError(f"{self._path}: {error}") from error

    @contextlib.contextmanager
    def _writing(self) -> Iterator[sqlite3.Connection]:
        with self._write_lock:
            try:
                connection = self._open_writer()
                connection.execute("BEGIN IMMEDIATE")
                try:
                    yield connection
                    connection.execute("COMMIT")
                except BaseException:
                    if connection.in_transaction:
                        connection.execute("ROLLBACK")
                    raise
            except sqlite3.Error as error:
                raise AccountStoreError(f"{self._path}: {error}") from error

    def _open_writer(self) -> sqlite3.Connection:
        file = file_at(self._path)
        if self._writer is not None and self._writer_file != file:
            self._writer.close()
            self._writer = None
        if self._writer is None:
            self._writer_file = file
            self._writer = self._connect(_WRITE_WAIT_SECONDS)
        return self._writer

    def _change(
        self, connection: sqlite3.Connection, identity: Identity, columns: str, values: Mapping[str, object]
    ) -> None:
        done = connection.execute(
            f"UPDATE accounts SET {columns}, changed_at = :now WHERE address = :address",  # noqa: S608 - our column names
            {**values, "now": self._now(), "address": str(identity)},
        )
        if done.rowcount != 1:
            raise AccountUnknown(f"there is no account {identity}")


def _terms_row(terms: Terms) -> dict[str, object]:
    return {
        "is_device": int(terms.is_device),
        "window_seconds": terms.window_seconds,
        "max_age_seconds": terms.max_age_seconds,
        "quota_messages": terms.quota_messages,
        "quota_recipients": terms.quota_recipients,
        "quota_bytes": terms.quota_bytes,
        "senders": " ".join(terms.senders),
    }


def _one(connection: sqlite3.Connection, query: str, *arguments: str) -> bool:
    return connection.execute(query, arguments).fetchone() is not None


def _make_private(path: str) -> None:
    """Make the file before SQLite does, for its owner alone; SQLite gives the same mode to the
    files that it puts beside it."""
    try:
        fd = os.open(path, os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600)
    except FileExistsError:
        _keep_private(path)
        return
    try:
        if os.geteuid() == 0:
            # Root makes it for the user who owns the directory, the one that the server runs as.
            owner = os.stat(os.path.dirname(os.path.abspath(path)))
            os.fchown(fd, owner.st_uid, owner.st_gid)
    finally:
        os.close(fd)


def _keep_private(path: str) -> None:
    # Opened only where its mode is wrong: to close a descriptor gives up the locks that a connection of
    # this process may have on the file; see wal_index.
    status = os.lstat(path)
    if stat.S_ISLNK(status.st_mode):
        raise OSError(errno.ELOOP, os.strerror(errno.ELOOP), path)
    if not status.st_mode & 0o077 or status.st_uid != os.geteuid():
        return
    fd = os.open(path, os.O_RDWR | os.O_NOFOLLOW | os.O_CLOEXEC)
    try:
        os.fchmod(fd, 0o600)
    finally:
        os.close(fd)


def _migrate(connection: sqlite3.Connection, path: str) -> None:
    # A commit, be it of nothing, has every server read its accounts again.
    if connection.execute("PRAGMA user_version").fetchone()[0] == len(MIGRATIONS):
        return
    connection.execute("BEGIN IMMEDIATE")
    try:
        version = connection.execute("PRAGMA user_version").fetchone()[0]
        if version > len(MIGRATIONS):
            raise AccountStoreError(
                f"{path} was written by a newer popgate (schema {version}, this one knows {len(MIGRATIONS)})"
            )
        for step in MIGRATIONS[version:]:
            for statement in step:
                connection.execute(statement)
        connection.execute(f"PRAGMA user_version = {len(MIGRATIONS)}")
        connection.execute("COMMIT")
    except BaseException:
        if connection.in_transaction:
            connection.execute("ROLLBACK")
        raise
