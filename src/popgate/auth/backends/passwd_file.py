"""Users in a file of Dovecot's passwd-file format, one a line:

    user:password:uid:gid:gecos:home:shell:extra fields

Only the first two fields and a few extra ones mean something here. The file is read again
when it changes. What cannot be honoured is never read as something weaker: such a line is
named in an event and skipped.
"""

import os
import stat
from collections import Counter

from popgate.auth.addressbook import Listing
from popgate.auth.authenticator import LookupUnavailable
from popgate.auth.logins import Credentials, RecoverableCredentials, StoredLogins
from popgate.auth.names import login_identity
from popgate.auth.schemes import SchemeError, StoredPassword, read_stored_password
from popgate.auth.verified import VerifiedPasswords
from popgate.auth.workers import Workers
from popgate.grants.grant import DEFAULT_TERMS
from popgate.values.clock import Clock
from popgate.values.event import Event, EventSink
from popgate.values.identity import Identity
from popgate.values.value import value

MOST_BYTES = 64 * 1024 * 1024
_MOST_NAMED = 20  # bad lines named one by one; the rest is counted


class PasswdFileError(Exception):
    """The file cannot be used; the text says why."""


class BadLine(ValueError):
    """A line that is skipped; the text says what would be right."""


@value
class _User:
    stored: str
    password: StoredPassword
    is_enabled: bool


class PasswdFile:
    """The users in the file at `path`; a name without a domain belongs to `default_domain`.

    A CredentialSource and an AddressBook: every user has a mailbox. Emits `auth.passwd_file.line`
    for each bad line and `auth.passwd_file.read` for each reading. Raises PasswdFileError at the
    start; a file that becomes unreadable later makes logins Unavailable.
    """

    def __init__(self, path: str, clock: Clock, emit: EventSink, default_domain: str = "") -> None:
        self._path = path
        self._clock = clock
        self._emit = emit
        self._default_domain = default_domain
        self._users: dict[Identity, _User] = {}
        self._dummy: StoredPassword | None = None
        self._seen: tuple[int, ...] = ()
        self._refresh()

    def credentials(self, identity: Identity) -> Credentials | None:
        user = self._find(identity)
        return None if user is None else Credentials(user.stored, user.is_enabled, DEFAULT_TERMS)

    def recoverable(self, identity: Identity) -> RecoverableCredentials | None:
        user = self._find(identity)
        if user is None:
            return None
        return RecoverableCredentials(user.password.secret, user.is_enabled, DEFAULT_TERMS)

    def listing(self, identity: Identity) -> Listing | None:
        return None if self._find(identity) is None else Listing(has_mailbox=True)

    def verify(self, identity: Identity, stored: str, password: bytes) -> str | None:
        user = self._users.get(identity)
        if user is None or user.stored != stored:
            return None
        if user.password.verify(password):
            return stored
        if not user.password.cost:
            self.burn(password)  # a scheme without cost must not stand out
        return None

    def burn(self, password: bytes) -> None:
        """The commonest costly scheme of the file is what most wrong passwords cost."""
        dummy = self._dummy
        if dummy is not None:
            dummy.verify(password)

    def _find(self, identity: Identity) -> _User | None:
        try:
            self._refresh()
        except PasswdFileError as error:
            raise LookupUnavailable(str(error)) from error
        return self._users.get(identity)

    def _refresh(self) -> None:
        try:
            status = os.stat(self._path)
            seen = (status.st_dev, status.st_ino, status.st_size, status.st_mtime_ns, status.st_ctime_ns)
            if seen == self._seen:
                return
            if not stat.S_ISREG(status.st_mode):
                raise PasswdFileError(f"{self._path} is not a regular file")
            if status.st_mode & 0o002:
                raise PasswdFileError(f"{self._path} can be written by everybody; chmod o-w it")
            if status.st_size > MOST_BYTES:
                raise PasswdFileError(f"{self._path} is larger than {MOST_BYTES} bytes")
            with open(self._path, "rb") as file:
                content = file.read(MOST_BYTES + 1)
        except OSError as error:
            raise PasswdFileError(f"{self._path}: {error.strerror}") from error
        self._take(content)
        self._seen = seen

    def _take(self, content: bytes) -> None:
        users: dict[Identity, _User] = {}
        bad = 0
        for number, raw in enumerate(content.split(b"\n"), 1):
            line = raw.decode("utf-8", "surrogateescape").removesuffix("\r")
            if not line.strip() or line.lstrip().startswith("#"):
                continue
            try:
                identity, user = self._read_line(line)
                if identity in users:
                    raise BadLine(f"{identity} stands in an earlier line already")
                users[identity] = user
            except BadLine as error:
                bad += 1
                if bad <= _MOST_NAMED:
                    self._report("auth.passwd_file.line", line=number, remedy=str(error))
        self._users = users
        self._dummy = _commonest(users)
        self._report("auth.passwd_file.read", users=len(users), bad_lines=bad)

    def _report(self, name: str, **fields: str | int) -> None:
        self._emit(Event(name, self._clock.now(), {"file": self._path, **fields}))

    def _read_line(self, line: str) -> tuple[Identity, _User]:
        fields = line.split(":", 7)
        identity = login_identity(fields[0], self._default_domain)
        if identity is None:
            raise BadLine("the name is not user or user@domain of the characters A-Z a-z 0-9 . _ + - =")
        if len(fields) < 2 or not fields[1]:
            raise BadLine("the second field, the password, is missing or empty; write {PLAIN}... or a hash")
        extra = fields[7].split() if len(fields) > 7 else []
        names = {word.partition("=")[0].lower() for word in extra}
        if "nopassword" in names:
            raise BadLine("nopassword would let everybody in; give a password")
        if "allow_nets" in names:
            raise BadLine("allow_nets cannot be honoured here; remove it, or use an account of popgate's own")
        stored = fields[1]
        if stored[0] in "!*":  # locked, as in shadow files
            return identity, _User(stored, StoredPassword(lambda password: False, ""), False)
        try:
            return identity, _User(stored, read_stored_password(stored), "nologin" not in names)
        except SchemeError as error:
            raise BadLine(str(error)) from error


def _commonest(users: dict[Identity, _User]) -> StoredPassword | None:
    costs = Counter(user.password.cost for user in users.values() if user.password.cost)
    if not costs:
        return None
    cost = costs.most_common(1)[0][0]
    return next(user.password for user in users.values() if user.password.cost == cost)


class PasswdFileLogins(StoredLogins):
    """The Authenticator over a PasswdFile (made with the same `default_domain`); see StoredLogins."""

    def __init__(
        self,
        file: PasswdFile,
        verified: VerifiedPasswords,
        workers: Workers,
        *,
        default_domain: str = "",
        apop: bool = False,
    ) -> None:
        super().__init__(file, verified, workers, default_domain=default_domain, apop=apop)
