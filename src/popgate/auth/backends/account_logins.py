"""Logins against the account database: StoredLogins by its name in the settings, `accounts`."""

from popgate.auth.backends.accounts import AccountDatabase
from popgate.auth.logins import StoredLogins
from popgate.auth.verified import VerifiedPasswords
from popgate.auth.workers import Workers


class AccountLogins(StoredLogins):
    """The Authenticator over an AccountDatabase; see StoredLogins."""

    def __init__(
        self,
        database: AccountDatabase,
        verified: VerifiedPasswords,
        workers: Workers,
        *,
        default_domain: str = "",
        apop: bool = False,
    ) -> None:
        super().__init__(database, verified, workers, default_domain=default_domain, apop=apop)
