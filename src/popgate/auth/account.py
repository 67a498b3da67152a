"""Accounts and aliases as people see them: values, the errors of changing them, and what is allowed in them.

Where they are kept is a back end's affair (backends/accounts.py).
"""

from popgate.grants.grant import Terms
from popgate.values.identity import Identity, IdentityError
from popgate.values.mail import MailAddress
from popgate.values.value import value

MAX_PASSWORD_BYTES = 240  # POP3's PASS has room for 248 in its line of 255 octets
MAX_SECONDS = 2_592_000  # 30 days, the most that the site's settings allow too
MAX_QUOTA = 10**15


class AccountError(Exception):
    """What a person asked of the database cannot be done; the text says why and what would work."""


class AccountExists(AccountError):
    """The name is taken."""


class AccountUnknown(AccountError):
    """No account or alias has the name."""


class BadName(AccountError):
    """The text is not an address that an account, alias, target or sender can have."""


class BadPassword(AccountError):
    """The password cannot be used in every protocol."""


class AccountStoreError(AccountError):
    """The database cannot be opened, read or written."""


@value
class Account:
    """One account, as people see it; nothing secret. Times are Unix seconds.

    `terms.senders` are further envelope senders; None or -1 in `terms` means the site's setting.
    """

    identity: Identity
    is_enabled: bool
    is_recoverable: bool
    terms: Terms
    created_at: float
    changed_at: float

    @property
    def is_device(self) -> bool:
        return self.terms.is_device


@value
class Alias:
    """Mail to `address` goes to `targets`, in the order they were given."""

    address: Identity
    targets: tuple[MailAddress, ...]


def account_identity(address: str) -> Identity:
    """Read the address of an account or alias: `user@domain`. Raises BadName."""
    try:
        identity = Identity.parse(address)
    except IdentityError as error:
        raise BadName(f"{address!r}: {error}") from error
    if not identity.domain:
        raise BadName(f"{address!r}: an account's name is a whole address, such as {address}@example.org")
    return identity


# RFC 5321 4.1.2 atext; a target with a quoted local part is refused.
_ATEXT = frozenset("abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789!#$%&'*+-/=?^_`{|}~")


def alias_target(text: str) -> MailAddress:
    """Read the target of an alias: an address anywhere, of plain ASCII. Raises BadName."""
    local, at, domain = text.rpartition("@")
    if not at or len(local) > 64 or not all(atom and _ATEXT.issuperset(atom) for atom in local.split(".")):
        raise BadName(f"{text!r} is not an address such as user@example.org")
    if not domain:
        raise BadName(f"{text!r} has no domain; a whole address is needed, such as user@example.org")
    try:
        return MailAddress(local, Identity("x", domain).domain)
    except IdentityError as error:
        raise BadName(f"{text!r}: {error}") from error


def checked_password(password: str) -> bytes:
    """The bytes of a password that every protocol can send. Raises BadPassword."""
    try:
        encoded = password.encode("utf-8", "surrogateescape")
    except UnicodeEncodeError as error:
        raise BadPassword("the password is not text") from error
    if not encoded:
        raise BadPassword("the password is empty")
    if len(encoded) > MAX_PASSWORD_BYTES:
        raise BadPassword(f"the password has {len(encoded)} bytes; POP3 has room for {MAX_PASSWORD_BYTES}")
    if any(byte < 32 or byte == 127 for byte in encoded):
        raise BadPassword("the password holds a control character, which POP3 cannot send")
    return encoded


def checked_terms(terms: Terms) -> Terms:
    """The terms with their senders in one form. Raises AccountError, BadName."""
    for seconds in (terms.window_seconds, terms.max_age_seconds):
        if seconds is not None and not 1 <= seconds <= MAX_SECONDS:
            raise AccountError(f"window and greatest age are 1 to {MAX_SECONDS} seconds")
    for quota in (terms.quota_messages, terms.quota_recipients, terms.quota_bytes):
        if not -1 <= quota <= MAX_QUOTA:
            raise AccountError(f"a quota is 1 to {MAX_QUOTA}, 0 for no limit, or -1 for the site's setting")
    senders = tuple(dict.fromkeys(_checked_sender(sender) for sender in terms.senders))
    return Terms(
        terms.window_seconds,
        terms.max_age_seconds,
        terms.quota_messages,
        terms.quota_recipients,
        terms.quota_bytes,
        senders,
        terms.is_device,
    )


def _checked_sender(sender: str) -> str:
    if sender.startswith("@"):
        return "@" + alias_target("x" + sender).domain
    return str(alias_target(sender)).lower()
