"""What servers ask of the account database: rows by their primary key, for each login and recipient.

A row that was read is kept as long as nothing at all was committed to the database, by whatever
process and program; see wal_index. So a login of somebody who polls costs no read of SQLite, and a
changed, disabled or removed account still counts from the next login on. Only accounts and aliases
that exist are kept, so nobody fills the memory with names that he makes up, and never the
recoverable secrets.
"""

import os
import sqlite3
from collections.abc import Callable, Sequence
from typing import Any, Final, TypeVar

from popgate.auth.account import Account
from popgate.auth.addressbook import Listing
from popgate.auth.authenticator import LookupUnavailable
from popgate.auth.backends.wal_index import WalIndex
from popgate.auth.logins import Credentials, RecoverableCredentials
from popgate.grants.grant import Terms
from popgate.values.identity import Identity
from popgate.values.mail import MailAddress

_T = TypeVar("_T")

MOST_KEPT: Final = 20_000
LOOK_SECONDS: Final = 1.0
"""How often the names are looked at: does a file that somebody put back stand in the database's place?"""
_NO_VERSION: Final = -1
_UNKNOWN: tuple[object, object] = ("", "")  # equal to no two files

ACCOUNTS: Final = (
    "SELECT a.address, a.is_enabled, a.is_device, a.window_seconds, a.max_age_seconds, a.quota_messages,"
    " a.quota_recipients, a.quota_bytes, a.senders, a.created_at, a.changed_at,"
    " EXISTS (SELECT 1 FROM secrets s WHERE s.address = a.address) FROM accounts a"
)
_TERMS = (
    "a.window_seconds, a.max_age_seconds, a.quota_messages, a.quota_recipients, a.quota_bytes,"
    " a.senders, a.is_device"
)
_CREDENTIALS = "SELECT a.password, a.is_enabled, " + _TERMS + " FROM accounts a WHERE a.address = ?"  # noqa: S608 - constants
_SECRET = (
    "SELECT s.secret, a.is_enabled, " + _TERMS + " FROM accounts a"  # noqa: S608 - constants
    " LEFT JOIN secrets s ON s.address = a.address WHERE a.address = ?"
)
_SENDERS = "SELECT address, senders FROM accounts WHERE is_enabled AND senders != '' ORDER BY address"
# The account's row first, the alias's targets in their order behind it.
_LISTING = (
    "SELECT -1 AS position, is_device, NULL FROM accounts WHERE address = ?1"
    " UNION ALL SELECT position, 0, target FROM aliases WHERE address = ?1 ORDER BY position"
)


