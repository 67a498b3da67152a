"""Logins against stored hashes, wherever those are kept.

Each login reads the stored hash anew, so a changed, disabled or removed account counts at
once in every process; only the slow hash is skipped for a password that was verified lately.
Whatever fails costs one hash: an unknown name, a disabled account and a name that no account
can have all take as long as a wrong password.
"""

import hmac
import secrets
from collections.abc import Callable, Coroutine
from typing import Any, Protocol

from popgate.auth.authenticator import AuthResult, Denied, Login, LookupUnavailable, MaybeLater, Unavailable
from popgate.auth.names import login_identity
from popgate.auth.proofs import DUMMY_SECRET, is_apop_proof, is_cram_md5_proof, scram_keys
from popgate.auth.verified import VerifiedPasswords
from popgate.auth.workers import Overloaded, Workers
from popgate.grants.grant import Terms
from popgate.protocols.sasl import ScramKeys
from popgate.values.identity import Identity
from popgate.values.value import value

MOST_PASSWORD_BYTES = 1024
OVERLOADED = Unavailable("too many logins wait for their password check")

Proof = Callable[[bytes, bytes, bytes], bool]


@value
class Credentials:
    """What a login needs. `stored` is the hash, with its scheme."""

    stored: str
    is_enabled: bool
    terms: Terms


@value
class RecoverableCredentials:
    """The same for APOP, CRAM-MD5 and SCRAM; `secret` is None where none is kept."""

    secret: bytes | None
    is_enabled: bool
    terms: Terms


class CredentialSource(Protocol):
    """Where hashes are kept. The first two are quick and called on the event loop's thread; they
    raise LookupUnavailable. The last two run in a worker's thread."""

    def credentials(self, identity: Identity) -> Credentials | None: ...

    def recoverable(self, identity: Identity) -> RecoverableCredentials | None: ...

    def verify(self, identity: Identity, stored: str, password: bytes) -> str | None:
        """None for a wrong password, else the hash now stored: `stored`, or a better one put in its place."""
        ...

    def burn(self, password: bytes) -> None:
        """Do the work that `verify` does for a wrong password."""
        ...


class StoredLogins:
    """The Authenticator over a CredentialSource.

    `default_domain` completes names typed without one. `apop` allows APOP, CRAM-MD5 and SCRAM for
    accounts that keep a recoverable secret. `workers` may be shared with other back ends;
    `close` leaves both it and the source to their owner.
    """

    def __init__(
        self,
        source: CredentialSource,
        verified: VerifiedPasswords,
        workers: Workers,
        *,
        default_domain: str = "",
        apop: bool = False,
    ) -> None:
        self._source = source
        self._verified = verified
        self._workers = workers
        self._default_domain = default_domain
        self._apop = apop
        # An exchange begins and ends in one process, so salts need not outlive it
        self._salt_key = secrets.token_bytes(32)

    def knows(self, name: str) -> bool:
        """Is there an account of that name, enabled or not? Raises LookupUnavailable."""
        identity = login_identity(name, self._default_domain)
        return identity is not None and self._source.credentials(identity) is not None

    def check_password(self, name: str, password: bytes) -> MaybeLater:
        identity = login_identity(name, self._default_domain)
        if identity is None:
            return self._deny(name, password, "name")
        if not 0 < len(password) <= MOST_PASSWORD_BYTES:
            return self._deny(name, password[:MOST_PASSWORD_BYTES], "password")
        try:
            account = self._source.credentials(identity)
        except LookupUnavailable as error:
            return Unavailable(str(error))
        if account is None:
            return self._deny(name, password, "unknown")
        if not account.is_enabled:
            return self._deny(name, password, "disabled")
        digest = self._verified.digest(str(identity), password, account.stored)
        if self._verified.has(digest):
            return _login(identity, account)
        stored = account.stored
        try:
            check = self._workers.run(digest, lambda: self._source.verify(identity, stored, password))
        except Overloaded:
            return OVERLOADED
        return self._finish(check, identity, stored, digest)

    def _deny(self, name: str, password: bytes, reason: str) -> MaybeLater:
        digest = self._verified.digest(name[:MOST_PASSWORD_BYTES], password, "")
        try:
            check = self._workers.run(digest, lambda: self._source.burn(password))
        except Overloaded:
            return OVERLOADED
        return _denied_after(check, Denied(reason))

    async def _finish(
        self, check: Coroutine[Any, Any, str | None], identity: Identity, stored: str, digest: bytes
    ) -> AuthResult:
        verified = await check
        if verified is None:
            return Denied("password")
        # The check may have waited for seconds; what the account is now decides.
        try:
            account = self._source.credentials(identity)
        except LookupUnavailable as error:
            return Unavailable(str(error))
        if account is None:
            return Denied("unknown")
        if not account.is_enabled:
            return Denied("disabled")
        if account.stored != verified:
            return Denied("password")
        if verified == stored:
            self._verified.add(digest)
        return _login(identity, account)

    def check_apop(self, name: str, challenge: bytes, digest: bytes) -> MaybeLater:
        return self._check_proof(name, challenge, digest, is_apop_proof)

    def check_cram_md5(self, name: str, challenge: bytes, digest: bytes) -> MaybeLater:
        return self._check_proof(name, challenge, digest, is_cram_md5_proof)

    def scram_keys(self, name: str) -> ScramKeys:
        # The salt comes from the name alone, so it tells nobody whether there is such an account
        salt = self._keyed(b"salt", name.lower().encode("utf-8", "surrogatepass"))[:16]
        secret = None
        if self._apop:
            identity = login_identity(name, self._default_domain)
            try:
                account = None if identity is None else self._source.recoverable(identity)
            except LookupUnavailable:
                account = None  # check_scram says so
            if account is not None and account.is_enabled:
                secret = account.secret
        return scram_keys(DUMMY_SECRET if secret is None else secret, salt, self._origin(secret))

    def check_scram(self, name: str, keys: ScramKeys, *, is_proven: bool) -> MaybeLater:
        def is_proof(_: bytes, __: bytes, secret: bytes) -> bool:
            # Whoever guessed what stands in for missing secrets has proven nothing
            return is_proven and hmac.compare_digest(keys.origin, self._origin(secret))

        return self._check_proof(name, b"", b"", is_proof)

    def _origin(self, secret: bytes | None) -> bytes:
        return b"" if secret is None else self._keyed(b"origin", secret)

    def _keyed(self, use: bytes, data: bytes) -> bytes:
        return hmac.digest(self._salt_key, use + b"\0" + data, "sha256")

    def _check_proof(self, name: str, challenge: bytes, digest: bytes, is_proof: Proof) -> AuthResult:
        if not self._apop:
            return Denied("mechanism")
        identity = login_identity(name, self._default_domain)
        try:
            account = None if identity is None else self._source.recoverable(identity)
        except LookupUnavailable as error:
            return Unavailable(str(error))
        secret = DUMMY_SECRET if account is None or account.secret is None else account.secret
        is_right = is_proof(digest, challenge, secret)
        if identity is None:
            return Denied("name")
        if account is None:
            return Denied("unknown")
        if account.secret is None:
            return Denied("mechanism")
        if not account.is_enabled:
            return Denied("disabled")
        return _login(identity, account) if is_right else Denied("password")

    def close(self) -> None:
        pass


def _login(identity: Identity, account: Credentials | RecoverableCredentials) -> Login:
    return Login(identity, account.terms, has_mailbox=not account.terms.is_device)


async def _denied_after(check: Coroutine[Any, Any, object], denied: Denied) -> AuthResult:
    await check
    return denied
