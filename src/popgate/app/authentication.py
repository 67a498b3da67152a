"""What [auth] backends names, as one Authenticator, and who gets mail here."""

from popgate.app import backends
from popgate.auth.addressbook import AddressBook
from popgate.auth.authenticator import Authenticator
from popgate.auth.backends.account_logins import AccountLogins
from popgate.auth.backends.accounts import AccountDatabase
from popgate.auth.backends.checkpassword import CheckpasswordLogins
from popgate.auth.backends.passwd_file import PasswdFile, PasswdFileLogins
from popgate.auth.chain import Chain
from popgate.auth.recipients import Recipients
from popgate.auth.verified import VerifiedPasswords
from popgate.auth.workers import Workers
from popgate.config import Config
from popgate.values.clock import Clock
from popgate.values.event import EventSink
from popgate.values.identity import Identity

_PROGRAMS = 8
"""checkpassword programs at work at the same time, in one process."""


class Authentication:
    """The back ends of one process, open. `authenticator` checks logins; `recipients` knows the
    names of those back ends that can list them (a checkpassword program cannot)."""

    def __init__(self, config: Config, clock: Clock, emit: EventSink) -> None:
        """Raises AccountStoreError, PasswdFileError or CommandError."""
        self._workers = Workers()
        self._programs = Workers(_PROGRAMS, name="checkpassword")
        self._databases: list[AccountDatabase] = []
        domain = config.local_domains[0] if config.local_domains else ""
        logins: list[Authenticator] = []
        books: list[AddressBook] = []
        for kind, argument in config.auth_backends():
            verified = VerifiedPasswords(clock, config.auth.cache_seconds)
            if kind == "accounts":
                database = backends.account_database(config)
                self._databases.append(database)
                books.append(database)
                logins.append(
                    AccountLogins(
                        database, verified, self._workers, default_domain=domain, apop=config.auth.apop
                    )
                )
            elif kind == "passwd_file":
                file = PasswdFile(argument, clock, emit, domain)
                books.append(file)
                logins.append(
                    PasswdFileLogins(
                        file, verified, self._workers, default_domain=domain, apop=config.auth.apop
                    )
                )
            else:
                # the program alone knows when an account changes, so nothing is remembered
                forgetful = VerifiedPasswords(clock, 0)
                logins.append(
                    CheckpasswordLogins(
                        argument, forgetful, self._programs, default_domain=domain, apop=config.auth.apop
                    )
                )
        self.authenticator: Authenticator = logins[0] if len(logins) == 1 else Chain(logins)
        if not self._databases:
            # aliases and mailboxes of programs' users are still looked up in the accounts database
            database = backends.account_database(config)
            self._databases.append(database)
            books.append(database)
        postmaster = Identity.parse(config.postmaster) if config.postmaster else None
        self.recipients = Recipients(books, config.local_domains, postmaster)

    def close(self) -> None:
        self.authenticator.close()
        for database in self._databases:
            database.close()
        self._workers.close()
        self._programs.close()
