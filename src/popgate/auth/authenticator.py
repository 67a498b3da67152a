"""The interface of authentication back ends, and what they answer."""

from collections.abc import Awaitable
from typing import Protocol, runtime_checkable

from popgate.grants.grant import Terms
from popgate.protocols.sasl import ScramKeys
from popgate.values.identity import Identity
from popgate.values.mail import MailAddress
from popgate.values.value import value


@value
class Login:
    """A completed login. `has_mailbox` is False for device accounts: POP3 then shows an
    empty maildrop. `terms` says what grants of this identity are good for."""

    identity: Identity
    terms: Terms
    has_mailbox: bool = True


@value
class Denied:
    """The proof is wrong, the account unknown or disabled. The client never learns which;
    `reason` is for the log: `unknown`, `password`, `disabled`, `name`, `mechanism`."""

    reason: str


@value
class Unavailable:
    """The back end cannot answer now (454 4.7.0, -ERR [SYS/TEMP]); `detail` is for the log."""

    detail: str


AuthResult = Login | Denied | Unavailable
MaybeLater = AuthResult | Awaitable[AuthResult]


class Authenticator(Protocol):
    """Checks proofs. Synchronous when the answer is at hand (a cached password), else an awaitable.

    Every failing path costs what a real check costs (a dummy hash for unknown names).
    Never raises for what a client sent.
    """

    def check_password(self, name: str, password: bytes) -> MaybeLater:
        """`name` as typed by the client; `password` as sent, at most 1 KiB."""
        ...

    def check_apop(self, name: str, challenge: bytes, digest: bytes) -> MaybeLater:
        """RFC 1939 7: `digest` is 32 lower-case hex digits of MD5(challenge + secret)."""
        ...

    def check_cram_md5(self, name: str, challenge: bytes, digest: bytes) -> MaybeLater:
        """RFC 2195: `digest` is 32 lower-case hex digits of HMAC-MD5(secret, challenge)."""
        ...

    def close(self) -> None: ...


@runtime_checkable
class ScramAuthenticator(Protocol):
    """An Authenticator that can do SCRAM-SHA-256 (RFC 7677). Neither call raises."""

    def scram_keys(self, name: str) -> ScramKeys:
        """Keys for whatever name a client typed, at the same cost: made up ones where there is no such
        account, it is disabled or keeps no secret, or none can be read now."""
        ...

    def check_scram(self, name: str, keys: ScramKeys, *, is_proven: bool) -> MaybeLater:
        """`keys`: what `scram_keys` gave for this name a moment ago. The account may have changed since."""
        ...


@value
class LocalRecipient:
    """A recipient whose mail goes into mailboxes here, or by alias to other addresses.

    `mailboxes`: identities whose INBOX gets a copy; `forwards`: remote addresses of an alias.
    """

    mailboxes: tuple[Identity, ...]
    forwards: tuple[MailAddress, ...] = ()


class RecipientTable(Protocol):
    """Who gets mail here."""

    def resolve(self, address: MailAddress) -> LocalRecipient | None:
        """The recipient, or None when no account or alias of that name exists.

        `user+detail@domain` falls back to `user@domain`. Only asked for local domains.
        Raises LookupUnavailable when it cannot be told now (451).
        """
        ...


class LookupUnavailable(Exception):
    """The account database cannot be read now."""
