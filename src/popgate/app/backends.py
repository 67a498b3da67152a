"""From the configuration to the back ends that it names: the only place that chooses.

Server and command line build the same things here. Each function makes one thing and
leaves closing it to the caller.
"""

import os
import pwd
import resource
from collections.abc import Callable, Sequence

from popgate.auth.addressbook import AddressBook
from popgate.auth.authenticator import Authenticator
from popgate.auth.backends.account_logins import AccountLogins
from popgate.auth.backends.accounts import (
    Account,
    AccountDatabase,
    AccountError,
    AccountExists,
    AccountStoreError,
    AccountUnknown,
    Alias,
)
from popgate.auth.backends.checkpassword import CheckpasswordLogins, CommandError
from popgate.auth.backends.passwd_file import PasswdFile, PasswdFileError, PasswdFileLogins
from popgate.auth.chain import Chain
from popgate.auth.recipients import Recipients
from popgate.auth.verified import VerifiedPasswords
from popgate.auth.workers import Workers
from popgate.config import Config
from popgate.files.disk import Disk
from popgate.files.real import RealDisk
from popgate.grants.history import History
from popgate.grants.service import Grants
from popgate.grants.store import GrantStore, StoreError
from popgate.grants.stores.directory import DirectoryStore
from popgate.grants.stores.memory import MemoryStore
from popgate.mailbox.backends.maildir import MaildirMailboxes
from popgate.mailbox.backends.maildir_accounts import MaildirAccounts
from popgate.mailbox.folders import ChangeNotices
from popgate.queue.admin import QueueAdmin
from popgate.queue.database import FILE as QUEUE_FILE
from popgate.queue.queue import QueueError
from popgate.queue.store import SqliteQueue
from popgate.servers.settings import ListenerSettings
from popgate.values.address import ClientAddress
from popgate.values.clock import Clock
from popgate.values.event import EventSink
from popgate.values.identity import Identity

__all__ = [
    "Account",
    "AccountDatabase",
    "AccountError",
    "AccountExists",
    "AccountStoreError",
    "AccountUnknown",
    "Alias",
    "BackendError",
    "QueueError",
    "StoreError",
    "account_database",
    "authenticator",
    "folders",
    "grant_store",
    "grants",
    "history",
    "listener_key",
    "mailboxes",
    "most_kept_maildirs",
    "queue",
    "queue_admin",
    "recipients",
    "smarthost_password",
]


def grant_store(config: Config) -> GrantStore:
    """The store of [grants] store. Raises StoreError when the directory cannot be opened."""
    directory = config.grant_directory
    if directory is None:
        return MemoryStore()
    _make_data_dir(config)
    return DirectoryStore(
        directory,
        _server_uids(config),
        file_mode=_grant_file_mode(directory),
        counts_all_where_closed=True,
    )


def _grant_file_mode(directory: str) -> int:
    """A directory that other users may search is shared with relay-ctrl's programs, which run as the SMTP
    server's user and as those who log in."""
    try:
        return 0o644 if os.stat(directory).st_mode & 0o001 else 0o600
    except OSError:
        return 0o600  # it is made now, for the server alone


def grants(
    config: Config,
    clock: Clock,
    emit: EventSink,
    *,
    store: GrantStore | None = None,
    own_addresses: frozenset[ClientAddress] = frozenset(),
) -> Grants:
    """The grants service over `store`, or over a new grant_store(config)."""
    return Grants(
        grant_store(config) if store is None else store,
        config.grants,
        clock,
        emit,
        own_addresses,
        local_domains=frozenset(config.local_domains),
    )


def history(config: Config) -> History:
    """The kept history of grants: an event sink. Whoever uses it calls its `flush` every second
    or so, and `close` at the end."""
    _make_data_dir(config)
    return History(config.history_directory, max_file_bytes=config.log.history_bytes)


def account_database(config: Config) -> AccountDatabase:
    """The accounts in data_dir, made when missing. Raises AccountStoreError."""
    _make_data_dir(config)
    return AccountDatabase(config.accounts_file)