class AccountReader:
    """One process's readings of the database at `path`, through a connection that `connect` makes at
    first use, and makes again when another file stands at `path`. Belongs to one thread."""

    def __init__(
        self, path: str, connect: Callable[[], sqlite3.Connection], monotonic: Callable[[], float]
    ) -> None:
        self._path = path
        self._connect = connect
        self._monotonic = monotonic
        self._connection: sqlite3.Connection | None = None
        self._files = _UNKNOWN  # the database and its wal-index, as we opened them
        self._look_at = 0.0
        self._wal_index: WalIndex | None = None
        self._state: bytes | None = None
        self._credentials: dict[str, Credentials] = {}
        self._listings: dict[str, Listing] = {}
        self._accounts: dict[str, Account] = {}
        self._owners: dict[str, list[str]] = {}  # by sender; of when these two were as here:
        self._owners_state: bytes | None = None
        self._owners_version = _NO_VERSION

    def credentials(self, identity: Identity) -> Credentials | None:
        """The account's hash and terms as they are now, or None. Raises LookupUnavailable."""
        return self._kept(self._credentials, str(identity), self._read_credentials)

    def recoverable(self, identity: Identity) -> RecoverableCredentials | None:
        """The same with the recoverable secret in place of the hash. Raises LookupUnavailable."""
        row = self._row(_SECRET, str(identity))
        return None if row is None else RecoverableCredentials(row[0], row[1] == 1, read_terms(row[2:]))

    def listing(self, identity: Identity) -> Listing | None:
        """What mail to this name does; see AddressBook."""
        return self._kept(self._listings, str(identity), self._read_listing)

    def account(self, identity: Identity) -> Account | None:
        """The account as people see it, or None. Raises LookupUnavailable."""
        return self._kept(self._accounts, str(identity), self._read_account)

    def sender_owners(self, sender: str) -> Sequence[str]:
        """The enabled accounts whose terms list exactly `sender`. Reads them all when anything was changed.
        Raises LookupUnavailable."""
        state = self._state if self._is_keeping() else None
        if state is None or state != self._owners_state:
            self._read_owners()
            self._owners_state = state
        return self._owners.get(sender, ())

    def _read_owners(self) -> None:
        version = self._rows("PRAGMA data_version")[0][0]  # of this connection; another counts anew
        connection = self._connection
        if version != self._owners_version:
            owners: dict[str, list[str]] = {}
            for address, senders in self._rows(_SENDERS):
                for each in senders.split():
                    owners.setdefault(each, []).append(address)
            self._owners = owners
            self._owners_version = version if connection is self._connection else _NO_VERSION

    def query(self, query: str, *arguments: str) -> Sequence[Any]:
        """All rows of a SELECT. Raises sqlite3.Error."""
        if self._monotonic() >= self._look_at:
            self._look()
        if self._connection is not None:
            return self._connection.execute(query, arguments).fetchall()
        return self._open(query, arguments)

    def close(self) -> None:
        self._forget()
        self._wal_index = None  # before the connection: its descriptor ends there
        if self._connection is not None:
            self._connection.close()
            self._connection = None
        self._owners_state, self._owners_version = None, _NO_VERSION

    def _kept(self, kept: dict[str, _T], name: str, read: Callable[[str], _T | None]) -> _T | None:
        is_kept = self._is_keeping()
        if is_kept:
            found = kept.get(name)
            if found is not None:
                return found
        found = read(name)
        if is_kept and found is not None:
            if len(kept) >= MOST_KEPT:
                kept.clear()
            kept[name] = found
        return found

    def _read_credentials(self, name: str) -> Credentials | None:
        row = self._row(_CREDENTIALS, name)
        return None if row is None else Credentials(row[0], row[1] == 1, read_terms(row[2:]))

    def _read_account(self, name: str) -> Account | None:
        row = self._row(ACCOUNTS + " WHERE a.address = ?", name)
        return None if row is None else read_account(row)

    def _read_listing(self, name: str) -> Listing | None:
        rows = self._rows(_LISTING, name)
        if not rows:
            return None
        has_mailbox = rows[0][0] == -1 and not rows[0][1]
        return Listing(has_mailbox, tuple(read_address(row[2]) for row in rows if row[2] is not None))

    def _row(self, query: str, name: str) -> Sequence[Any] | None:
        rows = self._rows(query, name)
        return rows[0] if rows else None

    def _rows(self, query: str, *arguments: str) -> Sequence[Any]:
        try:
            return self.query(query, *arguments)
        except sqlite3.Error as error:
            raise LookupUnavailable(f"account database: {error}") from error

    def _is_keeping(self) -> bool:
        """Is what we keep that which a reading would find now, and may what we read now be kept?"""
        if self._monotonic() >= self._look_at:
            self._look()
        state = None if self._wal_index is None else self._wal_index.state()
        if state is None or state != self._state:
            self._forget()
            self._state = state
        return state is not None

    def _forget(self) -> None:
        self._state = None
        self._credentials.clear()
        self._listings.clear()
        self._accounts.clear()

    def _look(self) -> None:
        # SQLite goes on with the file that it opened, whatever became of its name.
        self._look_at = self._monotonic() + LOOK_SECONDS
        if self._connection is not None and self._files != _files(self._path):
            self.close()

    def _open(self, query: str, arguments: Sequence[str]) -> Sequence[Any]:
        before = file_at(self._path)
        connection = self._connect()
        try:
            # The first reading takes the locks that keep both files where they are.
            rows = connection.execute(query, arguments).fetchall()
            is_wal = connection.execute("PRAGMA journal_mode").fetchone() == ("wal",)
        except BaseException:
            connection.close()
            raise
        self._connection = connection
        self._wal_index = WalIndex.of(self._path) if is_wal else None
        files = _files(self._path)
        self._files = files if files[0] == before else _UNKNOWN
        return rows


def file_at(path: str) -> object:
    """Which file stands at `path`, to compare; None where none does."""
    try:
        status = os.stat(path)
    except OSError:
        return None
    return status.st_dev, status.st_ino


def read_terms(row: Sequence[Any]) -> Terms:
    """The terms, from the columns in the order of the queries here."""
    window_seconds, max_age_seconds, messages, recipients, octets, senders, is_device = row
    senders = tuple(senders.split()) if senders else ()
    return Terms(window_seconds, max_age_seconds, messages, recipients, octets, senders, is_device == 1)


def read_account(row: Sequence[Any]) -> Account:
    """The account, from a row of ACCOUNTS."""
    return Account(
        identity=Identity.parse(row[0]),
        is_enabled=row[1] == 1,
        is_recoverable=row[11] == 1,
        terms=read_terms((*row[3:9], row[2])),
        created_at=row[9],
        changed_at=row[10],
    )


def read_address(text: str) -> MailAddress:
    local, _, domain = text.rpartition("@")
    return MailAddress(local, domain)


def _files(path: str) -> tuple[object, object]:
    return file_at(path), file_at(f"{path}-shm")
