"""From the configuration to the back ends that it names: the only place that chooses.

Server and command line build the same things here. Each function makes one thing and
leaves closing it to the caller; nothing here starts a task or a thread.
"""

import os
import pwd

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
from popgate.auth.recipients import Recipients
from popgate.auth.verified import VerifiedPasswords
from popgate.auth.workers import Workers
from popgate.config import Config
from popgate.files.disk import Disk
from popgate.files.real import RealDisk
from popgate.grants.service import Grants
from popgate.grants.store import GrantStore, StoreError
from popgate.grants.stores.directory import DirectoryStore
from popgate.grants.stores.memory import MemoryStore
from popgate.mailbox.backends.maildir import MaildirMailboxes
from popgate.queue.queue import QueueError
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
    "QueueError",
    "StoreError",
    "account_database",
    "authenticator",
    "grant_store",
    "grants",
    "mailboxes",
    "recipients",
]


def grant_store(config: Config) -> GrantStore:
    """The store of [grants] store. Raises StoreError when the directory cannot be opened."""
    directory = config.grant_directory
    if directory is None:
        return MemoryStore()
    _make_data_dir(config)
    return DirectoryStore(directory, _server_uids(config))


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


def account_database(config: Config) -> AccountDatabase:
    """The accounts in data_dir, made when missing. Raises AccountStoreError."""
    _make_data_dir(config)
    return AccountDatabase(config.accounts_file)


def authenticator(config: Config, clock: Clock, database: AccountDatabase, workers: Workers) -> Authenticator:
    """What [auth] backends names, asked in that order."""
    return AccountLogins(
        database,
        VerifiedPasswords(clock, config.auth.cache_seconds),
        workers,
        default_domain=config.local_domains[0] if config.local_domains else "",
        apop=config.auth.apop,
    )


def recipients(config: Config, database: AccountDatabase) -> Recipients:
    """Who gets mail here: the accounts and aliases of every back end that can list them."""
    postmaster = Identity.parse(config.postmaster) if config.postmaster else None
    return Recipients([database], config.local_domains, postmaster)


def mailboxes(config: Config, clock: Clock, emit: EventSink, disk: Disk | None = None) -> MaildirMailboxes:
    """The Maildirs below data_dir; makes their directory. Raises OSError."""
    _make_data_dir(config)
    os.makedirs(config.mail_directory, 0o700, exist_ok=True)
    return MaildirMailboxes(config.mail_directory, disk or RealDisk(), clock, config.hostname, emit)


def _make_data_dir(config: Config) -> None:
    os.makedirs(config.data_dir, 0o700, exist_ok=True)


def _server_uids(config: Config) -> frozenset[int]:
    """Whose grant files count beside root's and our own: those of the server's user."""
    try:
        return frozenset((pwd.getpwnam(config.user).pw_uid,)) if config.user else frozenset()
    except KeyError:
        return frozenset()