def authenticator(config: Config, accounts: AccountDatabase, clock: Clock, emit: EventSink) -> Authenticator:
    """What [auth] backends names, asked in that order. Make it in the process that uses it; its
    `close` ends its threads. Raises BackendError for a file or program that cannot be used."""
    hashing = Workers(max(1, len(os.sched_getaffinity(0)) // config.worker_count))
    domain = _default_domain(config)
    apop = config.auth.apop
    workers = [hashing]
    chosen: list[Authenticator] = []
    for kind, argument in config.auth_backends():
        # one memory each, because a name may stand for different people in two back ends
        verified = VerifiedPasswords(clock, config.auth.cache_seconds)
        try:
            if kind == "accounts":
                chosen.append(AccountLogins(accounts, verified, hashing, default_domain=domain, apop=apop))
            elif kind == "passwd_file":
                file = PasswdFile(argument, clock, emit, domain)
                chosen.append(PasswdFileLogins(file, verified, hashing, default_domain=domain, apop=apop))
            elif kind == "checkpassword":
                programs = Workers(_MOST_PROGRAMS, name="checkpassword")
                workers.append(programs)
                # the program alone knows when an account changes, so nothing is remembered
                unremembered = VerifiedPasswords(clock, 0)
                chosen.append(
                    CheckpasswordLogins(argument, unremembered, programs, default_domain=domain, apop=apop)
                )
            else:
                raise BackendError(f"auth.backends: {kind!r} is no way to check logins")
        except (PasswdFileError, CommandError) as error:
            raise BackendError(f"auth.backends: {error}") from error
    return _Logins(chosen, workers)


_MOST_PROGRAMS = 16
"""checkpassword programs of one worker at the same time."""


class BackendError(Exception):
    """A back end that the configuration names cannot be used; the text says which and why."""


class _Logins(Chain):
    """The chain, with the threads that its back ends share."""

    def __init__(self, backends: Sequence[Authenticator], workers: Sequence[Workers]) -> None:
        super().__init__(backends)
        self._workers = tuple(workers)

    def close(self) -> None:
        super().close()
        for workers in self._workers:
            workers.close()


def recipients(config: Config, accounts: AccountDatabase, clock: Clock) -> Recipients:
    """Who gets mail here: the accounts and aliases, and the users of every passwd_file. A
    checkpassword program cannot say whom it knows, so its users need accounts or aliases.
    Raises BackendError."""
    books: list[AddressBook] = []
    for kind, argument in config.auth_backends():
        if kind == "accounts":
            books.append(accounts)
        elif kind == "passwd_file":
            try:
                # what is wrong with its lines is told by the authenticator's reading
                books.append(PasswdFile(argument, clock, lambda event: None, _default_domain(config)))
            except PasswdFileError as error:
                raise BackendError(f"auth.backends: {error}") from error
    if accounts not in books:
        books.append(accounts)  # aliases are there whoever checks logins
    postmaster = Identity.parse(config.postmaster) if config.postmaster else None
    return Recipients(books, config.local_domains, postmaster)


def queue(
    config: Config, clock: Clock, emit: EventSink, *, accepted: Callable[[], None] | None = None
) -> SqliteQueue:
    """The durable queue below data_dir. Make it after a fork. Raises QueueError."""
    _make_data_dir(config)
    return SqliteQueue(config.queue_directory, RealDisk(), clock, emit, accepted=accepted)


def queue_admin(config: Config, clock: Clock) -> QueueAdmin | None:
    """The queue as an administrator sees it, None where no server has made one yet. Raises QueueError."""
    if not os.path.exists(os.path.join(config.queue_directory, QUEUE_FILE)):
        return None
    return QueueAdmin(config.queue_directory, RealDisk(), clock)


def mailboxes(
    config: Config, clock: Clock, emit: EventSink, disk: Disk | None = None, *, most_kept: int = 0
) -> MaildirMailboxes:
    """The Maildirs below data_dir, `most_kept` of them open between sessions; makes their directory.
    Raises OSError."""
    _make_data_dir(config)
    os.makedirs(config.mail_directory, 0o700, exist_ok=True)
    return MaildirMailboxes(
        config.mail_directory, disk or RealDisk(), clock, config.hostname, emit, most_kept=most_kept
    )


def folders(
    config: Config, clock: Clock, emit: EventSink, notices: ChangeNotices | None = None
) -> MaildirAccounts:
    """The folders of the same Maildirs, as IMAP serves them; makes their directory. Raises OSError."""
    _make_data_dir(config)
    os.makedirs(config.mail_directory, 0o700, exist_ok=True)
    return MaildirAccounts(config.mail_directory, RealDisk(), clock, config.hostname, emit, notices)


def most_kept_maildirs() -> int:
    """How many a process that serves POP3 keeps open, at two descriptors each: a sixteenth of what it
    may have at most, for a descriptor that waits must not be the one that a connection lacks."""
    soft, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
    return _MOST_KEPT if soft == resource.RLIM_INFINITY else min(_MOST_KEPT, soft // 32)


_MOST_KEPT = 4096  # some 4 KB each, most of it in the kernel


def smarthost_password(config: Config) -> str:
    """The first line of [delivery] password_file, "" where none is named. Raises OSError."""
    if not config.delivery.password_file:
        return ""
    with open(config.path(config.delivery.password_file), encoding="utf-8") as file:
        return file.readline().rstrip("\r\n")


def listener_key(settings: ListenerSettings) -> bytes | None:
    """What is in a listener's key_file or secret_file, without a line end; None where none is named.
    Raises OSError."""
    name = settings.key_file or settings.secret_file
    if not name:
        return None
    with open(name, "rb") as file:
        return file.read(_KEY_OCTETS).strip()


_KEY_OCTETS = 4096  # as relay-ctrl-send reads them


def _make_data_dir(config: Config) -> None:
    os.makedirs(config.data_dir, 0o700, exist_ok=True)


def _server_uids(config: Config) -> frozenset[int]:
    """Whose grant files count beside root's and our own: those of the server's user."""
    try:
        return frozenset((pwd.getpwnam(config.user).pw_uid,)) if config.user else frozenset()
    except KeyError:
        return frozenset()


def _default_domain(config: Config) -> str:
    """Where a login name without a domain belongs."""
    return config.local_domains[0] if config.local_domains else ""
